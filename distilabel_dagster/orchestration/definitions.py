"""`build_definitions`: everything that a pipeline needs in Dagster, in one call."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import dagster as dg

from distilabel_dagster.dag.load_stages import LoadGroups
from distilabel_dagster.engine.run_state import WhenInUse
from distilabel_dagster.orchestration.assets import StepGroup, build_group_assets, build_step_groups
from distilabel_dagster.orchestration.config import build_config_class
from distilabel_dagster.orchestration.distiset_asset import build_distiset_asset
from distilabel_dagster.orchestration.io_manager import CacheIOManager
from distilabel_dagster.orchestration.jobs import build_distilabel_job
from distilabel_dagster.orchestration.resource import DistilabelResource
from distilabel_dagster.orchestration.sensors import (
    build_distilabel_schedule,
    build_resume_sensor,
    build_signature_sensor,
)
from distilabel_dagster.orchestration.translator import DistilabelTranslator, python_name
from distilabel_dagster.pipeline import Pipeline


def build_definitions(
    pipeline: Pipeline,
    *,
    load_groups: LoadGroups | None = None,
    translator: DistilabelTranslator | None = None,
    executor_def: dg.ExecutorDefinition | None = None,
    cron_schedule: str | None = None,
    on_error: Literal["impute", "raise"] = "impute",
    max_cost_usd: float | None = None,
    when_in_use: WhenInUse = "raise",
    pool: str | None = None,
    retry_policy: dg.RetryPolicy | None = None,
) -> dg.Definitions:
    """Give a pipeline's assets, job, IO manager, resource, checks, sensors and schedule.

    The names all begin with the pipeline's, so definitions of several pipelines can be merged. Assets:
    `[<pipeline>, <step>]` and `[<pipeline>, "distiset"]`, partitioned by signature (`<pipeline>_signatures`); job
    `<pipeline>_job`; sensors `<pipeline>_signature_sensor` (on) and `<pipeline>_resume_sensor` (off); schedule
    `<pipeline>_schedule` (off), where `cron_schedule` is given.

    Args:
        pipeline: the pipeline; its `cache_dir` is where everything is kept.
        load_groups: None gives one op, in which the steps stream; lists of steps, or "sequential_step_execution" for
            an op a step, give an op per load stage.
        translator: makes the asset specs.
        executor_def: how the job's ops run; in the run's process by default.
        cron_schedule: when the schedule materializes the present signature.
        on_error: what becomes of rows on which a step fails.
        max_cost_usd: US dollars that the calls of a partition may cost, over all of its runs; at the limit a run is
            stopped.
        when_in_use: what a run does when another one writes one of its steps: "raise" fails, and says which process that
            is; "wait" waits for its end, and goes on from there. With a schedule or an automation "wait" is the better
            one: a run that meets one started by hand then ends well, and has computed nothing twice.
        pool: concurrency pool of the pipeline's ops.
        retry_policy: how its ops are tried again when they fail.

    Raises:
        PipelineDefinitionError: the pipeline can't run; what is wrong and what to do is told.

    Examples:
        >>> from distilabel_dagster.pipeline import Pipeline
        >>> from distilabel_dagster.steps import LoadDataFromDicts
        >>> with Pipeline("greetings") as pipeline:
        ...     load = LoadDataFromDicts(name="load", data=[{"text": "hey"}])
        >>> defs = build_definitions(pipeline)
        >>> defs.resolve_job_def("greetings_job").name
        'greetings_job'
    """
    name = python_name(pipeline.name)
    io_manager_key, resource_key = f"{name}_io_manager", f"{name}_distilabel"
    groups = build_step_groups(pipeline, load_groups, translator)
    steps = [
        build_group_assets(
            group,
            _build_compute(group, resource_key),
            translator=translator,
            io_manager_key=io_manager_key,
            required_resource_keys={resource_key},
            pool=pool,
            retry_policy=retry_policy,
        )
        for group in groups
    ]
    distiset = build_distiset_asset(
        pipeline, groups[0].asset_keys, translator=translator, io_manager_key=io_manager_key
    )
    job = build_distilabel_job(pipeline, [*steps, distiset], executor_def=executor_def)
    schedules = [build_distilabel_schedule(pipeline, cron_schedule=cron_schedule)] if cron_schedule else []
    return dg.Definitions(
        assets=[*steps, distiset],
        jobs=[job],
        sensors=[build_signature_sensor(pipeline), build_resume_sensor(pipeline)],
        schedules=schedules,
        resources={
            resource_key: DistilabelResource(
                on_error=on_error, max_cost_usd=max_cost_usd, when_in_use=when_in_use
            ),
            io_manager_key: CacheIOManager(
                pipeline.given_cache_dir,
                pipeline.storage_options,
                ledger_url=pipeline.ledger_url,
                when_in_use=when_in_use,
            ),
        },
    )


def _build_compute(group: StepGroup, resource_key: str) -> Callable[..., Iterator[Any]]:
    """The op's function, with the run config of its steps."""

    def compute(context: dg.AssetExecutionContext, config: Any) -> Iterator[Any]:
        distilabel: DistilabelResource = getattr(context.resources, resource_key)
        yield from distilabel.run(
            context,
            use_cache=config.use_cache,
            plan_only=config.plan_only,
            when_in_use=config.when_in_use.value if config.when_in_use is not None else None,
        )

    compute.__annotations__["config"] = build_config_class(group.pipeline, group.steps)
    compute.__name__ = group.op_name
    return compute
