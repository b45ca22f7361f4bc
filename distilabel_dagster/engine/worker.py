"""Where a step's code runs: a thread of its own, or worker processes for replicas."""

import asyncio
import contextlib
import inspect
import logging
import queue
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from distilabel_dagster.base.code_fingerprint import reads_name
from distilabel_dagster.base.columns import check_rows
from distilabel_dagster.base.error_texts import tell_error, writable
from distilabel_dagster.batch import Rows
from distilabel_dagster.cache.tables import EMPTY_TABLE, build_table, check_table, table_rows
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
from distilabel_dagster.steps.step import BaseStep, GeneratorStep, Step
from distilabel_dagster.steps.tasks.task import GeneratorTask

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
    try:
        with _calling(step, caller):
            made = _process_table(step, inputs)
    except BaseException as error:  # noqa: BLE001  (sorted out there)
        return handle_failure(step, inputs, on_error, seq_no, error)
    if made is not None:
        return Output(check_table(made, inputs[0], step.name), {})
    rows_in = [table_rows(table) for table in inputs]
    try:
        with _calling(step, caller):
            rows = step.run_process(*rows_in)
    except BaseException as error:  # noqa: BLE001  (sorted out there)
        return handle_failure(step, inputs, on_error, seq_no, error)
    return make_output(step, rows)


def _process_table(step: Step, inputs: list[pa.Table]) -> Any:
    """Call a step by the table of its only predecessor, if it offers that; None where it wants rows."""
    if len(inputs) > 1 or step.input_mappings or step.output_mappings or not _offers_table(type(step)):
        return None
    return step.process_table(inputs[0])


def _offers_table(step_class: type[Step]) -> bool:
    """Tell whether `process_table` is as new as `process`: a subclass with a `process` of its own means that one."""
    defining = (cls for cls in step_class.__mro__ if {"process", "process_table"} & vars(cls).keys())
    return "process_table" in vars(next(defining))


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


def _calling(step: BaseStep, caller: Caller | None) -> contextlib.AbstractContextManager[None]:
    """Let `caller`, if there's one, make the calls of the step's models in the block."""
    return calling(caller, find_models(step)) if caller is not None else contextlib.nullcontext()


def find_models(step: BaseStep) -> list[Model]:
    """Give the models in a step's fields; of a field that's a list or dict, among its first hundred values.

    Called for each batch, so a field that holds a dataset mustn't make it slow.
    """
    found: dict[int, Model] = {}
    for name in type(step).model_fields:
        value = getattr(step, name) if name != "pipeline" else None
        if isinstance(value, dict):
            value = list(islice(value.values(), _MOST_MODELS))
        held = value[:_MOST_MODELS] if isinstance(value, list | tuple) else [value]
        found |= {id(each): each for each in held if isinstance(each, Model)}
    return list(found.values())


def _place_of(error: BaseException) -> str:
    """Where it was raised: " (my_steps.py:12)"."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


class RowSource:
    """A generator step's rows from an offset on, batch by batch.

    Args:
        step: the step, loaded.
        offset: rows that are committed already.
    """

    def __init__(self, step: GeneratorStep, offset: int) -> None:
        self._step = step
        self._skip = 0 if honours_offset(step) else offset
        self._offset = 0 if self._skip else offset
        self._iterator: Any = None

    def _start(self, offset: int) -> Any:
        try:
            made = self._step.process(offset=offset)
        except DistilabelDagsterError:
            raise
        except BaseException as error:
            raise self._failure(error) from error
        if not hasattr(made, "__next__"):
            raise StepOutputError(
                f"Step `{self._step.name}`: `process()` returned a {type(made).__name__}, expected a generator. Write "
                "`yield rows, last_batch`.",
                step=self._step.name,
            )
        return made

    def pull(self, caller: Caller | None = None) -> tuple[Output, bool] | None:
        """Get the next rows, and whether they're the last; None if the generator ended without saying so.

        Args:
            caller: makes the calls of the step's models.

        Raises:
            StepProcessError: the generator raised.
            StepOutputError: it yielded something other than `(rows, last_batch)`.
        """
        while True:
            try:
                with _calling(self._step, caller):
                    if self._iterator is None:
                        self._iterator = self._start(self._offset)
                    made = next(self._iterator)
            except StopIteration:
                return None
            except (DistilabelDagsterError, CallsStopped):
                raise
            except BaseException as error:
                raise self._failure(error) from error
            rows, last_batch = self._check(made)
            skipped = min(self._skip, len(rows))
            self._skip -= skipped
            rows = self._step.map_rows(rows[skipped:])
            if rows or last_batch:
                return Output(build_table(rows, self._step.name), {}), last_batch

    def _check(self, made: Any) -> tuple[Rows, bool]:
        name = self._step.name
        if not (isinstance(made, tuple) and len(made) == 2):
            raise StepOutputError(
                f"Step `{name}` yielded a {type(made).__name__}, expected a pair `(rows, last_batch)`.",
                step=name,
            )
        return check_rows(made[0], name, "yielded"), bool(made[1])

    def _failure(self, error: BaseException) -> StepProcessError:
        return StepProcessError(
            f"Step `{self._step.name}` failed while it made rows: {tell_error(error)}. Rows committed "
            "before stay; mend the cause and start the same run again.",
            step=self._step.name,
        )


def honours_offset(step: GeneratorStep) -> bool:
    """Tell whether `process` is started at its offset.

    One that never reads it is started from the beginning, as is one that only hands it on to a `process` of its bases that
    never does, and one that asks a model: what it asked before is answered from the ledger, so that it goes the same way
    again, whether it asks ahead or for each batch.
    """
    if isinstance(step, GeneratorTask):
        return False
    for cls in type(step).__mro__:
        defined = vars(cls).get("step_function") or vars(cls).get("process")
        if defined is None:
            continue
        function = defined.__get__(step)
        name = next(iter(inspect.signature(function).parameters), None)
        if name is None or not reads_name(function, name):
            return False
        if reads_name(function, name, beside="process"):
            return True
    return False


class ThreadWorker:
    """One daemon thread that runs what it's given, in order; so a step is loaded and called in the same thread."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._jobs = queue.SimpleQueue()
        self._is_busy = False
        self._thread = threading.Thread(target=self._work, name=f"step-{name}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, arguments = job
            if not future.set_running_or_notify_cancel():
                continue
            self._is_busy = True
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001  (handed to whoever waits for the result)
                future.set_exception(error)
            self._is_busy = False

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """Run `function(*arguments)` in the thread; await the result in the event loop."""
        future: Future[Any] = Future()
        self._jobs.put((future, function, arguments))
        return asyncio.wrap_future(future)

    def tell_place(self) -> str | None:
        """Say where the thread is, for people: "`process()` hasn't returned (my_steps.py:12)"; None if it does nothing."""
        if not self._is_busy:
            return None
        stack = _extract_stack(self._thread)
        method = next((_CALLED_BY[each.name] for each in stack if each.name in _CALLED_BY), "its code")
        return f"{method} hasn't returned ({_last_place(stack)})"

    def post(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run `function(*arguments)` in the thread, behind what it's doing; nobody waits for it."""
        self._jobs.put((Future(), function, arguments))

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
