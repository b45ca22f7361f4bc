"""What is noted of a step's output: the batch's record, failed rows, columns that don't come."""

import pyarrow as pa

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.events import RowsFailed, StepWarning
from distilabel_dagster.engine.run_state import RunState
from distilabel_dagster.engine.step_buffer import InputPlan
from distilabel_dagster.engine.wiring import choose_route
from distilabel_dagster.engine.worker import Output


class OutputRecorder:
    """Makes the records of one step's batches.

    Args:
        dag: the pipeline's graph.
        name: the step.
        state: what the steps of the run share.
        base_revision: revision of batches that are computed for the first time.
    """

    def __init__(self, dag: DAG, name: str, state: RunState, base_revision: int) -> None:
        self._dag = dag
        self._name = name
        self._step = dag.steps[name]
        self._state = state
        self._base_revision = base_revision
        self._columns_checked = False

    def record(self, plan: InputPlan, seq_no: int, output: Output) -> BatchRecord:
        """Give the record of a batch; a new one is routed here.

        Raises:
            StepProcessError: the routing function raised.
            RoutingError: it chose nothing, or something that doesn't follow the step.
        """
        routing = self._dag.routing.get(self._name)
        routed_to: list[str] = []
        if routing is not None and seq_no >= len(self._state.logs[self._name].records):
            routed_to = choose_route(routing, self._name, self._dag.successors(self._name), seq_no)
        return BatchRecord(
            seq_no=seq_no,
            size=output.table.num_rows,
            last_batch=plan.last_batch,
            created_from=plan.created_from or None,
            batch_routed_to=tuple(routed_to),
            revision=self._base_revision,
            errors=output.errors or None,
            requests=output.requests,
            occurrences=output.occurrences,
        )

    def report(self, seq_no: int, output: Output) -> None:
        """Tell of rows that failed, and once of declared columns that don't come."""
        if output.errors:
            first = next(iter(output.errors.values()))
            self._state.emit(RowsFailed(self._name, seq_no, len(output.errors), first, output.trace))
        elif output.table.num_rows and not self._columns_checked:
            self._columns_checked = True
            self._check_columns(output.table)

    def _check_columns(self, table: pa.Table) -> None:
        """Say when a step doesn't make what it declares; steps behind it were allowed in because of that."""
        missing = [
            name
            for name, is_given in self._step.get_outputs().items()
            if is_given and name not in table.schema.names
        ]
        if missing:
            told, found = (
                ", ".join(f"`{name}`" for name in names) for names in (missing, table.schema.names)
            )
            self._state.emit(
                StepWarning(
                    self._name, f"declares the output {told}, but its rows have only the columns {found}"
                )
            )
