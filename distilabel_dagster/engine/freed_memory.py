"""Memory that was freed, given back to the system."""

import ctypes
import sys
import time
from collections.abc import Callable
from typing import Final

_EVERY_S: Final = 2.0


class FreedMemory:
    """Has the C library give back what the process has freed, now and then.

    Rows come and go by the megabyte, in buffers of all sizes and in many threads. The GNU C library keeps what is freed
    between what isn't, so that a process grows for hours though it holds no more than in the beginning. Elsewhere
    nothing is done.
    """

    def __init__(self) -> None:
        self._trim = _find_trim()
        self._trimmed_at = time.monotonic()

    def give_back(self, *, at_once: bool = False) -> None:
        """Give it back, unless that was done a moment ago; takes some milliseconds, in which other threads go on.

        Args:
            at_once: do it in any case.
        """
        now = time.monotonic()
        if self._trim is not None and (at_once or now - self._trimmed_at >= _EVERY_S):
            self._trim(0)
            self._trimmed_at = time.monotonic()


def _find_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    found: Callable[[int], int] = trim
    return found
