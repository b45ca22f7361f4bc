"""SIGINT and SIGTERM as a clean stop while a run is on; delivered again when it has ended."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SAME_SIGNAL_S: Final = 0.5
_PATIENCE_S: Final = 1.0


@dataclass(slots=True)
class Received:
    """The first signal that came in a block; `number` is None if none did."""

    number: int | None = None


class _Handlers:
    """The handlers of a block, and those that were there before it."""

    def __init__(self, request_stop: Callable[[str], None], first: Received) -> None:
        self._request_stop = request_stop
        self._first = first
        self._received: tuple[int, float] | None = None
        self._is_left = False
        self._before: dict[int, Any] = {number: signal.signal(number, self._handle) for number in _SIGNALS}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._received is None and not self._is_left:
            self._received = (number, now)
            self._first.number = number
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
def stop_on_signals(request_stop: Callable[[str], None]) -> Iterator[Received]:
    """Call `request_stop(reason)` on the first SIGINT or SIGTERM, instead of what the process does with them.

    When the block ends, the handlers that were there are put back and the signal is delivered to them, so the caller
    sees what it would have seen: KeyboardInterrupt, the end of the process, Dagster's own interruption. A second
    signal is delivered at once. One that comes within half a second counts as the first: a terminal's Ctrl+C reaches
    a worker process twice, from the terminal and from its parent.

    Outside the main thread, where signals can't be handled, nothing is done. A block that is left in another thread
    than it was entered in (a generator around it was closed there) can't put the handlers back: the next signal does.

    Yields:
        The signal that came, as soon as it has.
    """
    first = Received()
    if not _is_main_thread():
        yield first
        return
    handlers = _Handlers(request_stop, first)
    try:
        yield first
    finally:
        handlers.leave()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def end_with_main_thread(exit_code: int, patience_s: float = _PATIENCE_S) -> None:
    """See to it that the process ends soon after its main thread, whatever other threads do.

    Python waits at the end for threads that aren't daemons, those of a `ThreadPoolExecutor` among them. One that a step
    has started, and that never returns, would hold up a process that was told to end for ever.

    Args:
        exit_code: what the process ends with if it comes to that.
        patience_s: seconds that other threads get to end by themselves.
    """
    threading.Thread(target=_end_with_main_thread, args=(exit_code, patience_s), daemon=True).start()


def _end_with_main_thread(exit_code: int, patience_s: float) -> None:
    while not _is_main_thread_at_its_end():
        time.sleep(_SAME_SIGNAL_S)
    time.sleep(patience_s)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # whatever a closed terminal or a replaced stream raises
            stream.flush()
    os._exit(exit_code)


def _is_main_thread_at_its_end() -> bool:
    """Whether the main thread waits for the others already; Python counts it as alive as long as it waits for executors."""
    main = threading.main_thread()
    frame = sys._current_frames().get(main.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "_shutdown" and frame.f_code.co_filename == threading.__file__:
            return True
        frame = frame.f_back
    return not main.is_alive()
