"""The places at an endpoint: never too many, in order, none lost, none given at a stop, fewer under overload."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from distilabel_dagster.models.limits import CallsStopped, EndpointLimiter
from tests.unit.models.virtual_time import run_virtually

Work = Callable[[EndpointLimiter], Awaitable[None]]


def run(work: Work, cap: int = 2, early_s: float = 0.0) -> None:
    async def main() -> None:
        await work(EndpointLimiter(cap))

    run_virtually(main(), early_s)


async def hold(limiter: EndpointLimiter, seconds: float = 1.0, began: list[float] | None = None) -> None:
    async with limiter.slot():
        if began is not None:
            began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(seconds)


def test_the_cap_is_kept_and_calls_begin_in_their_order() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        order, most = [], 0

        async def call(number: int) -> None:
            nonlocal most
            async with limiter.slot():
                order.append(number)
                most = max(most, limiter.in_flight)
                await asyncio.sleep(10 - number)

        await asyncio.gather(*(call(number) for number in range(10)))
        assert order == list(range(10))
        assert most == 2
        assert limiter.in_flight == limiter.waiting == 0

    run(work)


def test_one_that_comes_late_does_not_overtake_those_that_wait() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        order = []

        async def call(name: str) -> None:
            async with limiter.slot():
                order.append(name)

        limiter.cool_down(1)
        first = asyncio.ensure_future(call("first"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(1, lambda: asyncio.ensure_future(call("late")))
        await asyncio.sleep(2)
        await first
        assert order == ["first", "late"]

    run(work, cap=1)


@pytest.mark.parametrize("turns", range(4))
def test_a_waiter_cancelled_around_its_turn_leaks_no_place(turns: int) -> None:
    async def work(limiter: EndpointLimiter) -> None:
        holder = asyncio.ensure_future(hold(limiter))
        await asyncio.sleep(0)
        waiter = asyncio.ensure_future(hold(limiter))
        await asyncio.sleep(0)
        holder.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(holder, waiter, return_exceptions=True)
        assert limiter.in_flight == limiter.waiting == 0
        await hold(limiter)

    run(work, cap=1)


def test_a_waiter_whose_turn_came_with_its_cancellation_gives_it_to_the_next() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        await limiter._acquire(limiter._queue)
        waiter, following = (asyncio.ensure_future(hold(limiter)) for _ in range(2))
        await asyncio.sleep(0)
        limiter.in_flight -= 1
        limiter._wake()  # the turn is the waiter's, which hasn't seen it yet
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await following
        assert limiter.in_flight == 0

    run(work, cap=1)


def test_a_cool_down_holds_all_that_have_not_begun_and_the_longest_counts() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        began: list[float] = []
        running = asyncio.ensure_future(hold(limiter, 1, began))
        await asyncio.sleep(0)
        limiter.cool_down(30)
        limiter.cool_down(5)
        later = [asyncio.ensure_future(hold(limiter, 1, began)) for _ in range(3)]
        await running
        assert asyncio.get_running_loop().time() == 1.0, "what was in flight went on"
        await asyncio.gather(*later)
        assert [round(at, 6) for at in began] == [0, 30, 30, 31]

    run(work)


def test_a_timer_that_fires_a_little_early_ends_the_cool_down_all_the_same() -> None:
    """Event loops run timers that are due within their clock's resolution."""

    async def work(limiter: EndpointLimiter) -> None:
        for _ in range(5):
            limiter.cool_down(7)
            await hold(limiter)

    run(work, early_s=0.01)


def test_a_stop_turns_waiters_away_and_lets_go_on_what_is_in_flight() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        running = [asyncio.ensure_future(hold(limiter)) for _ in range(2)]
        waiting = [asyncio.ensure_future(hold(limiter)) for _ in range(3)]
        paused = asyncio.ensure_future(limiter.pause(1000))
        await asyncio.sleep(0)
        limiter.stop()
        limiter.stop()
        turned_away = await asyncio.gather(*waiting, paused, return_exceptions=True)
        assert [type(each) for each in turned_away] == [CallsStopped] * 4
        await asyncio.gather(*running)
        with pytest.raises(CallsStopped):
            await hold(limiter)
        with pytest.raises(CallsStopped):
            await limiter.pause(0.1)
        assert asyncio.get_running_loop().time() == 1.0
        assert limiter.in_flight == 0

    run(work)


def test_a_call_whose_turn_came_just_before_the_stop_is_not_begun() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        began: list[float] = []
        await limiter._acquire(limiter._queue)
        waiter = asyncio.ensure_future(hold(limiter, 1, began))
        await asyncio.sleep(0)
        limiter.in_flight -= 1
        limiter._wake()
        limiter.stop()
        with pytest.raises(CallsStopped):
            await waiter
        assert not began
        assert limiter.in_flight == 0

    run(work, cap=1)


