"""Threads that nobody waits for when the process ends."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

_MOST_THREADS: Final = 32
_IDLE_S: Final = 10.0
_T = TypeVar("_T")


class DaemonThreads(ThreadPoolExecutor):
    """What an event loop runs beside itself: name look-ups, and what models hand to `asyncio.to_thread`.

    Python's own executor is waited for when the loop ends, and again when the interpreter does: one look-up that hangs
    would hold up the process for ever. This one's threads are daemons; idle ones end after a while.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # which is never started: the event loop takes nothing but this class
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._started = 0
        self._idle = 0

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> "Future[_T]":
        """Run a function in one of the threads."""
        future: Future[_T] = Future()
        with self._changed:
            self._calls.append((future, lambda: fn(*args, **kwargs)))
            if self._idle >= len(self._calls):
                self._changed.notify()
            elif self._started < _MOST_THREADS:
                self._started += 1
                threading.Thread(target=self._work, name="engine-helper", daemon=True).start()
        return future

    def _work(self) -> None:
        while (call := self._next()) is not None:
            future, function = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001  (handed to whoever waits for the result)
                future.set_exception(error)

    def _next(self) -> "tuple[Future[Any], Callable[[], Any]] | None":
        with self._changed:
            self._idle += 1
            is_there = self._changed.wait_for(lambda: bool(self._calls), _IDLE_S)
            self._idle -= 1
            if is_there:
                return self._calls.popleft()
            self._started -= 1
            return None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: threads that are idle end by themselves, and others aren't waited for."""
