"""Where a generator step's rows come from: its `process`, or its `process_tables`, pulled batch by batch."""

import inspect
from typing import Any

import pyarrow as pa

from distilabel_dagster.base.code_fingerprint import reads_name
from distilabel_dagster.base.columns import check_rows
from distilabel_dagster.base.error_texts import tell_error
from distilabel_dagster.batch import Rows
from distilabel_dagster.cache.foreign_tables import build_table_as_of_rows
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.engine.worker import Output, calling_models, offers
from distilabel_dagster.errors import DistilabelDagsterError, StepOutputError, StepProcessError
from distilabel_dagster.models.caller import Caller
from distilabel_dagster.models.limits import CallsStopped
from distilabel_dagster.steps.step import GeneratorStep
from distilabel_dagster.steps.tasks.task import GeneratorTask


class RowSource:
    """A generator step's rows from an offset on, batch by batch.

    Args:
        step: the step, loaded.
        offset: rows that are committed already.
    """

    def __init__(self, step: GeneratorStep, offset: int) -> None:
        self._step = step
        self._skip = 0 if honours_offset(step) else offset
        self._offset = 0 if self._skip else offset
        self._iterator: Any = None
        self._is_given_up = False

    def give_up(self) -> None:
        """Pull no more, from any thread: one that's waiting for rows among batches without any goes on for ever."""
        self._is_given_up = True

    def _start(self, offset: int) -> Any:
        name, made = "process_tables", None
        try:
            if offers(type(self._step), name):
                made = self._step.process_tables(offset=offset)
            if made is None:
                name, made = "process", self._step.process(offset=offset)
        except DistilabelDagsterError:
            raise
        except BaseException as error:
            raise self._failure(error) from error
        if not hasattr(made, "__next__"):
            raise StepOutputError(
                f"Step `{self._step.name}`: `{name}()` returned a {type(made).__name__}, expected a generator. Write "
                "`yield rows, last_batch`.",
                step=self._step.name,
            )
        return made

    def pull(self, caller: Caller | None = None) -> tuple[Output, bool] | None:
        """Get the next rows, and whether they're the last; None if the generator ended without saying so.

        Args:
            caller: makes the calls of the step's models.

        Raises:
            StepProcessError: the generator raised.
            StepOutputError: it yielded something other than `(rows, last_batch)`.
        """
        while not self._is_given_up:
            try:
                with calling_models(self._step, caller):
                    if self._iterator is None:
                        self._iterator = self._start(self._offset)
                    made = next(self._iterator)
            except StopIteration:
                return None
            except (DistilabelDagsterError, CallsStopped):
                raise
            except BaseException as error:
                raise self._failure(error) from error
            given, last_batch = self._check(made)
            skipped = min(self._skip, len(given))
            self._skip -= skipped
            given = given[skipped:]
            if len(given) or last_batch:
                return Output(self._build_table(given), {}), last_batch
        return None

    def _check(self, made: Any) -> tuple[Rows | pa.Table, bool]:
        name = self._step.name
        if not (isinstance(made, tuple) and len(made) == 2):
            raise StepOutputError(
                f"Step `{name}` yielded a {type(made).__name__}, expected a pair `(rows, last_batch)`.",
                step=name,
            )
        if isinstance(made[0], pa.Table):
            return made[0], bool(made[1])
        return check_rows(made[0], name, "yielded"), bool(made[1])

    def _build_table(self, given: Rows | pa.Table) -> pa.Table:
        step = self._step
        if not isinstance(given, pa.Table):
            return build_table(step.map_rows(given), step.name)
        try:
            renamed = self._rename(given)
            if renamed is None:
                return build_table(step.map_rows(given.to_pylist()), step.name)
            return build_table_as_of_rows(renamed, step.name)
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise error if isinstance(error, DistilabelDagsterError) else self._failure(error) from error

    def _rename(self, table: pa.Table) -> pa.Table | None:
        """Apply `output_mappings` to a table; None where only rows tell what comes out."""
        step = self._step
        if type(step).map_rows is not GeneratorStep.map_rows:
            return None
        if not step.output_mappings:
            return table
        names = [step.output_mappings.get(name, name) for name in table.column_names]
        return table.rename_columns(names) if len({*names}) == len(names) else None

    def _failure(self, error: BaseException) -> StepProcessError:
        return StepProcessError(
            f"Step `{self._step.name}` failed while it made rows: {tell_error(error)}. Rows committed "
            "before stay; mend the cause and start the same run again.",
            step=self._step.name,
        )


def honours_offset(step: GeneratorStep) -> bool:
    """Tell whether `process` is started at its offset.

    One that never reads it is started from the beginning, as is one that only hands it on to a `process` of its bases that
    never does, and one that asks a model: what it asked before is answered from the ledger, so that it goes the same way
    again, whether it asks ahead or for each batch.
    """
    if isinstance(step, GeneratorTask):
        return False
    for cls in type(step).__mro__:
        defined = vars(cls).get("step_function") or vars(cls).get("process")
        if defined is None:
            continue
        function = defined.__get__(step)
        name = next(iter(inspect.signature(function).parameters), None)
        if name is None or not reads_name(function, name):
            return False
        if reads_name(function, name, beside="process"):
            return True
    return False
