"""Sensors and the schedule: what they say when they're evaluated, and the runs that they ask for."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster import (
    Pipeline,
    build_definitions,
    build_distilabel_schedule,
    build_resume_sensor,
    build_signature_sensor,
)
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.orchestration.metadata import BATCHES_REUSED, PARTITION_TAG
from distilabel_dagster.steps import LoadDataFromFileSystem
from tests.llm_server import LLMServer
from tests.orchestration import pipelines
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import build_asking, build_line, build_needy


def evaluate(sensor: dg.SensorDefinition, runner: Runner, cursor: str | None = None) -> Any:
    return sensor(dg.build_sensor_context(instance=runner.instance, cursor=cursor))


def run_requested(runner: Runner, pipeline: Pipeline, request: dg.RunRequest) -> None:
    """Do what the daemon does with a request."""
    assert request.partition_key
    config = {"run_config": request.run_config} if request.run_config else {}
    runner.run(pipeline, partition=request.partition_key, **config)


def stop_half_way(runner: Runner, pipeline: Pipeline) -> None:
    """A run that ends with an error when `leaf` has begun."""
    pipelines.fail_on.add(7)
    runner.error(pipeline, defs=build_definitions(pipeline, on_error="raise"))
    pipelines.fail_on.clear()


def test_signature_sensor_registers_the_present_signature_once(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    sensor = build_signature_sensor(pipeline)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    result = evaluate(sensor, runner)
    assert isinstance(result, dg.SensorResult)
    (request,) = result.dynamic_partitions_requests or ()
    assert (request.partitions_def_name, list(request.partition_keys)) == (
        "line_signatures",
        [pipeline.signature],
    )
    assert not result.run_requests
    runner.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    assert isinstance(evaluate(sensor, runner), dg.SkipReason)


def test_data_that_changed_on_disk_is_a_new_partition(runner: Runner, cache: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"id": 1}\n')
    with Pipeline("files", cache_dir=str(cache)) as pipeline:
        LoadDataFromFileSystem(name="load", data_files=str(data), filetype="json") >> pipelines.Scale(
            name="scale"
        )
    defs = build_definitions(pipeline)
    sensor = build_signature_sensor(pipeline)
    runner.run(pipeline, defs=defs)
    assert isinstance(evaluate(sensor, runner), dg.SkipReason)

    data.write_text('{"id": 1}\n{"id": 2}\n')

    result = evaluate(sensor, runner)
    assert isinstance(result, dg.SensorResult)
    (key,) = (result.dynamic_partitions_requests or ())[0].partition_keys
    assert key not in runner.partitions("files_signatures")
    runner.run(pipeline, defs=defs, partition=key)
    assert {each.partition for each in runner.materialized().values()} == {key}


def test_pipeline_with_a_missing_parameter_has_no_partition_yet(runner: Runner, cache: Path) -> None:
    pipeline = build_needy(cache)
    assert "`need.needed` must be set" in str(evaluate(build_signature_sensor(pipeline), runner).skip_message)
    schedule = build_distilabel_schedule(pipeline, cron_schedule="0 3 * * *")
    found = schedule(dg.build_schedule_context(instance=runner.instance))
    assert "`need.needed` must be set" in str(found.skip_message)


def test_resume_sensor_asks_for_what_was_begun(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    sensor = build_resume_sensor(pipeline)
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    assert isinstance(evaluate(sensor, runner), dg.SkipReason), "an empty cache"
    stop_half_way(runner, pipeline)

    result = evaluate(sensor, runner)

    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    assert (request.partition_key, request.run_key) == (pipeline.signature, f"{pipeline.signature}:1")
    assert list((result.dynamic_partitions_requests or ())[0].partition_keys) == [pipeline.signature]
    assert json.loads(str(result.cursor)) == {pipeline.signature: 1}
    run_requested(runner, pipeline, request)
    assert runner.metadata("line/load")[BATCHES_REUSED] == 4
    assert runner.messages()[0].startswith("Load pipeline from cache")
    assert isinstance(evaluate(sensor, runner, result.cursor), dg.SkipReason), "it's complete"


def test_resume_sensor_gives_up_after_some_attempts(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    stop_half_way(runner, pipeline)
    sensor = build_resume_sensor(pipeline, max_attempts=2)
    keys, cursor = [], None
    for _ in range(2):
        result = evaluate(sensor, runner, cursor)
        keys += [request.run_key for request in result.run_requests]
        cursor = result.cursor
    assert keys == [f"{pipeline.signature}:1", f"{pipeline.signature}:2"]
    assert isinstance(evaluate(sensor, runner, cursor), dg.SkipReason)


def test_resume_sensor_leaves_alone_what_nobody_has_begun(runner: Runner, cache: Path) -> None:
    """A partition that was registered for other parameters, and those of other pipelines."""
    pipeline = build_line(cache)
    config = {"ops": {"line": {"config": {"scale": {"factor": 5}}}}}
    assert "Nothing was run" in runner.error(pipeline, run_config=config)
    stop_half_way(runner, build_line(cache, name="other"))
    assert len(list(cache.glob("*/pipeline.yaml"))) == 2
    assert isinstance(evaluate(build_resume_sensor(pipeline), runner), dg.SkipReason)


def test_resume_sensor_pays_for_nothing_that_was_only_planned(
    runner: Runner, cache: Path, llm_server: LLMServer
) -> None:
    pipeline = build_asking(cache)
    runner.run(pipeline, run_config={"ops": {"asking": {"config": {"plan_only": True}}}})
    assert isinstance(evaluate(build_resume_sensor(pipeline), runner), dg.SkipReason)
    list(pipeline.iter_run(RunOptions(max_new_calls=3)))
    pipeline.plan()
    assert isinstance(evaluate(build_resume_sensor(pipeline), runner), dg.SensorResult), "that was a run"


@pytest.mark.parametrize("job", ["line_job", "__ASSET_JOB"])
def test_resume_sensor_waits_for_a_run_that_is_on(job: str, runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    stop_half_way(runner, pipeline)
    defs = build_definitions(pipeline)
    job_def = (
        defs.resolve_job_def("line_job")
        if job == "line_job"
        else defs.resolve_implicit_global_asset_job_def()
    )
    run = runner.instance.create_run_for_job(
        job_def, tags={PARTITION_TAG: pipeline.signature}, status=dg.DagsterRunStatus.STARTED
    )
    runner.instance.report_engine_event("working", run)
    assert isinstance(evaluate(build_resume_sensor(pipeline), runner), dg.SkipReason)
    ghost = evaluate(build_resume_sensor(pipeline, silent_after_s=0), runner)
    assert isinstance(ghost, dg.SensorResult), "a run whose process was killed stays STARTED for ever"


def test_schedule_asks_for_the_present_signature(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    runner = Runner(dg.DagsterInstance.local_temp(str(tmp_path / "home")))
    pipeline = build_line(cache)
    schedule = build_distilabel_schedule(
        pipeline,
        cron_schedule="0 3 * * *",
        execution_timezone="Europe/Berlin",
        run_config={"ops": {"line": {"config": {"scale": {"input_batch_size": 4}}}}},
    )
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "Europe/Berlin")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    request = schedule(dg.build_schedule_context(instance=runner.instance))
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == pipeline.signature
    assert runner.partitions("line_signatures") == [pipeline.signature]
    run_requested(runner, pipeline, request)
    assert {each.partition for each in runner.materialized().values()} == {pipeline.signature}
