"""The multiprocess executor: each op in a process of its own, one op for all steps or one for each."""

import signal
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from tests.orchestration.processes.test_stop_and_resume import check_resume
from tests.orchestration.project import Project

MakeProject = Callable[..., Project]
STREAMING = "executor_def=dg.multiprocess_executor"
TWO_OPS = f'load_groups=[["load", "scale"], ["leaf"]], {STREAMING}'
ROUTED_TOGETHER = f'load_groups=[["load-it", "branch-a", "branch-b", "branch-c", "join"]], {STREAMING}'


def test_rows_are_those_of_a_run_in_one_process(make_project: MakeProject, tmp_path: Path) -> None:
    """Routing and convergence in one op, a leaf and a global step behind it in another."""
    project = make_project("all-kinds", ROUTED_TOGETHER)
    project.run()
    run = project.latest_run()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert set(project.materialized(run)) == {*project.pipeline.dag.steps, "distiset"}
    assert project.committed_rows() == project.undisturbed_rows(tmp_path / "undisturbed")
    ops = {entry.step_key for entry in project.instance.all_logs(run.run_id) if entry.step_key}
    assert ops == {"all_kinds__stage_0", "all_kinds__stage_1", "all_kinds__distiset"}


def test_ctrl_c_reaches_the_process_of_the_op_twice_and_counts_once(
    make_project: MakeProject, tmp_path: Path
) -> None:
    """Once from the terminal, once from its parent."""
    project = make_project("long_line", STREAMING)
    project.run_and_stop(signal.SIGINT, "leaf", batch_s=0.15)
    messages = project.messages(project.latest_run())
    assert "Stop requested (SIG" in "\n".join(messages)
    leaf = sum(record.size for record in project.stores()["leaf"].records)
    assert f"Step `leaf`: stop received, {leaf} rows are committed" in messages
    assert leaf == sum(project.given("leaf").values()), "what was begun is committed"
    check_resume(project, tmp_path)


def test_killed_run_of_several_ops_goes_on(make_project: MakeProject, tmp_path: Path) -> None:
    """The whole group dies; of the parent alone the op's process would be left, and goes on."""
    project = make_project("long_line", TWO_OPS)
    project.run_and_stop(signal.SIGKILL, "leaf", batch_s=0.1)
    before = project.committed_rows()
    assert len(before["scale"]) == 90
    project.run()
    run = project.latest_run()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert project.messages(run)[0].startswith("Load pipeline from cache")
    for step, rows in before.items():
        assert not [row["id"] for row in rows if project.given(step)[row["id"]] > 1]
    assert project.committed_rows() == project.undisturbed_rows(tmp_path / "undisturbed")
