"""`dagster job execute`, stopped in the middle; the same command goes on, and nobody can tell from the rows."""

import signal
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from distilabel_dagster.orchestration.metadata import BATCHES_COMPUTED, BATCHES_REUSED
from tests.orchestration.project import Project

MakeProject = Callable[..., Project]


def check_resume(project: Project, tmp_path: Path, *command: str) -> None:
    """Run to the end, by the same command or another, and compare with what was committed and an undisturbed run."""
    before = project.committed_rows()
    assert before["load"]
    assert before["scale"]
    assert len(before["leaf"]) < len(before["load"])

    project.run(*command)

    run = project.latest_run()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert project.messages(run)[0].startswith("Load pipeline from cache")
    for step, rows in before.items():
        again = [row["id"] for row in rows if project.given(step)[row["id"]] > 1]
        assert not again, f"committed rows of `{step}` were computed again"
        assert f"`{step}` ({len(rows)} rows" in project.messages(run)[0]
    assert project.committed_rows() == project.undisturbed_rows(tmp_path / "undisturbed")
    made = project.materialized(run)
    assert set(made) == {*before, "distiset"}
    assert made["scale"][BATCHES_REUSED] >= len(before["scale"]) // 3 > 0
    assert made["scale"][BATCHES_COMPUTED] + made["scale"][BATCHES_REUSED] == 30


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, "scale"), (signal.SIGTERM, "load")])
def test_stopped_job_commits_what_it_has_begun(
    number: signal.Signals, step: str, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project("long_line")
    project.run_and_stop(number, step, parts=1)

    run = project.latest_run()
    assert run.status == dg.DagsterRunStatus.FAILURE
    messages = project.messages(run)
    # By the signal's name, unless it came while Dagster stored a result.
    assert "Stop requested (" in "\n".join(messages)
    for name, store in project.stores().items():
        rows = sum(record.size for record in store.records)
        told = f"Step `{name}`: stop received, {rows} rows are committed"
        assert store.is_complete or told in messages
        assert rows == sum(project.given(name).values()) or name == "load", "what was begun is committed"
    assert messages[-1].startswith("Stopped. Not finished: ")

    check_resume(project, tmp_path)


def test_killed_job_goes_on(make_project: MakeProject, tmp_path: Path) -> None:
    project = make_project("long_line")
    project.run_and_stop(signal.SIGKILL, "leaf")
    assert project.latest_run().status == dg.DagsterRunStatus.STARTED, "nobody could say that it ended"
    check_resume(project, tmp_path, "job", "execute", "-f", "definitions.py", "-j", project.job_name)
