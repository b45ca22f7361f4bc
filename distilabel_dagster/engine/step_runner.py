"""One step's task in the event loop: repairs what no longer holds, takes input, calls the step, hands outputs on."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.step_store import count_failed_rows
from distilabel_dagster.cache.tables import EMPTY_TABLE
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.events import StepFinished, StepStopped, StepWarning
from distilabel_dagster.engine.output_log import InputReader
from distilabel_dagster.engine.output_recorder import OutputRecorder
from distilabel_dagster.engine.resume import holds_same_rows, iter_repairs, usable_batches
from distilabel_dagster.engine.run_ahead import has_room
from distilabel_dagster.engine.run_state import RunState
from distilabel_dagster.engine.step_buffer import InputPlan, StepBuffer
from distilabel_dagster.engine.step_worker import StepWorker
from distilabel_dagster.engine.tally import Tally, is_unused
from distilabel_dagster.engine.wiring import build_buffer
from distilabel_dagster.engine.worker import Output
from distilabel_dagster.errors import ModelUnavailableError, StepProcessError
from distilabel_dagster.models.limits import CallsStopped
from distilabel_dagster.steps.step import BaseStep, GeneratorStep

_COMMIT_AGAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A batch that is being computed; `before` is what it was, if it's made again."""

    plan: InputPlan
    seq_no: int
    output: "asyncio.Task[Output]"
    before: BatchRecord | None = None


