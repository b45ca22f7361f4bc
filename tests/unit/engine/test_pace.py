"""Calls spread over the minute, with little reserved ahead."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from distilabel_dagster.engine.endpoints import OwnRates, RatePace


def run_here(function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    done.set_result(function(*arguments))
    return done


def test_calls_are_spread_evenly() -> None:
    async def main() -> float:
        pace = RatePace("m", 1_200, None, OwnRates(), run_here)
        begun = time.monotonic()
        await asyncio.gather(*(pace.wait(0) for _ in range(11)))
        return time.monotonic() - begun

    assert asyncio.run(main()) >= 10 * 60 / 1_200 - 0.01


def test_calls_that_wait_reserve_nothing_far_ahead() -> None:
    async def main() -> float:
        rates = OwnRates()
        pace = RatePace("m", 60, None, rates, run_here)
        waiting = [asyncio.ensure_future(pace.wait(0)) for _ in range(64)]
        await asyncio.sleep(0.1)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # Whoever comes next, with another limit, waits for what was reserved, and no longer.
        now = time.time()
        return rates.reserve("m requests", 1, 6_000, now) - now

    assert asyncio.run(main()) <= 4
