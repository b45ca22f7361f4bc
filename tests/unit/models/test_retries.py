"""Attempts of one call: which failures are tried again, how long between them, and what comes of it in the end."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from distilabel_dagster.errors import ModelCallError, ModelUnavailableError
from distilabel_dagster.models.limits import CallsStopped, EndpointLimiter
from distilabel_dagster.models.provider_errors import FAILURE_KINDS
from distilabel_dagster.models.retries import Answered, call_with_retries
from tests.unit.models.virtual_time import run_virtually

RETRIED = [name for name, kind in FAILURE_KINDS.items() if kind.is_retried]
ENDING = [name for name, kind in FAILURE_KINDS.items() if kind.ends_run]
OF_THE_CALL = [name for name in FAILURE_KINDS if name not in RETRIED + ENDING]


def failure(kind: str, retry_after_s: float | None = None) -> ModelCallError:
    return ModelCallError(
        "No.", model="m", endpoint="http://e", kind=kind, status_code=None, retry_after_s=retry_after_s
    )


class Caller:
    """Fails as it's told to, one failure after another, then answers; notes when each attempt began."""

    def __init__(self, failures: Sequence[BaseException] | Callable[[int], BaseException | None]) -> None:
        self.failures = failures
        self.at: list[float] = []

    async def __call__(self) -> str:
        number = len(self.at)
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.001)
        if callable(self.failures):
            error = self.failures(number)
        else:
            error = self.failures[number] if number < len(self.failures) else None
        if error is not None:
            raise error
        return "yes"

    @property
    def pauses(self) -> list[float]:
        return [after - before - 0.001 for before, after in zip(self.at, self.at[1:], strict=False)]


def run(
    caller: Caller, *, max_retries: int = 6, limiter: EndpointLimiter | None = None, **options: Any
) -> Answered[str]:
    async def main() -> Answered[str]:
        used = limiter or EndpointLimiter(4)
        try:
            return await call_with_retries(caller, used, max_retries=max_retries, **options)
        finally:
            assert used.in_flight == 0

    return run_virtually(main())


@pytest.mark.parametrize("kind", RETRIED)
def test_what_may_pass_is_tried_again_until_it_does(kind: str) -> None:
    told: list[ModelCallError] = []
    errors = [failure(kind) for _ in range(3)]
    answered = run(Caller(errors), on_failure=told.append)
    assert (answered.value, answered.attempts) == ("yes", 4)
    assert answered.latency_s == pytest.approx(0.001)
    assert told == errors


@pytest.mark.parametrize("kind", RETRIED)
def test_attempts_are_used_up(kind: str) -> None:
    caller = Caller(lambda _: failure(kind))
    limiter = EndpointLimiter(4)
    with pytest.raises(ModelCallError) as raised:
        run(caller, max_retries=3, limiter=limiter)
    assert len(caller.at) == 4
    is_down = isinstance(raised.value, ModelUnavailableError)
    assert is_down == (kind == "connection"), "one call alone may be at fault itself"


@pytest.mark.parametrize("kind", OF_THE_CALL)
def test_what_is_the_calls_own_fault_fails_it_at_once(kind: str) -> None:
    caller = Caller(lambda _: failure(kind))
    with pytest.raises(ModelCallError) as raised:
        run(caller)
    assert len(caller.at) == 1
    assert type(raised.value) is ModelCallError


@pytest.mark.parametrize("kind", ENDING)
def test_what_each_call_would_meet_ends_the_run_at_once(kind: str) -> None:
    caller = Caller(lambda _: failure(kind))
    with pytest.raises(ModelUnavailableError) as raised:
        run(caller)
    assert len(caller.at) == 1
    assert (raised.value.kind, raised.value.endpoint, raised.value.model) == (kind, "http://e", "m")


def test_every_kind_belongs_to_one_of_the_three() -> None:
    assert not set(RETRIED) & set(ENDING)
    assert set(RETRIED) == {"timeout", "connection", "rate_limit", "server", "malformed"}
    assert set(ENDING) == {"authentication", "permission", "not_found", "quota"}


def test_other_exceptions_are_the_calls_and_not_tried_again() -> None:
    caller = Caller([ValueError("mine")])
    with pytest.raises(ValueError, match="mine"):
        run(caller)
    assert len(caller.at) == 1


@pytest.mark.parametrize("lot", [0.0, 0.5, 1.0])
def test_pauses_double_up_to_a_limit_less_a_random_half(lot: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low + (high - low) * lot)
    caller = Caller(lambda _: failure("server"))
    with pytest.raises(ModelCallError):
        run(caller, max_retries=9)
    longest = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert caller.pauses == pytest.approx([each * (0.5 + lot / 2) for each in longest])


def test_pauses_differ_so_that_calls_do_not_come_back_together() -> None:
    callers = [Caller([failure("server")] * 4) for _ in range(20)]
    for caller in callers:
        run(caller)
    for index, longest in enumerate((0.5, 1, 2, 4)):
        pauses = [caller.pauses[index] for caller in callers]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest + 1e-6
        assert max(pauses) - min(pauses) > longest / 8


def test_thousands_of_attempts_are_no_trouble() -> None:
    caller = Caller([failure("server")] * 1200)
    assert run(caller, max_retries=2000).attempts == 1201


