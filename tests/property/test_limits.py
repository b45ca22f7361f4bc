"""However calls come, end, are cancelled and held up: never too many, in order, and no place is lost."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_dagster.models.limits import CallsStopped, EndpointLimiter
from tests.unit.models.virtual_time import run_virtually

ACTIONS = st.one_of(
    st.tuples(st.just("call"), st.integers(0, 30)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("cool_down"), st.integers(0, 20)),
    st.tuples(st.just("sleep"), st.integers(0, 15)),
    st.tuples(st.just("note_overload"), st.just(32)),
    st.tuples(st.just("note_answers"), st.integers(1, 8)),
    st.tuples(st.just("step"), st.integers(1, 3)),
)


class Endpoint:
    """A limiter, calls that go through it, and what must hold at each moment."""

    def __init__(self, cap: int) -> None:
        self.limiter = EndpointLimiter(cap)
        self.calls: list[asyncio.Task[Any]] = []
        self.began: list[int] = []
        self.running = 0
        self.quiet_until = 0.0
        self.is_stopped = False

    async def make_call(self, number: int, seconds: float) -> None:
        async with self.limiter.slot():
            assert not self.is_stopped, "begun after the stop"
            now = asyncio.get_running_loop().time()
            assert now >= self.quiet_until - 1e-5, "begun while the endpoint is left alone"
            self.began.append(number)
            self.running += 1
            try:
                assert self.running <= self.limiter.max_concurrency
                await asyncio.sleep(seconds)
            finally:
                self.running -= 1

    def stop(self) -> None:
        self.is_stopped = True
        self.limiter.stop()

    async def call(self, thirds: int) -> None:
        self.calls.append(asyncio.ensure_future(self.make_call(len(self.calls), thirds / 3)))

    async def cancel(self, index: int) -> None:
        if self.calls:
            self.calls[index % len(self.calls)].cancel()

    async def cool_down(self, halves: int) -> None:
        self.limiter.cool_down(halves / 2)
        self.quiet_until = max(self.quiet_until, asyncio.get_running_loop().time() + halves / 2)

    async def sleep(self, fifths: int) -> None:
        await asyncio.sleep(fifths / 5)

    async def note_overload(self, times: int) -> None:
        for _ in range(times):
            self.limiter.note("overloaded")

    async def note_answers(self, times: int) -> None:
        for _ in range(times):
            self.limiter.note("answered")

    async def step(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)


@settings(max_examples=150)
@given(st.integers(1, 4), st.lists(ACTIONS, max_size=40), st.none() | st.integers(0, 60))
def test_any_schedule(cap: int, actions: list[tuple[str, int]], stop_at: int | None) -> None:
    async def main() -> None:
        endpoint = Endpoint(cap)
        if stop_at is not None:
            asyncio.get_running_loop().call_later(stop_at, endpoint.stop)
        for what, amount in actions:
            await getattr(endpoint, what)(amount)
        ends = await asyncio.gather(*endpoint.calls, return_exceptions=True)
        assert endpoint.began == sorted(endpoint.began), "one overtook another"
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError, CallsStopped}
        assert endpoint.limiter.in_flight == endpoint.limiter.waiting == endpoint.running == 0
        assert 1 <= endpoint.limiter.capacity <= cap
        try:
            await endpoint.make_call(len(endpoint.calls), 0)
        except CallsStopped:
            assert endpoint.is_stopped

    run_virtually(main())
