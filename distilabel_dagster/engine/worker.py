"""Where a step's code runs: a thread of its own, or worker processes for replicas."""

import asyncio
import contextlib
import logging
import queue
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from distilabel_dagster.base.error_texts import tell_error, writable
from distilabel_dagster.batch import Rows
from distilabel_dagster.cache.foreign_tables import check_table
from distilabel_dagster.cache.tables import EMPTY_TABLE, build_table, table_rows
from distilabel_dagster.errors import (
    CacheError,
    CostLimitError,
    DistilabelDagsterError,
    ModelUnavailableError,
    StepLoadError,
    StepOutputError,
    StepProcessError,
)
from distilabel_dagster.models.caller import Caller, calling
from distilabel_dagster.models.limits import CallsStopped
from distilabel_dagster.models.model import Model
from distilabel_dagster.steps.step import BaseStep, Step

_logger = logging.getLogger("distilabel_dagster.engine")
_IDLE_JOIN_S: Final = 1.0
_MOST_MODELS: Final = 100
_CALLED_BY: Final = {
    "load_step": "`load()`",
    "unload_step": "`unload()`",
    "process_batch": "`process()`",
    "pull": "`process()`",
}
"""Function of this module -> the step's method that it calls."""

_OF_LIBRARIES: Final = (
    *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")),
    str(Path(__file__).parents[1]),
)
OnError = Literal["impute", "raise"]
ENDS_RUN: Final = (CallsStopped, ModelUnavailableError, CostLimitError, CacheError)
"""What isn't the failure of a row or batch, whoever's code it comes through."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a step made of one batch.

    Attributes:
        table: the rows.
        errors: index of a failed row -> what went wrong.
        trace: traceback of the exception that failed the batch, where one did.
        requests: what a model was asked for it, see `BatchRecord`.
        occurrences: which of equal requests they were, see `BatchRecord`.
    """

    table: pa.Table
    errors: dict[int, str]
    trace: str = ""
    requests: bytes = b""
    occurrences: dict[int, int] | None = None


def load_step(step: BaseStep) -> None:
    """Call the step's `load`.

    Raises:
        StepLoadError: it raised.
    """
    try:
        step.load()
    except DistilabelDagsterError:
        raise
    except BaseException as error:
        raise StepLoadError(
            f"Step `{step.name}` couldn't be loaded: {tell_error(error)}. Nothing of it was computed in "
            "this run; what was committed before stays.",
            step=step.name,
        ) from error


def unload_step(step: BaseStep) -> None:
    """Call the step's `unload`; a failure is only logged, as all its batches are made."""
    try:
        step.unload()
    except BaseException as error:  # noqa: BLE001  (as in `load_step`)
        _logger.warning("Step `%s`: `unload()` failed: %s", step.name, tell_error(error))


def process_batch(
    step: Step, inputs: list[pa.Table], on_error: OnError, seq_no: int, caller: Caller | None = None
) -> Output:
    """Call an ordinary or global step with one batch.

    Args:
        step: the step, loaded.
        inputs: the rows of each predecessor.
        on_error: "impute" keeps the rows of a failing batch without outputs; "raise" fails the run.
        seq_no: the batch's number, for messages.
        caller: makes the calls of the step's models.

    Raises:
        StepProcessError: `process` raised, and `on_error` is "raise" or the step is a global one.
        StepOutputError: `process` gave something other than lists of rows.
        ColumnTypeError: its values can't be kept in columns.
        CallsStopped: a stop was asked for, and calls of the batch weren't made.
        ModelUnavailableError: the endpoint of its model can't be used.
        CostLimitError: its calls have cost what they may.
        CacheError: the ledger can't be read or written.
    """
    if not any(table.num_rows for table in inputs):
        return Output(EMPTY_TABLE, {})
    made = None
    try:
        if _takes_table(step, inputs):
            with calling_models(step, caller):
                made = step.process_table(inputs[0])
    except BaseException as error:  # noqa: BLE001  (sorted out there)
        return handle_failure(step, inputs, on_error, seq_no, error)
    if made is not None:
        return Output(check_table(made, inputs[0], step.name), {})
    rows_in = [table_rows(table) for table in inputs]
    try:
        with calling_models(step, caller):
            rows = step.run_process(*rows_in)
    except BaseException as error:  # noqa: BLE001  (sorted out there)
        return handle_failure(step, inputs, on_error, seq_no, error)
    return make_output(step, rows)


def _takes_table(step: Step, inputs: list[pa.Table]) -> bool:
    """Tell whether a step offers to be called by the table of its only predecessor."""
    is_mapped = step.input_mappings or step.output_mappings
    return len(inputs) == 1 and not is_mapped and offers(type(step), "process_table")


def offers(step_class: type[BaseStep], method: str) -> bool:
    """Tell whether `method` is as new as `process`: a subclass with a `process` of its own means that one."""
    defining = (cls for cls in step_class.__mro__ if {"process", method} & vars(cls).keys())
    return method in vars(next(defining))


def make_output(step: Step, rows: Rows) -> Output:
    """Make a batch's output of what the step gave, with the failures that the rows tell of."""
    row_error: Callable[[dict[str, Any]], str | None] | None = getattr(step, "row_error", None)
    found = enumerate(map(row_error, rows)) if row_error else ()
    errors = {index: writable(problem) for index, problem in found if problem}
    return Output(build_table(rows, step.name), errors)


