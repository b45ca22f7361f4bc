"""Usage, failures and rates, on each database that can hold a ledger."""

import contextlib
from collections.abc import Iterator

import pytest

from distilabel_dagster.ledger.rates import RateLimits, Reservation
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.usage import (
    AverageUsage,
    Usage,
    add_up,
    average_usage,
    read_failed_attempts,
    read_usage,
)
from tests.contract.ledger_process import OTHER_STEP, STEP, OtherLedger, fail, keys_of, pay

ELSEWHERE = STEP._replace(partition="pipeline_2")
EDITED = STEP._replace(step_key="generate_9e")
NOW = 1_700_000_000.0


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[ResponseLedger]:
    with ResponseLedger(ledger_url) as opened:
        yield opened


@pytest.fixture
def rates(ledger: ResponseLedger) -> RateLimits:
    return RateLimits(ledger.engine)


# --- usage ----------------------------------------------------------------------------------------


def test_calls_are_counted_for_the_step_that_paid(ledger: ResponseLedger) -> None:
    ledger.store([pay(1), pay(2), pay(3, step=OTHER_STEP)])
    ledger.store([pay(4, cost_usd=None), pay(5, output_tokens=None, cost_usd=None)])
    ledger.begin({STEP: keys_of([3, 3]), OTHER_STEP: keys_of([1, 9])})
    usage = read_usage(ledger.engine)
    assert usage == {
        STEP: Usage(
            calls=4,
            calls_reused=2,
            input_tokens=40,
            output_tokens=9,
            calls_without_tokens=1,
            cost_usd=0.5,
            calls_without_price=2,
        ),
        OTHER_STEP: Usage(calls=1, calls_reused=1, input_tokens=10, output_tokens=3, cost_usd=0.25),
    }
    assert add_up(usage.values()) == Usage(5, 3, 50, 12, 1, 0.75, 2)


def test_counters_go_on_in_another_process(ledger: ResponseLedger, ledger_url: str) -> None:
    ledger.store([pay(1)], [fail(1)])
    ledger.close()
    with ResponseLedger(ledger_url) as again:
        again.store([pay(2)], [fail(2), fail(2, "timeout")])
        assert read_usage(again.engine) == {
            STEP: Usage(
                calls=2,
                input_tokens=20,
                output_tokens=6,
                cost_usd=0.5,
                failures={"rate_limit": 2, "timeout": 1},
            )
        }


def test_usage_is_read_by_pipeline_and_by_step(ledger: ResponseLedger) -> None:
    ledger.store([pay(1), pay(2, step=OTHER_STEP), pay(3, step=ELSEWHERE)], [fail(4, step=EDITED)])
    assert read_usage(ledger.engine, partition="pipeline_1").keys() == {STEP, OTHER_STEP, EDITED}
    assert read_usage(ledger.engine, step_key=STEP.step_key).keys() == {STEP, ELSEWHERE}
    assert read_usage(ledger.engine, partition="pipeline_2", step_key=STEP.step_key).keys() == {ELSEWHERE}
    assert read_usage(ledger.engine, partition="pipeline_3") == {}
    assert read_usage(ledger.engine)[EDITED] == Usage(failures={"rate_limit": 1})


def test_the_average_is_of_what_is_known(ledger: ResponseLedger) -> None:
    where = (STEP.endpoint, STEP.model)
    assert average_usage(ledger.engine, *where) is None
    ledger.begin({STEP: keys_of([1])})
    assert average_usage(ledger.engine, *where, "generate") is None
    ledger.store([pay(1, cost_usd=None), pay(2, cost_usd=None, input_tokens=None)])
    assert average_usage(ledger.engine, *where, "generate") == AverageUsage(2, 10.0, 6.0, None)
    ledger.store([pay(3, step=EDITED, output_tokens=9), pay(4, step=OTHER_STEP, output_tokens=30)])
    assert average_usage(ledger.engine, *where, "generate") == AverageUsage(3, 10.0, 7.5, 0.25)
    assert average_usage(ledger.engine, *where) == AverageUsage(4, 10.0, 15.0, 0.25)
    assert average_usage(ledger.engine, "elsewhere", STEP.model) is None
    assert average_usage(ledger.engine, *where, "judge_2f") is None


def test_failed_attempts_are_read_latest_first(ledger: ResponseLedger) -> None:
    attempts = [fail(number, message=f"no {number}") for number in range(30)]
    ledger.store([], [*attempts, fail(1, step=OTHER_STEP), fail(2, step=ELSEWHERE)])
    found = read_failed_attempts(ledger.engine, STEP.partition, STEP.step_key)
    assert found == attempts[:9:-1]
    assert read_failed_attempts(ledger.engine, STEP.partition, STEP.step_key, limit=1) == attempts[-1:]
    assert read_failed_attempts(ledger.engine, "pipeline_9", STEP.step_key) == []


def test_a_message_is_cut_and_mended(ledger: ResponseLedger) -> None:
    ledger.store([], [fail(1, message="n\0 \ud800" + "é" * 5_000)])
    (found,) = read_failed_attempts(ledger.engine, STEP.partition, STEP.step_key)
    assert found.message == "n\N{REPLACEMENT CHARACTER} ?" + "é" * 1_996


# --- rates ----------------------------------------------------------------------------------------


def test_calls_are_spread_evenly(rates: RateLimits) -> None:
    assert [rates.reserve("a", 1, 120, NOW) for _ in range(3)] == [NOW, NOW + 0.5, NOW + 1]
    assert rates.reserve("a", 20, 120, NOW) == NOW + 1.5
    assert rates.reserve("a", 1, 120, NOW) == NOW + 11.5
    assert rates.reserve("b", 1, 120, NOW) == NOW
    assert rates.reserve("a", 1, 120, NOW + 60) == NOW + 60
    assert rates.reserve("a", 1, 60, NOW + 60) == NOW + 60.5


def test_several_limits_are_taken_together(rates: RateLimits) -> None:
    wanted = [Reservation("requests", 1, 60), Reservation("tokens", 1_000, 6_000)]
    assert [rates.reserve_all(wanted, NOW) for _ in range(3)] == [NOW, NOW + 10, NOW + 20]
    assert rates.reserve("requests", 1, 60, NOW) == NOW + 21
    assert rates.reserve("tokens", 1, 6_000, NOW) == NOW + 30


def test_a_reservation_is_corrected(rates: RateLimits) -> None:
    rates.settle("tokens", 10, 60)
    rates.reserve("tokens", 100, 600, NOW)
    rates.settle("tokens", 50, 600)
    assert rates.reserve("tokens", 100, 600, NOW) == NOW + 15
    rates.settle("tokens", -100, 600)
    assert rates.reserve("tokens", 1, 600, NOW) == NOW + 15


def test_beyond_the_horizon_nothing_is_reserved(rates: RateLimits) -> None:
    assert [rates.reserve("a", 1, 60, NOW, horizon_s=2) for _ in range(5)] == [
        NOW + wait_s for wait_s in (0, 1, 2, 3, 3)
    ]
    assert rates.reserve("a", 1, 60, NOW + 3, horizon_s=2) == NOW + 3


def test_processes_share_a_limit(ledger_url: str, rates: RateLimits) -> None:
    with contextlib.ExitStack() as stack:
        others = [OtherLedger(ledger_url) for _ in range(2)]
        for other in others:
            stack.callback(other.end)
            other.tell("reserve", NOW, 100)
        times = sorted(at for other in others for at in other.answer())
    assert times == pytest.approx([NOW + 0.1 * place for place in range(200)])
