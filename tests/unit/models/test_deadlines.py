import asyncio
import contextlib
from typing import Any

import pytest

from distilabel_dagster.models.deadlines import LAST_LOOK_S, within
from tests.unit.models.virtual_time import VirtualLoop, run_virtually


async def answer_after(seconds: float, said: list[str] | None = None) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if said is not None:
            said.append("cancelled")
        raise
    return "answer"


def stand_still(seconds: float) -> None:
    """Let time go by in which the event loop does nothing."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now += seconds


async def read_answer(arrived: "asyncio.Future[None]", turns: int) -> str:
    """Read an answer from a socket: bytes, then headers, then the body, each in a turn of the loop."""
    await arrived
    for _ in range(turns):
        await asyncio.sleep(0)
    return "answer"


def test_what_comes_in_time_is_given() -> None:
    assert run_virtually(within(answer_after(9.9), 10.0)) == "answer"
    assert run_virtually(within(answer_after(1_000_000.0), None)) == "answer"


def test_what_does_not_come_is_given_up_in_time_and_has_ended() -> None:
    async def scenario() -> tuple[float, list[str]]:
        said: list[str] = []
        with pytest.raises(asyncio.TimeoutError):
            await within(answer_after(100.0, said), 10.0)
        return asyncio.get_running_loop().time(), said

    assert run_virtually(scenario()) == (10.0, ["cancelled"])


@pytest.mark.parametrize("turns", [0, 1, 30])
@pytest.mark.parametrize("paused_at", [0.0, 5.0, 9.9])
def test_an_answer_that_came_during_a_pause_counts(paused_at: float, turns: int) -> None:
    async def scenario() -> str:
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def pause() -> None:
            stand_still(3_600.0)
            # What was in the socket is found by the loop's next look at it, and so is the timer.
            loop.call_soon(arrived.set_result, None)

        loop.call_later(paused_at, pause)
        return await within(read_answer(arrived, turns), 10.0)

    assert run_virtually(scenario()) == "answer"


def test_a_pause_without_an_answer_ends_a_moment_later() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(5.0, stand_still, 3_600.0)
        with pytest.raises(asyncio.TimeoutError):
            await within(answer_after(1e9), 10.0)
        return loop.time()

    assert run_virtually(scenario()) == pytest.approx(3_605.0 + LAST_LOOK_S)


def test_an_error_is_passed_on() -> None:
    async def fail() -> None:
        raise KeyError("mistake")

    with pytest.raises(KeyError, match="mistake"):
        run_virtually(within(fail(), 1.0))


@pytest.mark.parametrize("is_stopped_in", ["the call", "the wait"])
def test_who_cancels_is_obeyed(is_stopped_in: str) -> None:
    said: list[str] = []

    async def call() -> Any:
        if is_stopped_in == "the call":
            raise asyncio.CancelledError
        return await answer_after(100.0, said)

    async def scenario() -> float:
        waiting = asyncio.ensure_future(within(call(), 10.0))
        if is_stopped_in == "the wait":
            asyncio.get_running_loop().call_later(3.0, waiting.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
            raise AssertionError("it wasn't cancelled")
        return asyncio.get_running_loop().time()

    assert run_virtually(scenario()) == (0.0 if is_stopped_in == "the call" else 3.0)
    assert said == ([] if is_stopped_in == "the call" else ["cancelled"])


def test_an_answer_that_comes_while_it_is_given_up_counts() -> None:
    async def answer_at_last() -> str:
        try:
            await asyncio.sleep(100.0)
        except asyncio.CancelledError:
            return "answer"
        return "late"

    assert run_virtually(within(answer_at_last(), 1.0)) == "answer"
