"""An event loop whose clock jumps to the next timer, so that hours pass in no time, and a hang is an error."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class HangError(RuntimeError):
    """Everything waits for something that never comes."""


class _Selector(selectors.SelectSelector):
    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise HangError("nothing is left to happen, and something still waits")
        self.loop.now += max(0.0, timeout - self.loop.early_s)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for no one: where nothing is ready, its time is the next timer's.

    Args:
        early_s: how early timers fire, as they do where a clock is coarse.
    """

    def __init__(self, early_s: float = 0.0) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        self.early_s = early_s
        super().__init__(selector)
        self._clock_resolution = max(1e-6, early_s * 1.5)

    def time(self) -> float:
        return self.now


def run_virtually(work: Coroutine[Any, Any, _T], early_s: float = 0.0) -> _T:
    """Run to the end in a loop of its own.

    Raises:
        HangError: it would never end.
    """
    loop = VirtualLoop(early_s)
    asyncio.set_event_loop(loop)
    task = loop.create_task(work)
    try:
        return loop.run_until_complete(task)
    finally:
        for each in asyncio.all_tasks(loop):
            each.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        asyncio.set_event_loop(None)
        loop.close()
