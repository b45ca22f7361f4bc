"""Brings what steps have made to disk: in groups, in the order of the graph, off the event loop."""

import asyncio
import contextlib
import logging
import time
from typing import Final

from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.batch import Batch
from distilabel_dagster.cache.checkpoint import StepSnapshot, write_snapshot
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.events import Progress
from distilabel_dagster.engine.freed_memory import FreedMemory
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.engine.run_state import RunState
from distilabel_dagster.engine.tally import is_unused
from distilabel_dagster.engine.worker import ThreadWorker
from distilabel_dagster.errors import CacheError, ColumnTypeError
from distilabel_dagster.steps.step import Step

_logger = logging.getLogger("distilabel_dagster.engine")
_SHORTEST_S: Final = 0.5
_LONGEST_S: Final = 30.0
_SHARE_OF_RUN: Final = 0.05
_URGENT_BYTES: Final = 32 * 1024 * 1024
_URGENT_ROWS: Final = 20_000
_PROGRESS_EVERY_S: Final = 10.0


class Committer:
    """Commits all steps' pending batches in rounds.

    A round goes through the steps in the order of the graph, so that on disk no batch stands without those that it
    was made from. Rounds come soon in a short run and less often in a long one (a twentieth of its time so far, at
    most 30 s), so that a kill costs little of what was computed and a day's run doesn't leave 100,000 files; a
    step's end, a stop, and much that waits bring one at once.
    """

    def __init__(self, dag: DAG, cache: PipelineCache, state: RunState) -> None:
        self._dag = dag
        self._cache = cache
        self._state = state
        self._order = dag.topological_order()
        self._worker = ThreadWorker("commit")
        self._memory = FreedMemory()
        self._is_ending = False
        self._has_lost_snapshot = False
        self._started_at = time.monotonic()
        self._progress_at = self._started_at

    async def run(self) -> None:
        """Commit in rounds until told to `finish`.

        Raises:
            CacheError: the cache can't be written; what was committed before stays.
            ColumnTypeError: a step's batches have no common schema.
        """
        while not self._is_ending:
            elapsed = time.monotonic() - self._started_at
            pause = min(max(elapsed * _SHARE_OF_RUN, _SHORTEST_S), _LONGEST_S)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._state.wait(self._is_urgent), pause)
            await self.commit()
            self._report_progress()

    def finish(self) -> None:
        """Let `run` return; a round that's on is finished first."""
        self._is_ending = True
        self._state.notify()

    def _is_urgent(self) -> bool:
        if self._is_ending:
            return True
        if self._state.pending_bytes > min(_URGENT_BYTES, self._state.options.max_pending_bytes):
            return True
        for log in self._state.logs.values():
            if log.pending and (log.is_complete or self._state.is_stopping):
                return True
            if log.pending_rows > _URGENT_ROWS:
                return True
        return False

    async def commit(self) -> None:
        """Commit all that is pending now, in one round.

        Raises:
            CacheError: the cache can't be written.
            ColumnTypeError: a step's batches have no common schema.
        """
        logs = [(self._state.logs[name], list(self._state.logs[name].pending)) for name in self._order]
        if not any(pending for _, pending in logs):
            return
        error = await self._worker.submit(self._write, logs)
        for log, _ in logs:
            log.mark_committed(len(log.store.records) - log.committed)
        self._state.notify()
        if error is not None:
            raise error

    def _write(self, logs: list[tuple[OutputLog, list[Batch]]]) -> ColumnTypeError | None:
        """Write what can be written; a step whose batches don't go together holds up only itself and what follows."""
        reach("round.begun")
        self._state.check_lease()
        first_error: ColumnTypeError | None = None
        failed: set[str] = set()
        for name, (log, pending) in zip(self._order, logs, strict=True):
            # An earlier round may have been given up when it had written some of them.
            left = [batch for batch in pending if batch.record.seq_no >= len(log.store.records)]
            if not left or name in failed:
                continue
            try:
                self._append(log, left)
            except ColumnTypeError as error:
                first_error = first_error or error
                failed |= {name, *self._dag.descendants([name])}
            reach("round.step_done", name)
        self.write_snapshot()
        reach("round.done")
        self._memory.give_back()
        return first_error

    @staticmethod
    def _append(log: OutputLog, batches: list[Batch]) -> None:
        try:
            log.store.append(batches)
        except ColumnTypeError:
            for batch in batches:
                if batch.record.seq_no == len(log.store.records):
                    log.store.append([batch])

    def write_snapshot(self) -> None:
        """Write `batch_manager.json` and its companions from what is committed.

        Nothing is read from them, so a run goes on without: the first time that they can't be written is told, and the
        next round tries again.
        """
        reach("snapshot.begun")
        self._state.check_lease()
        stores = self._cache.stores
        steps = []
        for name in self._order:
            step = self._dag.steps[name]
            steps.append(
                StepSnapshot(
                    name=name,
                    signature=self._cache.step_signatures[name],
                    predecessors={each: stores[each].records for each in self._dag.predecessors(name)},
                    records=stores[name].records,
                    input_batch_size=step.input_batch_size if isinstance(step, Step) else None,
                    is_global=step.is_global,
                    is_convergence=self._dag.convergence_source(name) is not None,
                )
            )
        try:
            write_snapshot(self._cache.fs, self._cache.signature, steps)
        except CacheError as error:
            if not self._has_lost_snapshot:
                _logger.warning("The run goes on without a snapshot of how far it is: %s", error)
            self._has_lost_snapshot = True
        else:
            self._has_lost_snapshot = False

    def _report_progress(self) -> None:
        now = time.monotonic()
        if now - self._progress_at >= _PROGRESS_EVERY_S:
            self._progress_at = now
            rows = {name: log.committed_rows for name, log in self._state.logs.items() if not log.is_complete}
            if rows:
                tallies = {name: tally.usage for name, tally in self._state.tallies.items() if name in rows}
                usage = {name: each for name, each in tallies.items() if not is_unused(each)}
                self._state.emit(Progress(rows, usage))

    def close(self) -> None:
        """Let the writing thread end."""
        self._worker.post(lambda: self._memory.give_back(at_once=True))
        self._worker.close()