def test_retry_after_holds_all_calls_to_the_endpoint() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(1)
        first, second = Caller([failure("rate_limit", 12.5)]), Caller([])
        await asyncio.gather(
            *(call_with_retries(each, limiter, max_retries=2) for each in (first, second)),
        )
        assert second.at[0] >= first.at[1] >= 12.5, "the call that was begun first goes first again"
        assert second.at[0] < 12.6
        assert limiter.capacity == 1

    run_virtually(main())


def test_an_endpoint_that_asks_to_wait_for_hours_ends_the_run() -> None:
    caller = Caller([failure("rate_limit", 7_200.0)])
    with pytest.raises(ModelUnavailableError):
        run(caller)
    assert len(caller.at) == 1


def test_a_long_wait_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caller = Caller([failure("rate_limit", 600.0)])
    run(caller)
    assert "It asks to wait for 600 s" in caplog.text


def test_retry_after_of_nothing_is_no_leave_to_hammer() -> None:
    caller = Caller([failure("rate_limit", 0.0)] * 4)
    run(caller)
    assert all(pause >= 0.25 for pause in caller.pauses)


def test_too_many_calls_while_others_are_answered_is_a_queue() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(8)
        caller = Caller(
            lambda number: limiter.note("answered") or failure("rate_limit") if number < 25 else None
        )
        answered = await call_with_retries(caller, limiter, max_retries=3)
        assert answered.attempts == 26

    async def alone() -> None:
        caller = Caller([failure("rate_limit")] * 30)
        with pytest.raises(ModelCallError):
            await call_with_retries(caller, EndpointLimiter(8), max_retries=3)
        assert len(caller.at) == 4

    run_virtually(main())
    run_virtually(alone())


def test_other_failures_while_others_are_answered_are_no_queue() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(8)
        caller = Caller(lambda _: limiter.note("answered") or failure("server"))
        with pytest.raises(ModelCallError) as raised:
            await call_with_retries(caller, limiter, max_retries=3)
        assert len(caller.at) == 4
        assert not isinstance(raised.value, ModelUnavailableError)

    run_virtually(main())


def test_an_endpoint_that_answers_nobody_is_down_after_several_calls() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(8)
        calls = [
            call_with_retries(Caller(lambda _: failure("server")), limiter, max_retries=1) for _ in range(8)
        ]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(end, ModelUnavailableError) for end in ends) == 4
        (told,) = {str(end) for end in ends if isinstance(end, ModelUnavailableError)}
        assert told == "No. That was said 2 times."

    run_virtually(main())


def test_a_call_that_is_alone_in_failing_does_not_end_the_run() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(8)
        for _ in range(20):
            with pytest.raises(ModelCallError) as raised:
                await call_with_retries(Caller(lambda _: failure("server")), limiter, max_retries=1)
            assert not isinstance(raised.value, ModelUnavailableError)
            await call_with_retries(Caller([]), limiter, max_retries=1)

    run_virtually(main())


def test_a_stop_ends_the_pauses_and_makes_no_further_attempt() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(8)
        callers = [
            Caller(lambda _: failure("server")),
            Caller(lambda _: failure("rate_limit", 500.0)),
        ]
        calls = [asyncio.ensure_future(call_with_retries(each, limiter, max_retries=50)) for each in callers]
        await asyncio.sleep(3)
        made = [len(caller.at) for caller in callers]
        limiter.stop()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end) for end in ends] == [CallsStopped] * 2
        assert asyncio.get_running_loop().time() == 3
        assert [len(caller.at) for caller in callers] == made

    run_virtually(main())


def test_a_place_is_free_during_a_pause_where_others_are_answered() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(1)
        caller = Caller(lambda number: limiter.note("answered") or failure("server") if number < 3 else None)
        failing = asyncio.ensure_future(call_with_retries(caller, limiter, max_retries=5))
        await asyncio.sleep(0.1)
        assert limiter.in_flight == 0
        assert (await call_with_retries(Caller([]), limiter, max_retries=0)).attempts == 1
        assert not failing.done()
        assert (await failing).attempts == 4

    run_virtually(main())


def test_calls_that_wait_do_not_try_out_an_endpoint_that_answers_nobody() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(2)
        callers = [Caller(lambda _: failure("server")) for _ in range(20)]
        calls = [asyncio.ensure_future(call_with_retries(each, limiter, max_retries=2)) for each in callers]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(each.exception(), ModelCallError) for each in done)
        assert sum(bool(each.at) for each in callers) <= 4, "just those that got a place"
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    run_virtually(main())


def test_no_retries_is_one_attempt() -> None:
    caller = Caller(lambda _: failure("timeout"))
    with pytest.raises(ModelCallError):
        run(caller, max_retries=0)
    assert len(caller.at) == 1


def test_bulk_overload_lowers_the_cap_but_a_told_wait_does_not() -> None:
    async def main(retry_after_s: float | None) -> int:
        limiter = EndpointLimiter(16)
        calls = [
            call_with_retries(Caller([failure("rate_limit", retry_after_s)]), limiter, max_retries=6)
            for _ in range(40)
        ]
        await asyncio.gather(*calls)
        return limiter.capacity

    assert run_virtually(main(None)) < 16
    assert run_virtually(main(1.0)) == 16
