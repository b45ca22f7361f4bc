"""`max_cost_usd`: a run stops at the limit, nothing is lost, and a higher limit goes on."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster import build_definitions
from distilabel_dagster.orchestration.metadata import COST_USD, LLM_CALLS
from tests.llm_server import LLMServer
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import build_asking

LIMIT = 0.05
ROWS = 20


def run(runner: Runner, cache: Path, limit: float, **options: Any) -> dg.ExecuteInProcessResult:
    pipeline = build_asking(cache, ROWS)
    defs = build_definitions(
        pipeline, max_cost_usd=limit, retry_policy=dg.RetryPolicy(max_retries=3), **options
    )
    return runner.run(pipeline, defs=defs, raise_on_error=False)


@pytest.mark.parametrize("groups", [None, "sequential_step_execution"])
def test_run_ends_at_the_limit_and_a_higher_one_goes_on_without_paying_twice(
    runner: Runner, cache: Path, llm_server: LLMServer, groups: Any
) -> None:
    result = run(runner, cache, LIMIT, load_groups=groups)
    assert not result.success
    assert runner.status() == dg.DagsterRunStatus.FAILURE
    assert runner.count(dg.DagsterEventType.STEP_UP_FOR_RETRY) == 0, "another attempt would stop at once"
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    told = failure.step_failure_data.user_failure_data
    assert "`max_cost_usd` is $0.05" in str(told.description)
    assert LIMIT / 2 < told.metadata[COST_USD].value < 2 * LIMIT
    paid = llm_server.count()
    assert 0 < paid < 2 * ROWS

    run(runner, cache, LIMIT / 2, load_groups=groups)
    assert runner.status() == dg.DagsterRunStatus.FAILURE
    assert llm_server.count() == paid, "what was answered has cost that already"

    assert run(runner, cache, 1000 * LIMIT, load_groups=groups).success
    assert llm_server.count() == 2 * ROWS
    found = [runner.metadata(f"asking/{step}") for step in ("ask", "answer")]
    assert [each[LLM_CALLS] for each in found] == [ROWS, ROWS]


def test_limit_above_the_cost_changes_nothing(runner: Runner, cache: Path, llm_server: LLMServer) -> None:
    assert run(runner, cache, 1000.0).success
    assert llm_server.count() == 2 * ROWS


def test_other_failures_are_tried_again(runner: Runner, cache: Path, llm_server: LLMServer) -> None:
    """So that the test above says something of the limit."""
    llm_server.configure(broken_after=0, broken_kind="unauthorized")
    run(runner, cache, LIMIT)
    assert runner.count(dg.DagsterEventType.STEP_UP_FOR_RETRY) == 3
