"""What an op does when the executor that started its process is gone: it stops, and so does the process."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import dagster as dg

from distilabel_dagster.orchestration.run_process import is_op_of_executor

_LOOK_EVERY_S: Final = 0.25
_TO_BE_TOLD_S: Final = 1.0
_AFTER_GRACE_S: Final = 20.0


@dataclass(slots=True)
class ParentWatch:
    """What is done when the executor's process is gone.

    Attributes:
        stop: asks the op's work to stop, and is given the reason; None for work that isn't waited for.
    """

    stop: Callable[[str], None] | None = None


@contextmanager
def end_with_executor(
    context: dg.AssetExecutionContext, grace_period_s: float = 0.0
) -> Iterator[ParentWatch]:
    """From now on, end this process when the executor that started it for an op dies; do nothing in any other process.

    Nobody would ever hear of what the op makes, and the next run would find its steps in use. The work in the block is
    asked to stop first, and Dagster gets a moment to write down how the op ended. Then the process ends on the spot: in
    the usual way it would wait for a queue that nobody reads.

    A run that a code server has started isn't an executor's op. It goes on without the server, as Dagster means it to.

    Args:
        context: the op's context.
        grace_period_s: seconds that the work gets to stop.
    """
    watch = ParentWatch()
    parent = multiprocessing.parent_process()
    if parent is None or not is_op_of_executor(context):
        yield watch
        return
    is_done = threading.Event()

    def end() -> None:
        while parent.is_alive():
            time.sleep(_LOOK_EVERY_S)
        if watch.stop is not None:
            watch.stop(f"process {parent.pid}, which runs the job, is gone")
            is_done.wait(grace_period_s + _AFTER_GRACE_S)
        time.sleep(_TO_BE_TOLD_S)
        os._exit(1)

    threading.Thread(target=end, name="executor-watch", daemon=True).start()
    try:
        yield watch
    finally:
        is_done.set()
