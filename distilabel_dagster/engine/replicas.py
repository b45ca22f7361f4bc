"""Worker processes that run one step side by side."""

import asyncio
import multiprocessing
import multiprocessing.util
import os
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distilabel_dagster.engine.own_calls import Desk, OwnCaller
from distilabel_dagster.engine.process_errors import explained_start
from distilabel_dagster.engine.replica_desk import RemoteDesk, ReplicaDesk, connect
from distilabel_dagster.engine.worker import OnError, Output, load_step, process_batch, unload_step
from distilabel_dagster.errors import StepLoadError, StepProcessError
from distilabel_dagster.steps.step import Step

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@dataclass(frozen=True, slots=True)
class _Replica:
    """What a worker process has for its whole life: its copy of the step, and the way to its parent."""

    step: Step
    connection: "Connection[Any, Any]"
    lock: threading.Lock
    run_id: str


_replica: _Replica | None = None


def _start_replica(address: Any, key: bytes, run_id: str) -> None:
    """Set a worker process up: it leaves signals that reach the whole group to its parent, and dies with that."""
    global _replica  # noqa: PLW0603  (a worker process has one step, for its whole life)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def die_with_parent() -> None:
        if parent is not None:
            parent.join()  # at once, if it died while this process was starting
            os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()
    connection, pickled = connect(address, key)
    step = pickle.loads(pickled)  # noqa: S301  (made by the parent process, for this one)
    load_step(step)
    multiprocessing.util.Finalize(None, unload_step, (step,), exitpriority=0)
    _replica = _Replica(step, connection, threading.Lock(), run_id)


def _process_in_replica(inputs: list[pa.Table], on_error: OnError, seq_no: int) -> Output:
    assert _replica is not None, "the initializer has run"  # noqa: S101  (for the type checker)
    desk = RemoteDesk(_replica.connection, _replica.lock, seq_no)
    return process_batch(_replica.step, inputs, on_error, seq_no, OwnCaller(desk, _replica.run_id))


class ReplicaPool:
    """Worker processes that run one step side by side; each loads it once.

    Args:
        step: the step; its class can be imported by the workers.
        replicas: number of processes.
        run_id: what the ledger calls the run.

    Raises:
        StepLoadError: the step can't be sent to another process, or the system gives no processes.
    """

    def __init__(self, step: Step, replicas: int, run_id: str) -> None:
        self._step = step
        self._busy = 0
        try:
            pickled = pickle.dumps(step.model_copy(update={"pipeline": None}))
        except Exception as error:
            raise StepLoadError(
                f"Step `{step.name}` can't be sent to worker processes: {error}. Get what can't be sent in `load()`, "
                "or use one replica.",
                step=step.name,
            ) from error
        with explained_start(step.name):
            self._desk = ReplicaDesk(pickled)
            try:
                self._pool = ProcessPoolExecutor(
                    replicas,
                    multiprocessing.get_context("spawn"),
                    initializer=_start_replica,
                    initargs=(self._desk.address, self._desk.key, run_id),
                )
            except OSError:
                self._desk.close()
                raise

    async def process(self, inputs: list[pa.Table], on_error: OnError, seq_no: int, desk: Desk) -> Output:
        """Call the step with one batch in one of the processes.

        Args:
            inputs: the rows of each predecessor.
            on_error: see `process_batch`.
            seq_no: the batch's number.
            desk: where its models' calls are looked up and kept.

        Raises:
            StepLoadError: the system gives no further process.
            StepProcessError: a worker process died, or as `process_batch`.
        """
        self._desk.open(seq_no, desk)
        self._busy += 1
        try:
            with explained_start(self._step.name):
                processing = self._pool.submit(_process_in_replica, inputs, on_error, seq_no)
            return await asyncio.wrap_future(processing)
        except BrokenProcessPool as error:
            raise StepProcessError(
                f"A worker process of step `{self._step.name}` ended while it was needed (killed, out of memory, or "
                "its `load()` failed: see its output above). What was committed before stays; start the same run "
                "again.",
                step=self._step.name,
            ) from error
        finally:
            self._busy -= 1
            self._desk.close_batch(seq_no)

    def tell_place(self) -> str | None:
        """Say, for people, that the processes haven't returned; None if nothing is asked of them."""
        if not self._busy:
            return None
        pids = ", ".join(str(process.pid) for process in self._find_processes())
        return f"its worker processes ({pids}) haven't returned"

    def finish(self) -> None:
        """Unload the step in each process and wait for their end; call it when they're idle, in a thread."""
        self._busy += 1
        self._pool.shutdown(wait=True)
        self._busy -= 1
        self._desk.close()

    def close(self) -> None:
        """End the processes at once, whatever they're doing; from any thread, and safe to repeat.

        A pool that's left with processes that do something would hold up the end of this one.
        """
        for process in self._find_processes():
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._desk.close()

    def _find_processes(self) -> list[Any]:
        # Of the pool's own; it forgets them when it has shut down.
        return list((getattr(self._pool, "_processes", None) or {}).values())