class StepRunner:
    """Runs one step of a stage to its end, or to where a stop finds it.

    Args:
        dag: the pipeline's graph.
        name: the step.
        state: what the steps of the run share.
        worker: calls the step.
        tally: counts its calls.
        base_revision: revision of batches that are computed for the first time.
    """

    def __init__(
        self,
        dag: DAG,
        name: str,
        state: RunState,
        *,
        worker: StepWorker,
        tally: Tally,
        base_revision: int = 0,
    ) -> None:
        self.name = name
        self.step: BaseStep = dag.steps[name]
        self.consumers: list[StepRunner] = []
        self.computed = 0
        self.tally = tally
        self._dag = dag
        self._state = state
        self._log = state.logs[name]
        inputs = {each: state.logs[each] for each in dag.predecessors(name)}
        self._reader = InputReader(name, inputs, takes_all_at_once=self.step.is_global)
        self._worker = worker
        self._base_revision = base_revision
        self._recorder = OutputRecorder(dag, name, state, base_revision)
        self._alone = 0
        self._given_up = 0
        self._buffer: StepBuffer | None = None
        self._told_of: list[str] = []
        self._fed: dict[str, int] = {}
        self._rows_fed: dict[str, int] = {}
        self._in_flight: deque[_InFlight] = deque()
        self.is_finished = False
        self._again: list[Batch] = []
        self._again_at = time.monotonic()

    async def run(self) -> None:
        """Run the step; returns when it's complete and committed, or when a stop has reached it.

        Cancelled, it gives up what is being computed.

        Raises:
            StepRunError: the step failed, in a way that isn't kept as failed rows.
            CacheError: the cache couldn't be read or written.
        """
        state, log = self._state, self._log
        try:
            predecessors = set(self._dag.predecessors(self.name))
            await state.wait(
                lambda: state.is_stopping or predecessors <= state.repaired or self._is_cut_off(predecessors)
            )
            if not state.is_stopping and predecessors <= state.repaired:
                await self._repair()
            if not log.is_complete and not state.is_stopping and self.name in state.repaired:
                await (self._generate() if isinstance(self.step, GeneratorStep) else self._consume())
            await state.wait(lambda: log.committed == len(log.records))
            await self._worker.unload()
            if log.is_complete:  # one that has ended early holds up nobody: those before it may wait for that
                await state.wait(lambda: predecessors <= state.finished or self._is_cut_off(predecessors))
        except asyncio.CancelledError:
            state.emit(StepStopped(self.name, log.committed_rows, self._alone + len(self._in_flight)))
            raise
        except Exception as error:
            await self._wind_up(error)
            if isinstance(error, ModelUnavailableError):
                raise self._build_end(error) from error
            raise
        finally:
            self._close()
        if log.is_complete and self.name in state.repaired and predecessors <= state.finished:
            self.is_finished = True
            state.finished.add(self.name)
            state.emit(self._describe_end())
        else:
            keeps_answers = self._worker.waits_for_calls
            state.emit(StepStopped(self.name, log.committed_rows, self._given_up, keeps_answers))
        state.ended.add(self.name)
        state.notify()

    def _close(self) -> None:
        for each in self._in_flight:
            each.output.cancel()
        self._reader.close()
        self._worker.close()

    async def _wind_up(self, error: Exception) -> None:
        """Stop the run, and let calls that are on the wire be answered and kept: they're paid for."""
        self._state.request_stop(f"{type(error).__name__} in step `{self.name}`")
        if self._worker.waits_for_calls:
            await self._let_end()
        if not self._in_flight:
            await self._worker.unload()

    def _build_end(self, error: ModelUnavailableError) -> StepProcessError:
        """The error of a step whose model can't be used."""
        rows = self._log.rows - count_failed_rows(self._log.records)
        return StepProcessError(
            f"Step `{self.name}` can't go on, with {rows} rows done: {error} What was answered is kept; start the same "
            "run again when it's mended, and it goes on from there.",
            step=self.name,
            endpoint=error.endpoint,
            kind=error.kind,
            rows=rows,
        )

    def _is_cut_off(self, predecessors: set[str]) -> bool:
        """Whether a predecessor won't finish, since it has ended or a stop is on; steps finish in the graph's order."""
        if predecessors & self._state.ended - self._state.finished:
            return True
        return self._state.is_stopping and not all(
            name in self._state.repaired and self._state.logs[name].is_complete for name in predecessors
        )

    def _describe_end(self) -> StepFinished:
        records, started_at = self._log.records, self._worker.started_at
        return StepFinished(
            step=self.name,
            rows=self._log.rows,
            batches_computed=self.computed,
            batches_reused=len(records) - min(self.computed, len(records)),
            rows_failed=sum(record.failed_rows for record in records),
            duration_s=time.monotonic() - started_at if started_at is not None else 0.0,
            usage=None if is_unused(self.tally.total) else self.tally.total,
        )

    def waiting_rows(self, predecessor: str) -> int:
        """How many of a predecessor's rows wait for the step; none where it needs no more, or others don't come."""
        if self._log.is_complete or self.name in self._state.ended or self._has_lost_input():
            return 0
        arrived = self._state.logs[predecessor].rows - self._rows_fed.get(predecessor, 0)
        return arrived + (self._buffer.waiting_rows(predecessor) if self._buffer else 0)

    @property
    def wanted_rows(self) -> int:
        """Rows of a predecessor that the step needs for a batch."""
        return int(getattr(self.step, "input_batch_size", 0) or 0)

    def _has_room(self) -> bool:
        return has_room(self.name, self.consumers, self._state)

    async def _repair(self) -> None:
        """Compute again, in their place, committed batches that failed or whose inputs changed."""
        state = self._state
        predecessors = {name: state.logs[name].records for name in self._dag.predecessors(self.name)}
        usable = usable_batches(self.name, self._log.records, predecessors)
        if usable < len(self._log.records):
            await self._drop(usable)
        retry = state.options.retry_failed and not self.step.is_generator
        for record, plan in iter_repairs(list(self._log.records), predecessors, retry_failed=retry):
            if state.is_stopping or self._given_up:
                break
            if not (plan.is_aligned or self.step.is_global):
                # Branches gave other numbers of rows than before: from here on rows are paired anew.
                await self._take_repairs(room_for_one=False)
                await self._commit_again()
                await self._drop(record.seq_no)
                break
            self._begin(plan, record.seq_no, record)
            await self._take_repairs(room_for_one=True)
        await self._take_repairs(room_for_one=False)
        await self._commit_again()
        if state.is_stopping or self._given_up:
            return
        self._log.reload()
        state.repaired.add(self.name)
        state.notify()

    async def _take_repairs(self, *, room_for_one: bool) -> None:
        """Put batches that are being computed again in their place, in order, until all are or there's room for more."""
        while self._in_flight:
            first = self._in_flight[0]
            await self._state.wait(lambda: first.output.done() or (room_for_one and self._may_begin()))  # noqa: B023  (awaited before the next turn)
            if not first.output.done():
                return
            try:
                output = first.output.result()
            except CallsStopped:
                await self._give_up()
                return
            self._in_flight.popleft()
            assert first.before is not None  # noqa: S101  (for the type checker)
            await self._put_again(first.plan, first.before, output)

    async def _give_up(self) -> None:
        """Leave the batches whose calls aren't made any more, when those that were made are answered and kept.

        Raises:
            StepRunError: one of them failed, and not only because of a stop.
        """
        for error in await self._let_end():
            raise error

    async def _let_end(self) -> list[Exception]:
        """Wait for the batches that are being computed, and leave them; give what failed them."""
        ends = await asyncio.gather(*(each.output for each in self._in_flight), return_exceptions=True)
        self._given_up += len(self._in_flight)
        self._in_flight.clear()
        return [end for end in ends if isinstance(end, Exception)]

    async def _drop(self, count: int) -> None:
        """Forget all but the first `count` committed batches; what follows them is computed anew."""
        self._state.check_lease()
        await self._worker.thread.submit(self._log.store.truncate, count)
        self._log.reload()
        self._worker.forget_calls()

    async def _put_again(self, plan: InputPlan, record: BatchRecord, output: Output) -> None:
        """Put another version of a committed batch in its place; a part is written once for all of its batches."""
        if self._again and (record.part != self._again[0].record.part or self._is_commit_due()):
            await self._commit_again()
        store = self._log.store
        before = await self._worker.thread.submit(store.read, record.seq_no)
        is_changed = not holds_same_rows(output.table, before) or output.errors != (record.errors or {})
        revision = max(record.revision + 1, self._base_revision) if is_changed else record.revision
        again = replace(
            self._recorder.record(plan, record.seq_no, output),
            revision=revision,
            batch_routed_to=record.batch_routed_to,
            part=record.part,
        )
        self._again.append(Batch(again, output.table))
        self.computed += 1
        self._recorder.report(record.seq_no, output)

    def _is_commit_due(self) -> bool:
        return time.monotonic() - self._again_at > _COMMIT_AGAIN_S

    async def _commit_again(self) -> None:
        """Commit the batches of one part that were computed again; the part is written once for all of them."""
        if self._again:
            self._state.check_lease()
            await self._worker.thread.submit(self._log.store.replace, self._again)
            self._again = []
        self._again_at = time.monotonic()

    async def _generate(self) -> None:
        """Pull batches of a generator step."""
        state, log = self._state, self._log
        rows = await self._worker.open_source(log.rows)
        while not log.is_complete:
            await state.wait(lambda: state.is_stopping or self._has_room())
            if state.is_stopping:
                return
            self._alone = 1
            try:
                made = await self._worker.pull(rows)
            except CallsStopped:
                self._given_up = 1
                return
            self._alone = 0
            seq_no = len(log.records)
            if made is None:
                if not log.rows:
                    state.emit(StepWarning(self.name, "gave no rows at all; the steps behind it get none"))
                made = (Output(EMPTY_TABLE, {}), True)
            output, last_batch = made
            self._recorder.report(seq_no, output)
            limit = state.options.max_generator_batches
            last_batch = last_batch or (limit is not None and seq_no + 1 >= limit)
            self._append(self._recorder.record(InputPlan({}, {}, last_batch), seq_no, output), output.table)

    async def _consume(self) -> None:
        """Take input as it comes, keep as many batches in flight as there are replicas, hand outputs on in order."""
        state, log = self._state, self._log
        self._buffer, self._told_of = build_buffer(self._dag, self.name)
        self._fed = dict.fromkeys(self._told_of, 0)
        self._feed()
        for record in log.records:
            self._buffer.skip(record)
        while not log.is_complete:
            self._feed()
            await self._begin_batches()
            if self._in_flight and self._in_flight[0].output.done():
                done = self._in_flight[0]
                try:
                    output = done.output.result()
                except CallsStopped:
                    await self._give_up()
                    return
                self._in_flight.popleft()
                self._reader.mark_taken(done.plan)
                self._recorder.report(done.seq_no, output)
                self._append(self._recorder.record(done.plan, done.seq_no, output), output.table)
                continue
            if not self._in_flight and (state.is_stopping or self._is_starved()):
                return
            can_begin = self._may_begin() and self._has_room()
            await state.wait(lambda: self._has_news(could_begin=can_begin))  # noqa: B023  (awaited before the next turn)

    def _is_starved(self) -> bool:
        """Whether the step waits for rows that don't come, since a step before it has ended early."""
        ended, logs = self._state.ended, {name: self._state.logs[name] for name in self._told_of}
        return (
            any(name in ended and not log.is_complete for name, log in logs.items())
            and all(name in ended or log.is_complete for name, log in logs.items())
            and all(self._fed[name] >= len(log.records) for name, log in logs.items())
            and self._has_room()
        )

    def _has_lost_input(self) -> bool:
        """Whether a step before it has ended early."""
        logs = self._state.logs
        return any(name in self._state.ended and not logs[name].is_complete for name in self._told_of)

    def _has_news(self, *, could_begin: bool) -> bool:
        if self._in_flight:
            if self._in_flight[0].output.done():
                return True
        elif self._state.is_stopping or self._is_starved():
            return True
        if self._state.is_stopping:
            return False
        if not could_begin:
            return self._may_begin() and self._has_room()
        return any(self._fed[name] < len(self._state.logs[name].records) for name in self._told_of)

    def _feed(self) -> None:
        assert self._buffer is not None  # noqa: S101  (for the type checker)
        for name in self._told_of:
            log = self._state.logs[name]
            for record in log.records[self._fed[name] :]:
                self._buffer.add(name, record)
            self._fed[name], self._rows_fed[name] = len(log.records), log.rows

    async def _begin_batches(self) -> None:
        assert self._buffer is not None  # noqa: S101  (for the type checker)
        while not self._state.is_stopping and self._may_begin() and self._has_room():
            plan = self._buffer.next_plan()
            if plan is None:
                return
            seq_no = len(self._log.records) + len(self._in_flight)
            self._begin(plan, seq_no)
            self._state.notify()

    def _begin(self, plan: InputPlan, seq_no: int, before: BatchRecord | None = None) -> None:
        task = asyncio.ensure_future(self._worker.compute(plan, seq_no, before))
        task.add_done_callback(lambda _: self._state.notify())
        self._in_flight.append(_InFlight(plan, seq_no, task, before))

    def _may_begin(self) -> bool:
        return self._worker.may_begin(len(self._in_flight), sum(each.plan.size for each in self._in_flight))

    def _append(self, record: BatchRecord, table: pa.Table) -> None:
        self._log.append(Batch(record, table))
        self.computed += 1
        self._state.notify()
