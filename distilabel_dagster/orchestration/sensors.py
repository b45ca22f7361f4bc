"""Sensors: the present signature becomes a partition; what was begun is brought to its end."""

import json
import time
from typing import Any, Final

import dagster as dg

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.inventory import list_pipelines
from distilabel_dagster.errors import RuntimeParameterError
from distilabel_dagster.orchestration.jobs import job_name
from distilabel_dagster.orchestration.metadata import PARTITION_TAG
from distilabel_dagster.orchestration.partitions import (
    build_partitions_def,
    freeze_partition,
    partitions_name,
    register_partition,
)
from distilabel_dagster.orchestration.run_process import end_dead_runs
from distilabel_dagster.orchestration.translator import python_name
from distilabel_dagster.pipeline import Pipeline

_IN_PROGRESS: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def build_signature_sensor(pipeline: Pipeline, *, minimum_interval_seconds: int = 30) -> dg.SensorDefinition:
    """Make the sensor `<pipeline>_signature_sensor`, which registers the pipeline's present signature. On by default.

    So the Materialize button of an asset offers it, and data that changed on disk shows up as a new partition. Runs of
    its partitions that were killed on this machine, and that Dagster still counts as started, are marked as failed.

    Args:
        pipeline: the pipeline.
        minimum_interval_seconds: how often it looks, at most.
    """

    @dg.sensor(
        name=f"{python_name(pipeline.name)}_signature_sensor",
        job_name=job_name(pipeline),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Registers the present signature of pipeline `{pipeline.name}` as a partition.",
    )
    def signature_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        end_dead_runs(context.instance, context.instance.get_dynamic_partitions(partitions_name(pipeline)))
        try:
            pipeline.validate()
        except RuntimeParameterError as error:
            return dg.SkipReason(str(error))
        signature = pipeline.signature
        if context.instance.has_dynamic_partition(partitions_name(pipeline), signature):
            return dg.SkipReason(f"The signature {signature} is a partition already.")
        request = build_partitions_def(pipeline).build_add_request([signature])
        return dg.SensorResult(dynamic_partitions_requests=[request], cursor=signature)

    return signature_sensor


def build_resume_sensor(
    pipeline: Pipeline,
    *,
    max_attempts: int = 3,
    minimum_interval_seconds: int = 60,
    silent_after_s: float = 600.0,
) -> dg.SensorDefinition:
    """Make the sensor `<pipeline>_resume_sensor`, which runs again what was begun and isn't complete. Off by default.

    A partition counts as begun when a run has committed something under its signature, and isn't asked for while a
    run of it is on. A run whose process was killed is on for ever, as far as Dagster knows. Where that process was on
    this machine, it's seen at once that it's gone; otherwise by silence, since a run that works writes a line at least
    each half minute. Turn the sensor on, or the instance's run retries, not both.

    Args:
        pipeline: the pipeline.
        max_attempts: runs that it requests for a partition at most.
        minimum_interval_seconds: how often it looks, at most.
        silent_after_s: seconds without an event after which a run that has started counts as dead, where nobody can see
            whether its process lives.
    """

    @dg.sensor(
        name=f"{python_name(pipeline.name)}_resume_sensor",
        job_name=job_name(pipeline),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Runs partitions of pipeline `{pipeline.name}` again that were begun and aren't complete.",
    )
    def resume_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        end_dead_runs(context.instance, context.instance.get_dynamic_partitions(partitions_name(pipeline)))
        attempts: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        found = list_pipelines(pipeline.cache_dir, pipeline.storage_options)
        fs = CacheFileSystem(pipeline.cache_dir, pipeline.storage_options)
        unfinished = [
            each.signature
            for each in found
            if each.name == pipeline.name and not each.is_complete and _is_begun(fs, each.signature)
        ]
        asked = []
        for signature in unfinished:
            is_spent = attempts.get(signature, 0) >= max_attempts
            if is_spent or _is_running(context.instance, signature, silent_after_s):
                continue
            attempts[signature] = attempts.get(signature, 0) + 1
            asked.append(signature)
        if not asked:
            return dg.SkipReason(f"Of {len(unfinished)} unfinished partitions none is to be run again now.")
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"{signature}:{attempts[signature]}", partition_key=signature)
                for signature in asked
            ],
            dynamic_partitions_requests=[build_partitions_def(pipeline).build_add_request(asked)],
            cursor=json.dumps(attempts),
        )

    return resume_sensor


def _is_begun(fs: CacheFileSystem, signature: str) -> bool:
    """Whether a run got further than to write down which pipeline the signature means."""
    return any(fs.exists(file(signature)) for file in (layout.log_file, layout.batch_manager_file))


def _is_running(instance: dg.DagsterInstance, signature: str, silent_after_s: float) -> bool:
    """Whether a run of the partition is on or about to be, of whichever job; of dead ones only the silence tells."""
    filters = dg.RunsFilter(statuses=_IN_PROGRESS, tags={PARTITION_TAG: signature})
    for run in instance.get_runs(filters):
        if run.status not in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING):
            return True
        latest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        if latest and time.time() - latest[0].timestamp < silent_after_s:
            return True
    return False


def build_distilabel_schedule(
    pipeline: Pipeline, *, cron_schedule: str, execution_timezone: str | None = None, run_config: Any = None
) -> dg.ScheduleDefinition:
    """Make the schedule `<pipeline>_schedule`, which materializes the pipeline's present signature. Off by default.

    Where nothing changed since the last time, the run finds everything in the cache and computes nothing.

    Args:
        pipeline: the pipeline.
        cron_schedule: when, as in cron.
        execution_timezone: the time zone of `cron_schedule`; UTC by default.
        run_config: config of the runs; it mustn't change the signature.
    """

    @dg.schedule(
        name=f"{python_name(pipeline.name)}_schedule",
        job_name=job_name(pipeline),
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Materializes pipeline `{pipeline.name}` for its present signature.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            pipeline.validate()
        except RuntimeParameterError as error:
            return dg.SkipReason(str(error))
        cache = freeze_partition(pipeline)
        register_partition(context.instance, pipeline, cache.signature)
        return dg.RunRequest(partition_key=cache.signature, run_config=run_config)

    return schedule
