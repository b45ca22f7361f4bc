"""Python's garbage collector, kept from looking through all that was imported while calls wait for it."""

import contextlib
import gc
import threading
from collections.abc import Iterator
from typing import Final

_THRESHOLDS: Final = (10_000, 20, 20)


class _Collector:
    """The process's collector, which all runs share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs = 0
        self._before: tuple[int, int, int] | None = None
        self._has_frozen = False

    def slow_down(self) -> None:
        with self._lock:
            self._runs += 1
            if self._runs > 1 or not gc.isenabled():
                return
            self._before = first, second, third = gc.get_threshold()
            gc.set_threshold(
                max(first, _THRESHOLDS[0]), max(second, _THRESHOLDS[1]), max(third, _THRESHOLDS[2])
            )
            self._has_frozen = gc.get_freeze_count() == 0
            if self._has_frozen:
                gc.freeze()

    def let_go(self) -> None:
        with self._lock:
            self._runs -= 1
            if self._runs or self._before is None:
                return
            gc.set_threshold(*self._before)
            if self._has_frozen:
                gc.unfreeze()
            self._before = None


_collector = _Collector()


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage less often, and not among what was there before, as long as there are such blocks in the process.

    A full collection goes through some 500,000 objects of libraries, which takes 60 ms and stops all threads; a thousand
    calls cause several. What the process's own code has set for the collector (off, or objects frozen) stays.
    """
    _collector.slow_down()
    try:
        yield
    finally:
        _collector.let_go()