class Paced:
    """Lets a call begin every ten seconds."""

    def __init__(self) -> None:
        self.free_at = 0.0

    async def wait(self, tokens: int) -> None:
        now = asyncio.get_running_loop().time()
        begins, self.free_at = max(now, self.free_at), max(now, self.free_at) + 10
        await asyncio.sleep(begins - now)

    async def settle(self, estimated: int, used: int) -> None:
        raise AssertionError("not asked for")


def test_a_pace_spreads_calls_and_a_stop_ends_the_wait_for_it() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(8, Paced())
        began: list[float] = []
        calls = [asyncio.ensure_future(hold(limiter, 1, began)) for _ in range(5)]
        await asyncio.sleep(25)
        assert began == [0, 10, 20]
        limiter.stop()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end) for end in ends[3:]] == [CallsStopped] * 2
        assert asyncio.get_running_loop().time() == 25
        assert limiter.in_flight == 0

    run_virtually(main())


def test_a_call_that_waited_for_its_pace_waits_for_a_cool_down_as_well() -> None:
    async def main() -> None:
        limiter = EndpointLimiter(8, Paced())
        began: list[float] = []
        calls = [asyncio.ensure_future(hold(limiter, 1, began)) for _ in range(3)]
        await asyncio.sleep(5)
        limiter.cool_down(100)
        await asyncio.gather(*calls)
        assert began[0] == 0
        assert min(began[1:]) >= 105
        assert limiter.in_flight == 0

    run_virtually(main())


def test_an_error_of_the_pace_is_the_calls_and_gives_the_place_back() -> None:
    class Broken(Paced):
        async def wait(self, tokens: int) -> None:
            raise OSError("the disk is full")

    async def main() -> None:
        limiter = EndpointLimiter(1, Broken())
        for _ in range(2):
            with pytest.raises(OSError, match="full"):
                await hold(limiter)
        assert limiter.in_flight == 0

    run_virtually(main())


def note(limiter: EndpointLimiter, *outcomes: str, times: int = 1) -> None:
    for _ in range(times):
        for outcome in outcomes:
            limiter.note(outcome)  # type: ignore[arg-type]  # given as text above


def test_overload_in_bulk_halves_the_cap_down_to_one() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        found = []
        for _ in range(6):
            note(limiter, "overloaded", times=32)
            found.append(limiter.capacity)
        assert found == [8, 4, 2, 1, 1, 1]
        assert limiter.max_concurrency == 16

    run(work, cap=16)


def test_some_noise_and_other_failures_leave_the_cap() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        note(limiter, *["answered"] * 9, "overloaded", times=100)
        assert limiter.capacity == 16
        note(limiter, "failed", times=500)
        assert limiter.capacity == 16

    run(work, cap=16)


def test_the_cap_grows_back_and_no_further_and_lets_waiters_in() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        note(limiter, "overloaded", times=32 * 4)
        assert limiter.capacity == 1
        calls = [asyncio.ensure_future(hold(limiter, 10)) for _ in range(4)]
        await asyncio.sleep(0)
        assert limiter.in_flight == 1
        note(limiter, "answered", times=1 + 2)
        await asyncio.sleep(0)
        assert limiter.capacity == limiter.in_flight == 3
        note(limiter, "answered", times=1000)
        assert limiter.capacity == 16
        await asyncio.gather(*calls)

    run(work, cap=16)


def test_after_halving_no_call_begins_before_enough_have_ended() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        calls = [asyncio.ensure_future(hold(limiter, 1 + number)) for number in range(8)]
        await asyncio.sleep(0)
        assert limiter.in_flight == 4
        note(limiter, "overloaded", times=32)
        await asyncio.sleep(1.5)
        assert limiter.capacity == 2
        assert limiter.in_flight == 3
        await asyncio.sleep(1)
        assert limiter.in_flight == 2
        await asyncio.sleep(1)
        assert limiter.in_flight == 2
        await asyncio.gather(*calls)

    run(work, cap=4)


def test_an_endpoint_is_down_when_nothing_was_answered_and_it_is_not_one_calls_own_fault() -> None:
    async def work(limiter: EndpointLimiter) -> None:
        assert limiter.note_given_up(0.0, is_unreachable=True)
        found = [limiter.note_given_up(0.0, is_unreachable=False) for _ in range(4)]
        assert found == [False, False, False, True]
        limiter.note("answered")
        assert not limiter.note_given_up(0.0, is_unreachable=True), "it answered since"
        await asyncio.sleep(1)
        later = asyncio.get_running_loop().time()
        assert [limiter.note_given_up(later, is_unreachable=False) for _ in range(5)] == [False] * 4 + [True]

    run(work)
