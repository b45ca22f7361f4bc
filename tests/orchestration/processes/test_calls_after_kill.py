"""Counters of calls survive the death of the process."""

import os
import signal
from collections.abc import Callable

import dagster as dg
import pytest

from distilabel_dagster.orchestration.metadata import (
    COST_USD,
    INPUT_TOKENS,
    LLM_CALLS,
    LLM_CALLS_REUSED,
    OUTPUT_TOKENS,
    PLANNED_CALLS,
)
from tests.llm_server import LLMServer
from tests.orchestration.pipelines import PRICE_USD_PER_MILLION
from tests.orchestration.project import Project

ROWS = 60


@pytest.fixture
def project(make_project: Callable[..., Project], llm_server: LLMServer) -> Project:
    return make_project("asking")


def test_totals_of_a_killed_run_and_the_one_that_goes_on(project: Project, llm_server: LLMServer) -> None:
    llm_server.configure(latency_s=0.1)
    process = project.start()
    project.wait_until(process, lambda: llm_server.state()["ended"] >= 70)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    llm_server.wait_until_idle()
    before = llm_server.count()
    assert before < 2 * ROWS

    llm_server.configure(latency_s=0.0)
    project.run()
    run = project.latest_run()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    made = project.materialized(run)
    again = llm_server.count() - before
    assert again < ROWS + 10
    for step in ("ask", "answer"):
        found = made[step]
        assert found[LLM_CALLS] == ROWS, "those of the run that was killed, too"
        used = found[INPUT_TOKENS] + found[OUTPUT_TOKENS]
        assert found[COST_USD] == pytest.approx(used * PRICE_USD_PER_MILLION / 1_000_000, abs=1e-5)
    asked = [call for call in llm_server.calls() if call.text.startswith("Ask about")]
    assert made["ask"][INPUT_TOKENS] + made["ask"][OUTPUT_TOKENS] > len({call.body for call in asked})
    assert made["ask"][LLM_CALLS_REUSED] + made["answer"][LLM_CALLS_REUSED] <= before


def test_plan_from_the_command_line(project: Project, llm_server: LLMServer) -> None:
    config = project.path / "plan.yaml"
    config.write_text("ops: {asking: {config: {plan_only: true}}}")
    out = project.run(
        *("job", "execute", "-m", "definitions", "-j", project.job_name, "-c", str(config)),
    )
    assert "| ask | tiny | 60 | 0 |" in out
    run = project.latest_run()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert project.materialized(run) == {}
    assert llm_server.count() == 0
    records = project.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION)
    seen = [entry.asset_observation for entry in records]
    assert [(each.asset_key.path[-1], each.metadata[PLANNED_CALLS].value) for each in seen if each] == [
        ("ask", 60),
        ("answer", 60),
    ]
