"""The engine: runs a graph of steps against a cache and tells of it by events."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Final

from distilabel_dagster.cache.file_errors import explained
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.cache.step_store import count_failed_rows
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.committer import Committer
from distilabel_dagster.engine.daemon_threads import DaemonThreads
from distilabel_dagster.engine.events import (
    RunEvent,
    RunFinished,
    RunStarted,
    RunStopped,
    StepState,
    StepWarning,
    StopRequested,
)
from distilabel_dagster.engine.garbage import rare_collections
from distilabel_dagster.engine.opening import Opening
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.engine.run_calls import RunCalls
from distilabel_dagster.engine.run_state import END, RunOptions, RunState, WriteLease
from distilabel_dagster.engine.signals import end_with_main_thread, stop_on_signals
from distilabel_dagster.engine.step_runner import StepRunner
from distilabel_dagster.engine.step_worker import StepWorker
from distilabel_dagster.engine.tally import is_unused
from distilabel_dagster.engine.worker import find_place
from distilabel_dagster.errors import CacheError, ColumnTypeError
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.usage import add_up

_LOOK_EVERY_S: Final = 1.0
_GIVE_UP_S: Final = 5.0
_COMMIT_S: Final = 20.0
_END_S: Final = 2.0
_CLOSE_S: Final = 30.0


class Engine:
    """One run of some or all steps of a pipeline.

    Args:
        dag: the pipeline's graph, validated.
        cache: where its steps' outputs are.
        stages: the steps to run, as stages that run one after another. Steps that aren't among them are only read,
            and must be complete where a step of the run follows them.
        options: how the run goes.
        acquire: called once with the steps that the run is going to write; gives a lease on them, or raises
            StepInUseError.
        open_ledger: opens the ledger of responses; gives None where the cache has none.
    """

    def __init__(
        self,
        dag: DAG,
        cache: PipelineCache,
        stages: list[list[str]],
        options: RunOptions,
        *,
        acquire: Callable[[list[str]], WriteLease | None],
        open_ledger: Callable[[], ResponseLedger | None] = lambda: None,
    ) -> None:
        self._dag = dag
        self._cache = cache
        self._stages = stages
        self._steps = [name for name in dag.topological_order() if any(name in stage for stage in stages)]
        self._options = options
        self._opening = Opening(dag, cache, self._steps, options, acquire=acquire, pause=self._pause)
        self._state = RunState({}, options)
        # Of its own for each run: what one computes can't be taken for what another had in the same place.
        self._revision = time.time_ns() // 1_000_000
        self._runners: dict[str, StepRunner] = {}
        self._workers: dict[str, StepWorker] = {}
        self._thread = threading.Thread(target=self._run_loop, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_reason: str | None = None
        self._stop_at: float | None = None
        self._stops: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_ending = False
        self._error: BaseException | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Future[None]] = set()
        self._calls = RunCalls(dag, self._steps, cache, options, open_ledger)

    def run(self) -> Generator[RunEvent, None, None]:
        """Run, and yield events as they happen; go through all of them.

        Ctrl+C and SIGTERM stop the run cleanly while this is iterated in the main thread; see `stop_on_signals`.
        Closing the iterator stops it as well. Run again after any end, it goes on from what is committed.

        A run that was stopped ends when its grace period does, whatever its steps are doing: a thread that doesn't
        return is left, which neither holds up the end of the process nor can write to the cache any more.

        Raises:
            IncompleteRunError: a predecessor that isn't part of the run isn't complete; nothing was computed.
            StepInUseError: another run writes one of the steps, or has taken over from this one.
            StepRunError: a step failed; what was committed stays.
            CacheError: the cache can't be read or written; what was committed stays.
        """
        with stop_on_signals(self.request_stop) as received:
            try:
                self._cache.fs.check_writable()
                yield from self._opening.take()
                if self._opening.is_taken:
                    yield self._prepare()
                    yield from self._iter_events()
                else:
                    yield RunStopped(tuple(self._steps))
            finally:
                self._leave(received.number)
        if self._error is not None:
            raise self._error

    def _iter_events(self) -> Iterator[RunEvent]:
        self._thread.start()
        try:
            while (event := self._next_event()) is not END:
                yield event
        except GeneratorExit:
            self.request_stop("nobody listens any more")
            while self._next_event() is not END:
                pass
            self._thread.join(_END_S)
            raise
        self._thread.join(_END_S)

    def _next_event(self) -> RunEvent | None:
        """Wait for the next event; after a stop, not for longer than it may take."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._state.events.get(timeout=_LOOK_EVERY_S)
            latest_s = self._options.grace_period_s + (_COMMIT_S if self._is_ending else _GIVE_UP_S)
            if self._stop_at is not None and time.monotonic() - self._stop_at > latest_s:
                # A model's coroutine blocks the event loop or can't be cancelled, or the disk doesn't answer.
                self._tell_of_hanging_steps()
                unfinished = tuple(name for name in self._steps if not self._is_finished(name))
                self._state.emit(RunStopped(unfinished, find_place(self._thread)))
                self._state.emit(END)  # type: ignore[arg-type]  # the end marker is no event

    def request_stop(self, reason: str) -> None:
        """Ask for a clean stop, from any thread or a signal handler; returns at once."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stop_at = time.monotonic()
            self._stops.put(None)
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the run is over, and its loop closed
                loop.call_soon_threadsafe(self._begin_stop)

    def _pause(self, seconds: float) -> bool:
        """Wait for so many seconds, and give True; give False at once when a stop is asked for."""
        if self._stop_reason is None:
            with contextlib.suppress(queue.Empty):
                self._stops.get(timeout=seconds)
        return self._stop_reason is None

    def _leave(self, signal_number: int | None) -> None:
        """Let nothing of the run go on behind its end: no process of it, and no write."""
        for worker in self._workers.values():
            worker.kill()
        if self._opening.lease is not None:
            self._opening.lease.release()
        if any(worker.tell_place() for worker in self._workers.values()):
            is_whole = self._error is None and all(self._is_finished(name) for name in self._steps)
            end_with_main_thread(128 + signal_number if signal_number is not None else int(not is_whole))

    def _prepare(self) -> RunStarted:
        """Drop what can't be used, and tell how far each step is."""
        stores = self._cache.stores
        self._state.lease = self._opening.lease
        self._opening.drop_unusable()
        self._state.logs = {name: OutputLog(store) for name, store in stores.items()}
        self._state.repaired |= stores.keys() - set(self._steps)
        self._state.finished |= stores.keys() - set(self._steps)
        self._state.tallies = self._calls.prepare()
        states = {
            name: StepState(len(log.records), log.rows, log.is_complete)
            for name, log in self._state.logs.items()
            if name in self._steps
        }
        stale = self._opening.find_stale()
        return RunStarted(states, {name: len(found) for name, found in stale.items() if found})

    def _run_loop(self) -> None:
        try:
            with explained("opened", "The event loop's pair of sockets"), rare_collections():
                asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._error = self._error or error
        finally:
            self._state.emit(END)  # type: ignore[arg-type]  # the end marker is no event

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(DaemonThreads())
        try:
            await self._run_stages()
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._error = self._error or error
        finally:
            # Here, since what the loop waits for when it's closed is nothing of the run any more.
            self._state.emit(END)  # type: ignore[arg-type]  # the end marker is no event

    async def _run_stages(self) -> None:
        committer = Committer(self._dag, self._cache, self._state)
        committing = asyncio.ensure_future(committer.run())
        generation = self._calls.start()
        self._state.request_stop = self._begin_stop
        try:
            if self._stop_reason is not None:
                self._begin_stop()
            for stage in self._stages:
                await self._run_stage(stage, committing)
            await self._end(committer, committing)
        finally:
            committing.cancel()
            committer.close()
            closing = asyncio.ensure_future(generation.close())
            await asyncio.wait({closing}, timeout=_CLOSE_S)
            if closing.done():
                closing.result()

    async def _run_stage(self, stage: list[str], committing: "asyncio.Future[None]") -> None:
        """Run the steps of a stage side by side until each is finished or stopped."""
        for name in stage:
            self._runners[name] = self._build_runner(name)
        for name in stage:
            consumers = [each for each in self._dag.successors(name) if each in stage]
            self._runners[name].consumers = [self._runners[each] for each in consumers]
        running = {asyncio.ensure_future(self._runners[name].run()) for name in stage}
        self._running = set(running)
        while running:
            done, _ = await asyncio.wait({*running, committing}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    self._fail(error)
            running -= done
            if committing in done and running:
                # What is made now can't be committed, but calls that are on the wire are paid.
                self._begin_stop("the cache can't be written")
                await self._calls.start().drain()
                self._give_up()
                await asyncio.wait(running)
                return

    def _build_runner(self, name: str) -> StepRunner:
        tally = self._state.tallies[name]
        worker = StepWorker(
            self._dag.steps[name], self._calls.step_key(name), self._state, self._calls.start(), tally
        )
        self._workers[name] = worker
        return StepRunner(
            self._dag, name, self._state, worker=worker, tally=tally, base_revision=self._revision
        )

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            self._begin_stop(f"{type(error).__name__} in a step")

    def _begin_stop(self, reason: str | None = None) -> None:
        """Begin no new batch from now on; give up what is being computed when the grace period ends."""
        if self._state.is_stopping:
            return
        self._stop_at = self._stop_at or time.monotonic()
        grace = self._options.grace_period_s
        self._state.is_stopping = True
        self._calls.stop()
        self._state.emit(StopRequested(reason or self._stop_reason or "asked for", grace))
        self._deadline = asyncio.get_running_loop().call_later(grace, self._give_up)
        self._state.notify()

    def _give_up(self) -> None:
        self._tell_of_hanging_steps()
        for task in self._running:
            task.cancel()

    def _tell_of_hanging_steps(self) -> None:
        for name, worker in self._workers.items():
            if (place := worker.tell_place()) is not None:
                told = f"{place}, and is given up; what it was working on is computed next time"
                self._state.emit(StepWarning(name, told))

    async def _end(self, committer: Committer, committing: "asyncio.Future[None]") -> None:
        """Commit what the last round left, write the snapshot, and say how it ended."""
        self._is_ending = True
        if self._deadline is not None:
            self._deadline.cancel()
        committer.finish()
        await asyncio.wait({committing})
        if (error := committing.exception()) is not None:
            self._error = self._error or error
        if not isinstance(error or self._error, CacheError):
            try:
                await committer.commit()
                await asyncio.to_thread(committer.write_snapshot)
            except (CacheError, ColumnTypeError) as late_error:
                self._error = self._error or late_error
        unfinished = tuple(name for name in self._steps if not self._is_finished(name))
        if unfinished:
            self._state.emit(RunStopped(unfinished))
            return
        computed = sum(runner.computed for runner in self._runners.values())
        total = sum(len(self._state.logs[name].records) for name in self._steps)
        failed = sum(count_failed_rows(self._state.logs[name].records) for name in self._steps)
        usage = add_up(tally.usage for tally in self._state.tallies.values())
        reused = total - min(computed, total)
        self._state.emit(RunFinished(computed, reused, failed, None if is_unused(usage) else usage))

    def _is_finished(self, name: str) -> bool:
        return name in self._runners and self._runners[name].is_finished
