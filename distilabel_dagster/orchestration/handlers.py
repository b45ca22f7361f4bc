"""Who gets the process's signals while an op of ours runs."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg

from distilabel_dagster.engine.events import RunEvent
from distilabel_dagster.pipeline.execution import RunEvents

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
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def stop_run(events: RunEvents, tell: Callable[[RunEvent], None]) -> None:
    """Stop a run of the engine that Dagster goes on with no further, and tell how it ends.

    Dagster drops an op between two of its results when storing one fails, and when a signal comes in the meantime,
    since that reaches Dagster's handlers and not the engine's.

    Args:
        events: the run; it's gone through to its end, which takes as long as what is being computed.
        tell: gets the events.
    """
    events.stop("the job was interrupted, or a result couldn't be stored")
    try:
        for event in events:
            tell(event)
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        pass  # a signal that came meanwhile, handed on by the engine at its end
