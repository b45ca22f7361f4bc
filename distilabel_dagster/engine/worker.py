"""Where a step's code runs: a thread of its own, or worker processes for replicas."""

import asyncio
import inspect
import logging
import multiprocessing
import multiprocessing.util
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from distilabel_dagster.base.code_fingerprint import reads_name
from distilabel_dagster.base.columns import check_rows
from distilabel_dagster.batch import Rows
from distilabel_dagster.cache.tables import build_table, table_rows
from distilabel_dagster.errors import DistilabelDagsterError, StepLoadError, StepOutputError, StepProcessError
from distilabel_dagster.steps.step import BaseStep, GeneratorStep, Step

_logger = logging.getLogger("distilabel_dagster.engine")
_IDLE_JOIN_S: Final = 1.0
OnError = Literal["impute", "raise"]


@dataclass(frozen=True, slots=True)
class Output:
    """What a step made of one batch.

    Attributes:
        table: the rows.
        errors: index of a failed row -> what went wrong.
        trace: traceback of the exception that failed the batch, where one did.
    """

    table: pa.Table
    errors: dict[int, str]
    trace: str = ""


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
            f"Step `{step.name}` couldn't be loaded: {type(error).__name__}: {error}. Nothing of it was computed in "
            "this run; what was committed before stays.",
            step=step.name,
        ) from error


def unload_step(step: BaseStep) -> None:
    """Call the step's `unload`; a failure is only logged, as all its batches are made."""
    try:
        step.unload()
    except BaseException as error:  # noqa: BLE001  (as in `load_step`)
        _logger.warning("Step `%s`: `unload()` failed: %s: %s", step.name, type(error).__name__, error)


def process_batch(step: Step, inputs: list[pa.Table], on_error: OnError, seq_no: int) -> Output:
    """Call an ordinary or global step with one batch.

    Args:
        step: the step, loaded.
        inputs: the rows of each predecessor.
        on_error: "impute" keeps the rows of a failing batch without outputs; "raise" fails the run.
        seq_no: the batch's number, for messages.

    Raises:
        StepProcessError: `process` raised, and `on_error` is "raise" or the step is a global one.
        StepOutputError: `process` gave something other than lists of rows.
        ColumnTypeError: its values can't be kept in columns.
    """
    rows_in = [table_rows(table) for table in inputs]
    if not any(rows_in):
        return Output(build_table([], step.name), {})
    try:
        rows = step.run_process(*rows_in)
    except StepOutputError:
        raise
    except BaseException as error:
        told = f"{type(error).__name__}: {error}{_place_of(error)}"
        if on_error == "raise" or step.is_global or not isinstance(error, Exception):
            raise StepProcessError(
                f"Step `{step.name}` failed on batch {seq_no} ({max(map(len, rows_in))} rows): {told}. What was "
                "committed before stays; mend the cause and start the same run again.",
                step=step.name,
                seq_no=seq_no,
            ) from error
        rows = [{**row, **dict.fromkeys(step.get_outputs())} for row in table_rows(inputs[0])]
        trace = "".join(traceback.format_exception(error))
        return Output(build_table(rows, step.name), dict.fromkeys(range(len(rows)), told), trace)
    row_error: Callable[[dict[str, Any]], str | None] | None = getattr(step, "row_error", None)
    found = enumerate(map(row_error, rows)) if row_error else ()
    errors = {index: problem for index, problem in found if problem}
    return Output(build_table(rows, step.name), errors)


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
        self._skip = 0 if _honours_offset(step) else offset
        self._iterator = self._start(0 if self._skip else offset)

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

    def pull(self) -> tuple[Output, bool] | None:
        """Get the next rows, and whether they're the last; None if the generator ended without saying so.

        Raises:
            StepProcessError: the generator raised.
            StepOutputError: it yielded something other than `(rows, last_batch)`.
        """
        while True:
            try:
                made = next(self._iterator)
            except StopIteration:
                return None
            except DistilabelDagsterError:
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
            f"Step `{self._step.name}` failed while it made rows: {type(error).__name__}: {error}. Rows committed "
            "before stay; mend the cause and start the same run again.",
            step=self._step.name,
        )


def _honours_offset(step: GeneratorStep) -> bool:
    """Tell whether `process` reads its offset; one that never does is started from the beginning."""
    function = getattr(step, "step_function", None) or step.process
    parameters = list(inspect.signature(function).parameters)
    return bool(parameters) and reads_name(function, parameters[0])


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


_replica: Step | None = None


def _start_replica(pickled: bytes) -> None:
    """Set a worker process up: it leaves signals that reach the whole group to its parent, and dies with that."""
    global _replica  # noqa: PLW0603  (a worker process has one step, for its whole life)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def die_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()
    _replica = pickle.loads(pickled)  # noqa: S301  (made by the parent process, for this one)
    load_step(_replica)
    multiprocessing.util.Finalize(None, unload_step, (_replica,), exitpriority=0)


def _process_in_replica(inputs: list[pa.Table], on_error: OnError, seq_no: int) -> Output:
    assert _replica is not None, "the initializer has run"  # noqa: S101  (for the type checker)
    return process_batch(_replica, inputs, on_error, seq_no)


class ReplicaPool:
    """Worker processes that run one step side by side; each loads it once.

    Args:
        step: the step; its class can be imported by the workers.
        replicas: number of processes.

    Raises:
        StepLoadError: the step can't be sent to another process.
    """

    def __init__(self, step: Step, replicas: int) -> None:
        self._step = step
        try:
            pickled = pickle.dumps(step.model_copy(update={"pipeline": None}))
        except Exception as error:
            raise StepLoadError(
                f"Step `{step.name}` can't be sent to worker processes: {error}. Get what can't be sent in `load()`, "
                "or use one replica.",
                step=step.name,
            ) from error
        self._pool = ProcessPoolExecutor(
            replicas, multiprocessing.get_context("spawn"), initializer=_start_replica, initargs=(pickled,)
        )

    async def process(self, inputs: list[pa.Table], on_error: OnError, seq_no: int) -> Output:
        """Call the step with one batch in one of the processes.

        Raises:
            StepProcessError: a worker process died, or as `process_batch`.
        """
        try:
            return await asyncio.wrap_future(self._pool.submit(_process_in_replica, inputs, on_error, seq_no))
        except BrokenProcessPool as error:
            raise StepProcessError(
                f"A worker process of step `{self._step.name}` ended while it was needed (killed, out of memory, or "
                "its `load()` failed: see its output above). What was committed before stays; start the same run "
                "again.",
                step=self._step.name,
            ) from error

    def finish(self) -> None:
        """Unload the step in each process and wait for their end; call it when they're idle, in a thread."""
        self._pool.shutdown(wait=True)

    def close(self) -> None:
        """End the processes at once, whatever they're doing."""
        processes = list((getattr(self._pool, "_processes", None) or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
