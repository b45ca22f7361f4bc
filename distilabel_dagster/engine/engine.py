"""The engine: runs a graph of steps against a cache and tells of it by events."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Final

from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.cache.step_store import count_failed_rows
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.committer import Committer
from distilabel_dagster.engine.events import (
    RunEvent,
    RunFinished,
    RunStarted,
    RunStopped,
    StepState,
    StopRequested,
)
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.engine.resume import find_stale, usable_batches
from distilabel_dagster.engine.run_calls import RunCalls
from distilabel_dagster.engine.run_state import END, RunOptions, RunState, WriteLease
from distilabel_dagster.engine.signals import stop_on_signals
from distilabel_dagster.engine.step_runner import StepRunner
from distilabel_dagster.engine.step_worker import StepWorker
from distilabel_dagster.engine.tally import is_unused
from distilabel_dagster.errors import CacheError, ColumnTypeError, IncompleteRunError
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.usage import add_up

_AFTER_GRACE_S: Final = 5.0


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
        self._acquire = acquire
        self._state = RunState({}, options)
        # Of its own for each run: what one computes can't be taken for what another had in the same place.
        self._revision = time.time_ns() // 1_000_000
        self._runners: dict[str, StepRunner] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_reason: str | None = None
        self._error: BaseException | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Future[None]] = set()
        self._calls = RunCalls(dag, self._steps, cache, options, open_ledger)

    def run(self) -> Generator[RunEvent, None, None]:
        """Run, and yield events as they happen; go through all of them.

        Ctrl+C and SIGTERM stop the run cleanly while this is iterated in the main thread; see `stop_on_signals`.
        Closing the iterator stops it as well. Run again after any end, it goes on from what is committed.

        Raises:
            IncompleteRunError: a predecessor that isn't part of the run isn't complete; nothing was computed.
            StepRunError: a step failed; what was committed stays.
            CacheError: the cache can't be read or written; what was committed stays.
        """
        with stop_on_signals(self.request_stop):
            try:
                yield self._prepare()
                yield from self._iter_events()
            finally:
                if self._state.lease is not None:
                    self._state.lease.release()
        if self._error is not None:
            raise self._error

    def _iter_events(self) -> Iterator[RunEvent]:
        thread = threading.Thread(target=self._run_loop, name="engine", daemon=True)
        thread.start()
        try:
            while (event := self._state.events.get()) is not END:
                yield event
        except GeneratorExit:
            self.request_stop("nobody listens any more")
            thread.join(self._options.grace_period_s + _AFTER_GRACE_S)
            raise
        thread.join(_AFTER_GRACE_S)

    def request_stop(self, reason: str) -> None:
        """Ask for a clean stop, from any thread or a signal handler; returns at once."""
        self._stop_reason = self._stop_reason or reason
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the run is over, and its loop closed
                loop.call_soon_threadsafe(self._begin_stop)

    def _prepare(self) -> RunStarted:
        """Read what is committed, drop what can't be used, and tell how far each step is."""
        self._cache.fs.check_writable()
        stores = self._cache.stores
        for store in stores.values():
            store.open()
        self._check_predecessors()
        to_write = self._find_steps_to_write()
        if to_write:
            self._state.lease = self._acquire(to_write)
        for name in to_write:
            stores[name].open(for_writing=True)
        self._reset_steps()
        for name, usable in self._count_usable().items():
            if name in self._steps:
                if usable < len(stores[name].records):
                    stores[name].truncate(usable)
                stores[name].show_all()
        self._state.logs = {name: OutputLog(store) for name, store in stores.items()}
        self._state.repaired |= stores.keys() - set(self._steps)
        self._state.finished |= stores.keys() - set(self._steps)
        self._state.tallies = self._calls.prepare()
        states = {
            name: StepState(len(log.records), log.rows, log.is_complete)
            for name, log in self._state.logs.items()
            if name in self._steps
        }
        return RunStarted(states, {name: len(found) for name, found in self._find_stale().items() if found})

    def _find_steps_to_write(self) -> list[str]:
        """The steps that aren't whole: only these are this run's to write, others may run on what is complete."""
        stores = self._cache.stores
        stale = self._find_stale()
        usable = self._count_usable()
        anew = self._steps_to_reset()
        return [
            name
            for name in self._steps
            if stale[name]
            or name in anew
            or not stores[name].is_complete
            or usable[name] < len(stores[name].records)
        ]

    def _count_usable(self) -> dict[str, int]:
        """For each step, how many of its committed batches can be used; all of those outside the run."""
        records = {name: store.records for name, store in self._cache.stores.items()}
        for name in self._steps:
            predecessors = {each: records[each] for each in self._dag.predecessors(name)}
            records[name] = records[name][: usable_batches(name, records[name], predecessors)]
        return {name: len(found) for name, found in records.items()}

    def _check_predecessors(self) -> None:
        for name in self._steps:
            for each in self._dag.predecessors(name):
                if each not in self._steps and not self._cache.stores[each].is_complete:
                    raise IncompleteRunError(
                        f"Step `{name}` needs all rows of `{each}`, which isn't complete in the cache "
                        f"({len(self._cache.stores[each].records)} batches are). Run `{each}` first, or together with it."
                    )

    def _steps_to_reset(self) -> set[str]:
        """Steps that are to be computed anew, and all of the run behind them."""
        anew = {
            name for name in self._steps if not (self._options.use_cache and self._dag.steps[name].use_cache)
        }
        return anew | (self._dag.descendants(anew) & set(self._steps))

    def _reset_steps(self) -> None:
        """Forget the outputs of steps that are to be computed anew: the last ones first."""
        anew = self._steps_to_reset()
        for name in reversed(self._steps):
            if name in anew:
                self._cache.stores[name].reset()

    def _find_stale(self) -> dict[str, set[int]]:
        """For each step, the committed batches that no longer hold; none for steps outside the run."""
        stores, usable = self._cache.stores, self._count_usable()
        records = {name: store.records[: usable[name]] for name, store in stores.items()}
        retry = self._options.retry_failed
        stale: dict[str, set[int]] = {name: set() for name in stores}
        for name in self._steps:
            predecessors = {each: records[each] for each in self._dag.predecessors(name)}
            stale[name] = find_stale(records[name], predecessors, stale, retry_failed=retry)
        return stale

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._error = self._error or error
        finally:
            self._state.emit(END)  # type: ignore[arg-type]  # the end marker is no event

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
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
            await generation.close()

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
        grace = self._options.grace_period_s
        self._state.is_stopping = True
        self._calls.stop()
        self._state.emit(StopRequested(reason or self._stop_reason or "asked for", grace))
        self._deadline = asyncio.get_running_loop().call_later(grace, self._give_up)
        self._state.notify()

    def _give_up(self) -> None:
        for task in self._running:
            task.cancel()

    async def _end(self, committer: Committer, committing: "asyncio.Future[None]") -> None:
        """Commit what the last round left, write the snapshot, and say how it ended."""
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
