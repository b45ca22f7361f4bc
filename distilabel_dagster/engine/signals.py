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
    received: list[tuple[int, float]] = []
    before: dict[int, Any] = {}
    is_left = False

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        before.clear()

    def handle(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if is_left:
            restore()
            signal.raise_signal(number)
        elif not received:
            received.append((number, now))
            request_stop(signal.Signals(number).name)
        elif now - received[0][1] > _SAME_SIGNAL_S:
            restore()
            received.clear()
            signal.raise_signal(number)

    for number in _SIGNALS:
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        is_left = True
        if _is_main_thread():
            restore()
            if received:
                signal.raise_signal(received[0][0])


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
