"""SIGINT and SIGTERM as a clean stop while a run is on; delivered again when it has ended."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SAME_SIGNAL_S: Final = 0.5


class _Handlers:
    """The handlers of a block, and those that were there before it."""

    def __init__(self, request_stop: Callable[[str], None]) -> None:
        self._request_stop = request_stop
        self._received: tuple[int, float] | None = None
        self._is_left = False
        self._before: dict[int, Any] = {number: signal.signal(number, self._handle) for number in _SIGNALS}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._received is None and not self._is_left:
            self._received = (number, now)
            self._request_stop(signal.Signals(number).name)
        elif self._is_left or self._received is None or now - self._received[1] > _SAME_SIGNAL_S:
            self._received = None
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    def leave(self) -> None:
        """Put the handlers back that were there, and deliver what was received."""
        self._is_left = True
        if _is_main_thread():
            self._restore()
            if self._received is not None:
                signal.raise_signal(self._received[0])


@contextlib.contextmanager
def stop_on_signals(request_stop: Callable[[str], None]) -> Iterator[None]:
    """Call `request_stop(reason)` on the first SIGINT or SIGTERM, instead of what the process does with them.

    When the block ends, the handlers that were there are put back and the signal is delivered to them, so the caller
    sees what it would have seen: KeyboardInterrupt, the end of the process, Dagster's own interruption. A second
    signal is delivered at once. One that comes within half a second counts as the first: a terminal's Ctrl+C reaches
    a worker process twice, from the terminal and from its parent.

    Outside the main thread, where signals can't be handled, nothing is done. A block that is left in another thread
    than it was entered in (a generator around it was closed there) can't put the handlers back: the next signal does.
    """
    if not _is_main_thread():
        yield
        return
    handlers = _Handlers(request_stop)
    try:
        yield
    finally:
        handlers.leave()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
