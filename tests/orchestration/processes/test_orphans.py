"""The main process of a job dies, and those that it has started don't outlive it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from tests.orchestration.processes.test_stop_and_resume import check_resume
from tests.orchestration.project import PATIENCE_S, ROOT, Project
from tests.process_sessions import Process, killed_afterwards, list_session, wait_for_empty_session

MakeProject = Callable[..., Project]
STREAMING = "executor_def=dg.multiprocess_executor"
TWO_OPS = f'load_groups=[["load", "scale"], ["leaf"]], {STREAMING}'

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are listed by /proc")


def op_processes(main: int) -> list[Process]:
    return [each for each in list_session(main) if each.parent == main and not each.is_tracker]


@pytest.mark.parametrize(
    "options", [STREAMING, pytest.param(TWO_OPS, marks=pytest.mark.soak)], ids=["one op", "two ops"]
)
def test_an_op_stops_when_the_process_of_its_job_is_killed(
    make_project: MakeProject, tmp_path: Path, options: str, record_property: Callable[[str, object], None]
) -> None:
    project = make_project("long_line", options)
    main = project.start(0.3)
    with killed_afterwards(main.pid):
        project.wait_until(main, lambda: project.count_parts("leaf"))
        assert op_processes(main.pid)
        main.kill()
        main.wait()
        record_property("gone_after_s", wait_for_empty_session(main.pid, PATIENCE_S))
        main.communicate()
    run = project.latest_run()
    messages = "\n".join(project.messages(run))
    assert f"Stop requested (process {main.pid}, which runs the job, is gone)" in messages
    for name, store in project.stores().items():
        rows = sum(record.size for record in store.records)
        assert rows == sum(project.given(name).values()) or name == "load", "what was begun is committed"
    assert run.status == dg.DagsterRunStatus.STARTED, "nobody is left to say that it ended"
    if options == STREAMING:
        check_resume(project, tmp_path)
        return
    project.run()
    assert max(project.given("leaf").values()) == 1, "what was begun and committed is computed again"
    assert project.committed_rows() == project.undisturbed_rows(tmp_path / "undisturbed")


@pytest.mark.soak
@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.0, 3.0, 4.0, 6.0])
def test_an_op_that_was_just_being_started_does_no_work(
    make_project: MakeProject, tmp_path: Path, after_s: float
) -> None:
    project = make_project("long_line", STREAMING)
    main = project.start(1.0)
    with killed_afterwards(main.pid):
        project.wait_until(main, lambda: op_processes(main.pid))
        time.sleep(after_s)
        main.kill()
        main.wait()
        wait_for_empty_session(main.pid, PATIENCE_S)
        main.communicate()
    assert sum(project.given("scale").values()) <= 30
    project.run()
    assert project.committed_rows() == project.undisturbed_rows(tmp_path / "undisturbed")


@pytest.mark.soak
@pytest.mark.parametrize("killed", ["main", "op"])
def test_replicas_do_not_outlive_the_process_of_their_op(
    make_project: MakeProject, tmp_path: Path, killed: str
) -> None:
    project = make_project("replicated", STREAMING)
    main = project.start(0.5)
    with killed_afterwards(main.pid):
        project.wait_until(main, lambda: project.count_parts("scale"))
        (op,) = op_processes(main.pid)
        replicas = [each for each in list_session(main.pid) if each.parent == op.pid and not each.is_tracker]
        assert len(replicas) == 2
        os.kill(main.pid if killed == "main" else op.pid, signal.SIGKILL)
        main.wait(PATIENCE_S)
        wait_for_empty_session(main.pid, PATIENCE_S)
        main.communicate()
    if killed == "op":
        assert project.latest_run().status == dg.DagsterRunStatus.FAILURE
    project.run()
    assert project.committed_rows() == project.undisturbed_rows(tmp_path / "undisturbed")


_SERVER = """\
import multiprocessing
import sys
import time


def run():
    import dagster as dg
    from definitions import defs

    with dg.DagsterInstance.from_config(".") as instance:
        defs.resolve_job_def("long_line_job").execute_in_process(instance=instance)


if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=run).start()
    time.sleep(600)
"""


def test_a_run_that_a_server_has_started_goes_on_without_it(
    make_project: MakeProject, tmp_path: Path
) -> None:
    """As the run of a code server does; its process has a parent as that of an op has."""
    project = make_project("long_line")
    (project.path / "server.py").write_text(_SERVER)
    server = subprocess.Popen(
        [sys.executable, "server.py"],
        cwd=project.path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SIDE_DIR": str(project.path / "side"),
            "BATCH_S": "0.05",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with killed_afterwards(server.pid):
        deadline = time.monotonic() + PATIENCE_S
        while not project.count_parts("scale"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not project.stores()["leaf"].is_complete
        server.kill()
        server.wait()
        wait_for_empty_session(server.pid, PATIENCE_S)
    assert project.latest_run().status == dg.DagsterRunStatus.SUCCESS
    assert project.committed_rows() == project.undisturbed_rows(tmp_path / "undisturbed")
