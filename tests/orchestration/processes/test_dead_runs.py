"""A run whose process was killed counts as started, as far as Dagster knows: it's in nobody's way."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster.orchestration import build_resume_sensor, build_signature_sensor
from distilabel_dagster.orchestration.metadata import PARTITION_TAG, PROCESS_TAG
from tests.orchestration.processes.test_stop_and_resume import check_resume
from tests.orchestration.project import PATIENCE_S, Project

MakeProject = Callable[..., Project]
MULTIPROCESS = "executor_def=dg.multiprocess_executor"


def evaluate(project: Project, sensor: dg.SensorDefinition) -> Any:
    with project.instance as instance:
        return sensor(dg.build_sensor_context(instance=instance))


def status(project: Project, run_id: str) -> dg.DagsterRunStatus:
    run = project.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.parametrize("options", ["", pytest.param(MULTIPROCESS, marks=pytest.mark.soak)])
def test_a_killed_run_is_marked_and_resumed_at_once(
    make_project: MakeProject, tmp_path: Path, options: str
) -> None:
    """While it works, it's left alone."""
    project = make_project("long_line", options)
    process = project.start(0.3)
    project.wait_until(process, lambda: project.count_parts("leaf"))
    run = project.latest_run()
    evaluate(project, build_signature_sensor(project.pipeline))
    assert status(project, run.run_id) == dg.DagsterRunStatus.STARTED
    told = json.loads(run.tags[PROCESS_TAG])
    assert (told["run"], told["pid"]) == (run.run_id, process.pid)
    assert isinstance(evaluate(project, build_resume_sensor(project.pipeline)), dg.SkipReason)

    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert status(project, run.run_id) == dg.DagsterRunStatus.STARTED, "nobody has seen it yet"
    (request,) = evaluate(project, build_resume_sensor(project.pipeline)).run_requests
    assert request.partition_key == project.pipeline.signature
    assert status(project, run.run_id) == dg.DagsterRunStatus.FAILURE
    events = project.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert f"Process {process.pid}, in which this run was, is gone" in str(events[0].dagster_event)
    check_resume(project, tmp_path)


def test_only_what_is_surely_dead_is_marked(make_project: MakeProject) -> None:
    """Not a retry, which gets the tags of what it retries; nor a run of elsewhere, of another pipeline, or without a note."""
    project = make_project("line")
    signature = project.pipeline.signature
    dead = {"host": "", "pid": 2**22 + 1, "start": "1"}

    def add(run_id: str, note: Any, partition: str = signature) -> None:
        tags = {PARTITION_TAG: partition, **({PROCESS_TAG: json.dumps(note)} if note is not None else {})}
        run = dg.DagsterRun(job_name="line_job", run_id=run_id, status=dg.DagsterRunStatus.STARTED, tags=tags)
        instance.add_run(run)

    from distilabel_dagster.ledger.processes import current_host, current_process

    here = {**dead, "host": current_host()}
    ours = current_process()
    with project.instance as instance:
        instance.add_dynamic_partitions("line_signatures", [signature])
        add("dead", {**here, "run": "dead"})
        add("retry", {**here, "run": "dead"})
        add("elsewhere", {**dead, "host": "elsewhere [x]", "run": "elsewhere"})
        add("alive", {"host": ours.host, "pid": ours.pid, "start": ours.start, "run": "alive"})
        add("other pipeline", {**here, "run": "other pipeline"}, "0" * 40)
        add("no note", None)
        add("no such note", {"run": "no such note"})
        build_signature_sensor(project.pipeline)(dg.build_sensor_context(instance=instance))
        found = {
            run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        }
    assert found == {"dead"}
