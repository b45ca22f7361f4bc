"""The resource that runs a pipeline inside an op."""

from collections.abc import Generator, Iterator, Mapping
from typing import Any, Literal

import dagster as dg
from pydantic import Field, PrivateAttr

from distilabel_dagster.base.columns import all_columns
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.engine.events import RunStopped, StepFinished
from distilabel_dagster.engine.run_state import RunOptions, WhenInUse
from distilabel_dagster.errors import (
    CostLimitError,
    IncompleteRunError,
    PipelineDefinitionError,
    UnknownPartitionError,
)
from distilabel_dagster.orchestration.assets import StepGroup, running_group
from distilabel_dagster.orchestration.config import read_parameters
from distilabel_dagster.orchestration.events import EventLog, LineageSource, StepOutput, describe_step_end
from distilabel_dagster.orchestration.handlers import keep_signal_handlers, stop_run
from distilabel_dagster.orchestration.metadata import COST_USD, PARTITION_TAG
from distilabel_dagster.orchestration.orphans import end_with_executor
from distilabel_dagster.orchestration.partitions import pipeline_of_partition, register_partition
from distilabel_dagster.orchestration.plan_only import PLAN_ONLY, log_plan, read_op_config
from distilabel_dagster.orchestration.run_process import note_run_process
from distilabel_dagster.pipeline.execution import RunEvents


class DistilabelResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # its parameter is the class itself
    """Runs the pipeline of the op that it's used in, and yields a materialization per finished step.

    A run of a partition goes on from what is in the cache. Ctrl+C, SIGTERM and Terminate stop it cleanly.
    """

    on_error: Literal["impute", "raise"] = Field(
        default="impute",
        description="What becomes of rows on which a step fails: `impute` keeps them without the step's outputs, and "
        "the next run tries them again; `raise` fails the run.",
    )
    grace_period_s: float = Field(
        default=30.0, description="Seconds that batches being computed get to finish when the run is stopped."
    )
    max_cost_usd: float | None = Field(
        default=None,
        description="US dollars that the calls of a partition may cost, over all of its runs; at the limit the run is "
        "stopped, and goes on when the limit is raised.",
    )
    when_in_use: Literal["raise", "wait"] = Field(
        default="raise",
        description="What to do when another run writes one of the steps: `raise` fails and says which process it is; "
        "`wait` waits until that has ended, and goes on from there.",
    )
    _open_runs: "list[Generator[dg.MaterializeResult[StepOutput], None, None]]" = PrivateAttr(
        default_factory=list
    )

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Stop what Dagster has left half-way, because an asset couldn't be stored or it was interrupted itself."""
        with keep_signal_handlers():
            while self._open_runs:
                self._open_runs.pop().close()

    def run(
        self,
        context: dg.AssetExecutionContext,
        *,
        use_cache: bool | None = None,
        plan_only: bool | None = None,
        when_in_use: WhenInUse | None = None,
    ) -> Iterator["dg.MaterializeResult[StepOutput]"]:
        """Run the selected steps of the op's pipeline for the run's partition.

        Args:
            context: the op's context.
            use_cache: False computes the steps anew; by default what the op's config says.
            plan_only: True computes what costs no call, says what the rest would call and pay, and yields nothing; by
                default what the op's config says.
            when_in_use: what to do when another run writes one of the steps; by default what the op's config says, and
                without that the resource.

        Raises:
            UnknownPartitionError: the run has no partition, or one that means no pipeline.
            SignatureMismatchError: code, data or run config don't fit the partition; nothing was run.
            StepInUseError: another run writes one of the steps, or has taken over.
            StepRunError: a step failed; what was committed stays.
            dagster.Failure: the calls have cost what they may; what was answered stays.
        """
        results = self._run(context, use_cache, plan_only, when_in_use)
        self._open_runs.append(results)
        return results

    def _run(
        self,
        context: dg.AssetExecutionContext,
        use_cache: bool | None,
        plan_only: bool | None,
        when_in_use: WhenInUse | None,
    ) -> "Generator[dg.MaterializeResult[StepOutput], None, None]":
        group = running_group(context)
        if group is None:
            raise PipelineDefinitionError(
                "`DistilabelResource.run(context)` belongs into a function under `@distilabel_assets(pipeline=...)`: it "
                "runs that function's pipeline."
            )
        if not context.has_partition_key:
            signature = group.pipeline.signature
            raise UnknownPartitionError(
                f"Pipeline `{group.pipeline.name}` is partitioned by its signature, but this run has no partition. Run "
                f'its job, or pass `--tags \'{{"{PARTITION_TAG}": "{signature}"}}\'`.',
                partition_key="",
            )
        run_config: Mapping[str, Any] = context.run.run_config
        parameters = read_parameters(group.pipeline, run_config, group.op_names)
        config = read_op_config(run_config, group.op_name)
        if use_cache is None:
            use_cache = bool(config.get("use_cache", True))
        if plan_only is None:
            plan_only = bool(config.get(PLAN_ONLY, False))
        options = RunOptions(
            on_error=self.on_error,
            use_cache=use_cache,
            grace_period_s=self.grace_period_s,
            max_cost_usd=self.max_cost_usd,
            when_in_use=when_in_use or config.get("when_in_use") or self.when_in_use,
            run_id=context.run.run_id,
        )
        key = context.partition_key
        with (
            end_with_executor(context, self.grace_period_s) as watch,
            pipeline_of_partition(group.pipeline, key, parameters, context.instance) as cache,
        ):
            register_partition(context.instance, group.pipeline, key)
            note_run_process(context)
            if plan_only:
                log_plan(context, group, cache)
                return
            selected = context.selected_asset_keys
            steps = [name for name in group.steps if group.asset_keys[name] in selected]
            try:
                events = group.pipeline.iter_run(options, steps=steps, cache=cache)
                watch.stop = events.stop
                yield from self._tell_events(context, group, cache, events)
            except CostLimitError as error:
                # Another attempt would stop at once.
                raise dg.Failure(
                    str(error), metadata={COST_USD: error.cost_usd}, allow_retries=False
                ) from error

    def _tell_events(
        self,
        context: dg.AssetExecutionContext,
        group: StepGroup,
        cache: PipelineCache,
        events: RunEvents,
    ) -> "Iterator[dg.MaterializeResult[StepOutput]]":
        log = EventLog(context.log)
        stopped: RunStopped | None = None
        for event in events:
            log.tell(event)
            if isinstance(event, StepFinished):
                result = describe_step_end(
                    event,
                    _describe_output(event.step, group, cache),
                    group.asset_keys[event.step],
                    context.selected_asset_check_keys,
                )
                try:
                    with keep_signal_handlers():
                        yield result
                except GeneratorExit:
                    context.log.warning(
                        "The run was interrupted, or a result couldn't be stored: stopping the pipeline"
                    )
                    stop_run(events, log.tell)
                    raise
            elif isinstance(event, RunStopped):
                stopped = event
        if stopped is not None:  # a signal would have been delivered again behind the last event
            raise IncompleteRunError(str(stopped))


def _describe_output(name: str, group: StepGroup, cache: PipelineCache) -> StepOutput:
    """Where the output of the step that ended is, and what its columns are made of."""
    step = group.pipeline.dag.steps[name]
    lineage = LineageSource(
        inputs=all_columns(step.get_inputs()),
        outputs=all_columns(step.get_outputs()),
        predecessors={each: group.asset_keys[each] for each in group.pipeline.dag.predecessors(name)},
    )
    return StepOutput(cache, name, lineage)
