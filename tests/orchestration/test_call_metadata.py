"""What materializations say of calls to models."""

from pathlib import Path

import pytest

from distilabel_dagster.orchestration.metadata import (
    CALLS_WITHOUT_PRICE,
    COST_USD,
    FAILED_ATTEMPTS,
    INPUT_TOKENS,
    LLM_CALLS,
    LLM_CALLS_REUSED,
    OUTPUT_TOKENS,
)
from tests.llm_server import LLMServer
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import PRICE_USD_PER_MILLION, build_asking

KEYS = {
    LLM_CALLS,
    LLM_CALLS_REUSED,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    COST_USD,
    CALLS_WITHOUT_PRICE,
    FAILED_ATTEMPTS,
}


def test_steps_with_a_model_have_calls_tokens_and_cost_and_others_have_none(
    runner: Runner, cache: Path, llm_server: LLMServer
) -> None:
    runner.run(build_asking(cache))
    for step in ("ask", "answer"):
        found = runner.metadata(f"asking/{step}")
        assert (found[LLM_CALLS], found[LLM_CALLS_REUSED]) == (10, 0)
        assert found[INPUT_TOKENS] > 10
        assert found[OUTPUT_TOKENS] > 10
        used = found[INPUT_TOKENS] + found[OUTPUT_TOKENS]
        assert found[COST_USD] == pytest.approx(used * PRICE_USD_PER_MILLION / 1_000_000, abs=1e-5)
        assert not {CALLS_WITHOUT_PRICE, FAILED_ATTEMPTS} & found.keys()
    for asset in ("load", "scale", "distiset"):
        assert not KEYS & runner.metadata(f"asking/{asset}").keys()


def test_totals_are_those_of_all_runs(runner: Runner, cache: Path, llm_server: LLMServer) -> None:
    runner.run(build_asking(cache))
    before = {step: runner.metadata(f"asking/{step}") for step in ("ask", "answer")}
    runner.run(build_asking(cache))
    for step, found in before.items():
        again = runner.metadata(f"asking/{step}")
        assert {name: again[name] for name in KEYS & found.keys()} == {
            name: found[name] for name in KEYS & found.keys()
        }
    assert llm_server.count() == 20


def test_what_is_taken_from_the_ledger_is_told_as_reused(
    runner: Runner, cache: Path, llm_server: LLMServer
) -> None:
    """More rows are another pipeline, whose requests were mostly made."""
    runner.run(build_asking(cache))
    runner.run(build_asking(cache, 12))
    ask = runner.metadata("asking/ask")
    assert (ask[LLM_CALLS], ask[LLM_CALLS_REUSED]) == (2, 10)
    runner.run(build_asking(cache, 8))
    ask = runner.metadata("asking/ask")
    assert (ask[LLM_CALLS], ask[LLM_CALLS_REUSED]) == (0, 8)
    assert (ask[INPUT_TOKENS], ask[OUTPUT_TOKENS]) == (0, 0)
    assert llm_server.count() == 24


def test_price_that_isnt_known_and_attempts_that_failed(
    runner: Runner, cache: Path, llm_server: LLMServer
) -> None:
    llm_server.configure(failures={"server_error": 0.3}, seed=1)
    runner.run(build_asking(cache, has_price=False, max_retries=8))
    failed = sum(call.outcome == "server_error" for call in llm_server.calls())
    found = [runner.metadata(f"asking/{step}") for step in ("ask", "answer")]
    assert [each[CALLS_WITHOUT_PRICE] for each in found] == [10, 10]
    assert not any(COST_USD in each for each in found)
    assert sum(each.get(FAILED_ATTEMPTS, {}).get("server", 0) for each in found) == failed > 0
