"""A pipeline run through Dagster, in this process, with the run kept in an instance."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cli.instance import InstancePlace, find_instance, open_instance
from distilabel_dagster.cli.progress import BarView, CountingView, PlainView, listen
from distilabel_dagster.cli.signals import SignalWatch, StoppedBySignal
from distilabel_dagster.cli.terminal import LogConsole, open_log_stream
from distilabel_dagster.dag.load_stages import LoadGroups
from distilabel_dagster.engine.run_state import WhenInUse
from distilabel_dagster.ledger.usage import Usage
from distilabel_dagster.pipeline import Pipeline

if TYPE_CHECKING:
    import dagster as dg

    from distilabel_dagster.distiset import Distiset

# Dagster's events are in the instance; the terminal shows the run in our words.
_QUIET: Final = {"console": {"config": {"log_level": "CRITICAL"}}}


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left.

    Attributes:
        distiset: the whole dataset.
        usage: what calls to models came to in this run.
        usage_in_all: what they came to in all runs of the pipeline's steps.
        run_id: Dagster's name of the run.
        place: the instance that keeps it.
    """

    distiset: "Distiset"
    usage: Usage
    usage_in_all: Usage
    run_id: str
    place: InstancePlace


def run_through_dagster(
    pipeline: Pipeline,
    *,
    load_groups: LoadGroups | None = None,
    on_error: Literal["impute", "raise"] = "impute",
    use_cache: bool = True,
    max_cost_usd: float | None = None,
    when_in_use: WhenInUse = "raise",
) -> RunResult:
    """Materialize all assets of a pipeline on the partition of its signature, and show how it comes on.

    Args:
        pipeline: the pipeline, with its runtime parameters set.
        load_groups: groups of steps that become ops of their own.
        on_error: what becomes of rows on which a step fails.
        use_cache: False computes everything anew.
        max_cost_usd: US dollars that calls may cost, over all runs under the pipeline's signature.
        when_in_use: what to do when another process writes one of the steps.

    Raises:
        CostLimitError: the calls have cost that much; what was answered stays.
        StepInUseError: another process writes one of the steps, or has taken over.
        DistilabelDagsterError: the pipeline can't run, or failed.
        StoppedBySignal: Ctrl+C or SIGTERM; what was being computed was committed.
    """
    fs = CacheFileSystem(pipeline.cache_dir, pipeline.storage_options)
    pipeline.validate()
    fs.check_writable()
    place = find_instance(fs)
    run_id = str(uuid.uuid4())
    with open_instance(place) as instance:
        watch = SignalWatch(lambda: _mark_as_canceling(instance, run_id))
        with watch, _show_progress(pipeline, fs) as view:
            try:
                distiset = _execute(
                    pipeline,
                    instance,
                    run_id,
                    load_groups=load_groups,
                    on_error=on_error,
                    use_cache=use_cache,
                    max_cost_usd=max_cost_usd,
                    when_in_use=when_in_use,
                )
            except BaseException as error:
                if watch.number is None or not _is_interruption(error):
                    raise
                raise StoppedBySignal(watch.number) from error
    return RunResult(distiset, view.usage, view.usage_in_all, run_id, place)


def _execute(
    pipeline: Pipeline,
    instance: "dg.DagsterInstance",
    run_id: str,
    *,
    load_groups: LoadGroups | None,
    on_error: Literal["impute", "raise"],
    use_cache: bool,
    max_cost_usd: float | None,
    when_in_use: WhenInUse,
) -> Any:
    from distilabel_dagster.orchestration import DistilabelStepData, DistilabelTranslator, build_definitions
    from distilabel_dagster.orchestration.assets import split_into_ops
    from distilabel_dagster.orchestration.jobs import job_name
    from distilabel_dagster.orchestration.partitions import register_partition

    definitions = build_definitions(
        pipeline,
        load_groups=load_groups,
        on_error=on_error,
        max_cost_usd=max_cost_usd,
        when_in_use=when_in_use,
    )
    job = definitions.resolve_job_def(job_name(pipeline))
    signature = pipeline.signature
    register_partition(instance, pipeline, signature)
    run_config: dict[str, Any] = {"loggers": _QUIET}
    if not use_cache:
        ops = split_into_ops(pipeline, load_groups)
        run_config["ops"] = {op: {"config": {"use_cache": False}} for op in ops}
    result = job.execute_in_process(
        run_config=run_config,
        instance=instance,
        partition_key=signature,
        run_id=run_id,
    )
    key = DistilabelTranslator().get_asset_spec(DistilabelStepData(pipeline, None)).key
    return result.asset_value(key)


@contextlib.contextmanager
def _show_progress(pipeline: Pipeline, fs: CacheFileSystem) -> Iterator[CountingView]:
    with open_log_stream() as stream:
        console = LogConsole(file=stream, highlight=False)
        if not console.is_terminal:
            view = CountingView(PlainView(console))
            with listen(view):
                yield view
            return
        bars = BarView(console, pipeline.dag, pipeline.step_signatures, fs)
        view = CountingView(bars)
        with bars.live(), listen(view):
            yield view


def _mark_as_canceling(instance: "dg.DagsterInstance", run_id: str) -> None:
    """Tell the instance that the end to come was asked for: without this the run would count as failed."""
    with contextlib.suppress(Exception):  # a word that doesn't get through mustn't disturb the stop
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_canceling(run)


def _is_interruption(error: BaseException) -> bool:
    import dagster as dg

    return isinstance(error, KeyboardInterrupt | dg.DagsterExecutionInterruptedError)
