"""Who gets the process's signals while an op of ours runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def keep_signal_handlers() -> Iterator[None]:
    """Put the signal handlers back, at the end of the block, that were there at its beginning.

    Dagster sets its own each time it asks an op for the next result, and takes them away when it has one. Around each
    `yield` to it, this lets the engine's handlers, which stop a run cleanly, be there again afterwards. Does nothing
    outside the main thread, where handlers can't be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