def handle_failure(
    step: Step, inputs: list[pa.Table], on_error: OnError, seq_no: int, error: BaseException
) -> Output:
    """Keep the rows of a batch that failed without the step's outputs, or raise; see `process_batch`."""
    if isinstance(error, (StepOutputError, *ENDS_RUN)):
        raise error
    rows_in = table_rows(inputs[0])
    told = writable(f"{tell_error(error)}{_place_of(error)}")
    if on_error == "raise" or step.is_global or not isinstance(error, Exception):
        raise StepProcessError(
            f"Step `{step.name}` failed on batch {seq_no} ({max(table.num_rows for table in inputs)} rows): {told}. What "
            "was committed before stays; mend the cause and start the same run again.",
            step=step.name,
            seq_no=seq_no,
        ) from error
    rows = [{**row, **dict.fromkeys(step.get_outputs())} for row in rows_in]
    trace = writable("".join(traceback.format_exception(error)))
    return Output(build_table(rows, step.name), dict.fromkeys(range(len(rows)), told), trace)


def calling_models(step: BaseStep, caller: Caller | None) -> contextlib.AbstractContextManager[None]:
    """Let `caller`, if there's one, make the calls of the step's models in the block."""
    return calling(caller, find_models(step)) if caller is not None else contextlib.nullcontext()


def find_models(step: BaseStep) -> list[Model]:
    """Give the models in a step's fields; of a field that's a list or dict, among its first hundred values.

    Called for each batch, so a field that holds a dataset mustn't make it slow.
    """
    found: dict[int, Model] = {}
    for name in type(step).model_fields:
        value = getattr(step, name)
        if isinstance(value, Model):
            found[id(value)] = value
        elif isinstance(value, dict | list | tuple) and name != "pipeline":
            held = value.values() if isinstance(value, dict) else value
            found |= {id(each): each for each in islice(held, _MOST_MODELS) if isinstance(each, Model)}
    return list(found.values())


def _place_of(error: BaseException) -> str:
    """Where it was raised: " (my_steps.py:12)"."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


@dataclass(frozen=True, slots=True)
class _Job:
    """What a thread is to do, and who waits for it: a future of an event loop's own costs a third of one for threads."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: "asyncio.Future[Any] | None"

    def run(self) -> tuple[Any, BaseException | None]:
        """Do it; give what came of it."""
        try:
            return self.function(*self.arguments), None
        except BaseException as error:  # noqa: BLE001  (handed to whoever waits for the result)
            return None, error

    def tell(self, result: Any, failure: BaseException | None) -> None:
        """Hand what came of it to who waits for it."""
        if self.future is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                self.future.get_loop().call_soon_threadsafe(_settle, self.future, result, failure)


def _settle(future: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
    if future.done():  # given up meanwhile
        return
    if failure is None:
        future.set_result(result)
    elif isinstance(failure, StopIteration):  # which no future takes
        future.set_exception(RuntimeError(f"{failure!r} was raised"))
    else:
        future.set_exception(failure)


class ThreadWorker:
    """One daemon thread that runs what it's given, in order; so a step is loaded and called in the same thread."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_busy = False
        self._thread = threading.Thread(target=self._work, name=f"step-{name}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.future is not None and job.future.cancelled():
                continue
            self._is_busy = True
            made = job.run()
            self._is_busy = False  # before anyone hears of it, and closes the thread: then it's waited for
            job.tell(*made)
            del job, made  # nothing is held until the next job comes

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """Run `function(*arguments)` in the thread; await the result in the event loop."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(function, arguments, future))
        return future

    def tell_place(self) -> str | None:
        """Say where the thread is, for people: "`process()` hasn't returned (my_steps.py:12)"; None if it does nothing."""
        if not self._is_busy:
            return None
        stack = _extract_stack(self._thread)
        method = next((_CALLED_BY[each.name] for each in stack if each.name in _CALLED_BY), "its code")
        return f"{method} hasn't returned ({_last_place(stack)})"

    def post(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run `function(*arguments)` in the thread, behind what it's doing; nobody waits for it."""
        self._jobs.put(_Job(function, arguments, None))

    def close(self) -> None:
        """Let the thread end after what it's doing; waits for that only if it does nothing.

        A thread that is left to the end of the interpreter can bring the process down there.
        """
        self._jobs.put(None)
        if not self._is_busy:
            self._thread.join(_IDLE_JOIN_S)


def find_place(thread: threading.Thread) -> str:
    """Say where a thread is: the innermost line that's neither Python's own, nor a library's, nor ours: `my_llm.py:12`."""
    return _last_place(_extract_stack(thread))


def _extract_stack(thread: threading.Thread) -> traceback.StackSummary:
    frame = sys._current_frames().get(thread.ident or 0)
    return traceback.extract_stack(frame) if frame is not None else traceback.StackSummary()


def _last_place(stack: traceback.StackSummary) -> str:
    of_user = [each for each in stack if not each.filename.startswith(_OF_LIBRARIES)]
    last = (of_user or stack)[-1:]
    return f"{Path(last[0].filename).name}:{last[0].lineno}" if last else "an unknown place"
