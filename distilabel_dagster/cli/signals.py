"""Which signal asked the process to stop, whoever handles it."""

import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from typing_extensions import Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S: Final = 10.0
"""Seconds that what was told of a signal gets to take it in."""


class StoppedBySignal(Exception):  # noqa: N818  (no error: what was asked for)
    """The command was stopped, and ended cleanly; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports of a process that a signal ended."""
        return 128 + self.number


class SignalWatch:
    """Notes the first SIGINT or SIGTERM that comes within the block, beside the handlers that are there.

    The engine and Dagster both replace the handlers, more than once a run, and turn either signal into the same
    exception. The interpreter's wakeup pipe sees each signal before any of them. SIGTERM, which would end the process
    on the spot where none of them is in place, raises KeyboardInterrupt instead.

    Args:
        on_signal: called once, from a thread of its own.

    Attributes:
        number: the signal; None if none came.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        self.number: int | None = None
        self._on_signal = on_signal
        self._thread: threading.Thread | None = None
        self._write_end = -1
        self._fd_before = -1
        self._handler_before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            read_end, self._write_end = os.pipe()
            os.set_blocking(self._write_end, False)
            self._thread = threading.Thread(target=self._watch, args=(read_end,), name="signals", daemon=True)
            self._thread.start()
            self._handler_before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            self._fd_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            signal.set_wakeup_fd(self._fd_before)
            signal.signal(signal.SIGTERM, self._handler_before or signal.SIG_DFL)
            os.close(self._write_end)
            self._thread.join(_PATIENCE_S)
            self._thread = None

    def _watch(self, read_end: int) -> None:
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            while received := pipe.read(1):
                if self.number is None and received[0] in _SIGNALS:
                    self.number = received[0]
                    self._on_signal()
