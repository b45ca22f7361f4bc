"""One step's task in the event loop: repairs what no longer holds, takes input, calls the step, hands outputs on."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.tables import EMPTY_TABLE
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.events import RowsFailed, StepFinished, StepStarted, StepStopped, StepWarning
from distilabel_dagster.engine.resume import holds_same_rows, iter_repairs, usable_batches
from distilabel_dagster.engine.run_state import RunState
from distilabel_dagster.engine.step_buffer import InputPlan, StepBuffer
from distilabel_dagster.engine.wiring import build_buffer, choose_route
from distilabel_dagster.engine.worker import (
    Output,
    ReplicaPool,
    RowSource,
    ThreadWorker,
    load_step,
    process_batch,
    unload_step,
)
from distilabel_dagster.steps.step import BaseStep, GeneratorStep, Step

_COMMIT_AGAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class _InFlight:
    plan: InputPlan
    seq_no: int
    output: "asyncio.Task[Output]"


class StepRunner:
    """Runs one step of a stage to its end, or to where a stop finds it.

    Args:
        dag: the pipeline's graph.
        name: the step.
        state: what the steps of the run share.
        base_revision: revision of batches that are computed for the first time.
    """

    def __init__(self, dag: DAG, name: str, state: RunState, base_revision: int = 0) -> None:
        self.name = name
        self.step: BaseStep = dag.steps[name]
        self.consumers: list[StepRunner] = []
        self.computed = 0
        self._dag = dag
        self._state = state
        self._log = state.logs[name]
        self._base_revision = base_revision
        self._replicas = int(self.step.resources.replicas or 1)
        self._worker: ThreadWorker | None = None
        self._pool: ReplicaPool | None = None
        self._started_at: float | None = None
        self._is_loaded = False
        self._alone = 0
        self._buffer: StepBuffer | None = None
        self._told_of: list[str] = []
        self._fed: dict[str, int] = {}
        self._rows_fed: dict[str, int] = {}
        self._in_flight: deque[_InFlight] = deque()
        self.is_finished = False
        self._columns_checked = False
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
            await state.wait(lambda: state.is_stopping or predecessors <= state.repaired)
            if not state.is_stopping:
                await self._repair()
            if not log.is_complete and not state.is_stopping:
                await (self._generate() if isinstance(self.step, GeneratorStep) else self._consume())
            await state.wait(lambda: log.committed == len(log.records))
            await self._unload()
            await state.wait(lambda: predecessors <= state.finished or self._is_cut_off(predecessors))
        except asyncio.CancelledError:
            state.emit(StepStopped(self.name, log.committed_rows, self._alone + len(self._in_flight)))
            raise
        except Exception:
            if not self._in_flight:
                await self._unload()
            raise
        finally:
            self._close()
        if log.is_complete and self.name in state.repaired and predecessors <= state.finished:
            self.is_finished = True
            state.finished.add(self.name)
            state.emit(self._describe_end())
        else:
            state.emit(StepStopped(self.name, log.committed_rows, 0))
        state.notify()

    def _is_cut_off(self, predecessors: set[str]) -> bool:
        """Whether a stop keeps a predecessor from finishing; steps finish in the order of the graph."""
        return self._state.is_stopping and not all(
            name in self._state.repaired and self._state.logs[name].is_complete for name in predecessors
        )

    def _describe_end(self) -> StepFinished:
        records = self._log.records
        return StepFinished(
            step=self.name,
            rows=self._log.rows,
            batches_computed=self.computed,
            batches_reused=len(records) - min(self.computed, len(records)),
            rows_failed=sum(record.failed_rows for record in records),
            duration_s=time.monotonic() - self._started_at if self._started_at is not None else 0.0,
        )

    def waiting_rows(self, predecessor: str) -> int:
        """How many of a predecessor's rows wait for the step; none where it needs no more."""
        if self._log.is_complete:
            return 0
        arrived = self._state.logs[predecessor].rows - self._rows_fed.get(predecessor, 0)
        return arrived + (self._buffer.waiting_rows(predecessor) if self._buffer else 0)

    @property
    def wanted_rows(self) -> int:
        """Rows of a predecessor that the step needs for a batch."""
        return int(getattr(self.step, "input_batch_size", 0) or 0)

    def _has_room(self) -> bool:
        """Whether more may be made: not too much waits to be committed, nor to be taken by the nearest consumer.

        A consumer that waits for rows is never far behind, so what it waits for is always made: no two steps can
        wait for each other.
        """
        options = self._state.options
        if self._log.pending_bytes > options.max_pending_bytes:
            return False
        if not self.consumers:
            return True
        limit = max(options.max_rows_ahead, *(2 * consumer.wanted_rows for consumer in self.consumers))
        return min(consumer.waiting_rows(self.name) for consumer in self.consumers) <= limit

    async def _repair(self) -> None:
        """Compute again, in their place, committed batches that failed or whose inputs changed."""
        state = self._state
        predecessors = {name: state.logs[name].records for name in self._dag.predecessors(self.name)}
        usable = usable_batches(self.name, self._log.records, predecessors)
        if usable < len(self._log.records):
            await self._drop(usable)
        retry = state.options.retry_failed and not self.step.is_generator
        for record, plan in iter_repairs(list(self._log.records), predecessors, retry_failed=retry):
            if state.is_stopping:
                await self._commit_again()
                return
            if not (plan.is_aligned or self.step.is_global):
                # Branches gave other numbers of rows than before: from here on rows are paired anew.
                await self._commit_again()
                await self._drop(record.seq_no)
                break
            if self._again and (record.part != self._again[0].record.part or self._is_commit_due()):
                await self._commit_again()
            self._alone = 1
            await self._compute_again(plan, record)
            self._alone = 0
        await self._commit_again()
        self._log.reload()
        state.repaired.add(self.name)
        state.notify()

    async def _drop(self, count: int) -> None:
        """Forget all but the first `count` committed batches; what follows them is computed anew."""
        self._state.check_lease()
        await self._thread().submit(self._log.store.truncate, count)
        self._log.reload()

    async def _compute_again(self, plan: InputPlan, record: BatchRecord) -> None:
        """Put another version of a committed batch in its place."""
        store = self._log.store
        output = await self._compute(plan, record.seq_no)
        before = await self._thread().submit(store.read, record.seq_no)
        is_changed = not holds_same_rows(output.table, before) or output.errors != (record.errors or {})
        revision = max(record.revision + 1, self._base_revision) if is_changed else record.revision
        again = replace(
            self._record(plan, record.seq_no, output),
            revision=revision,
            batch_routed_to=record.batch_routed_to,
            part=record.part,
        )
        self._again.append(Batch(again, output.table))
        self.computed += 1
        self._report(record.seq_no, output)

    def _is_commit_due(self) -> bool:
        return time.monotonic() - self._again_at > _COMMIT_AGAIN_S

    async def _commit_again(self) -> None:
        """Commit the batches of one part that were computed again; the part is written once for all of them."""
        if self._again:
            self._state.check_lease()
            await self._thread().submit(self._log.store.replace, self._again)
            self._again = []
        self._again_at = time.monotonic()

    def _thread(self) -> ThreadWorker:
        if self._worker is None:
            self._worker = ThreadWorker(self.name)
        return self._worker

    async def _start(self) -> None:
        """Load the step, when it's needed for the first time."""
        if self._started_at is not None:
            return
        self._started_at = time.monotonic()
        if self._replicas > 1 and isinstance(self.step, Step):
            self._pool = ReplicaPool(self.step, self._replicas)
        else:
            await self._thread().submit(load_step, self.step)
            self._is_loaded = True
        self._state.emit(StepStarted(self.name, self._replicas))

    def _close(self) -> None:
        for each in self._in_flight:
            each.output.cancel()
        if self._pool is not None:
            self._pool.close()
        if self._worker is not None:
            if self._is_loaded:
                self._worker.post(unload_step, self.step)
            self._worker.close()

    async def _unload(self) -> None:
        """Give back what the step got, before the run goes on to the next stage or ends."""
        if self._pool is not None:
            await self._thread().submit(self._pool.finish)
        elif self._is_loaded:
            self._is_loaded = False
            await self._thread().submit(unload_step, self.step)

    async def _generate(self) -> None:
        """Pull batches of a generator step."""
        state, step, log = self._state, self.step, self._log
        assert isinstance(step, GeneratorStep)  # noqa: S101  (for the type checker)
        await self._start()
        rows = await self._thread().submit(RowSource, step, log.rows)
        while not log.is_complete:
            await state.wait(lambda: state.is_stopping or self._has_room())
            if state.is_stopping:
                return
            self._alone = 1
            made = await self._thread().submit(rows.pull)
            self._alone = 0
            seq_no = len(log.records)
            if made is None:
                if not log.rows:
                    state.emit(StepWarning(self.name, "gave no rows at all; the steps behind it get none"))
                made = (Output(EMPTY_TABLE, {}), True)
            output, last_batch = made
            self._report(seq_no, output)
            limit = state.options.max_generator_batches
            last_batch = last_batch or (limit is not None and seq_no + 1 >= limit)
            self._append(self._record(InputPlan({}, {}, last_batch), seq_no, output), output.table)

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
                done = self._in_flight.popleft()
                output = done.output.result()
                self._report(done.seq_no, output)
                self._append(self._record(done.plan, done.seq_no, output), output.table)
                continue
            if state.is_stopping and not self._in_flight:
                return
            can_begin = len(self._in_flight) < self._replicas and self._has_room()
            await state.wait(lambda: self._has_news(could_begin=can_begin))  # noqa: B023  (awaited before the next turn)

    def _has_news(self, *, could_begin: bool) -> bool:
        if self._in_flight:
            if self._in_flight[0].output.done():
                return True
        elif self._state.is_stopping:
            return True
        if self._state.is_stopping:
            return False
        if not could_begin:
            return len(self._in_flight) < self._replicas and self._has_room()
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
        while not self._state.is_stopping and len(self._in_flight) < self._replicas and self._has_room():
            plan = self._buffer.next_plan()
            if plan is None:
                return
            seq_no = len(self._log.records) + len(self._in_flight)
            task = asyncio.ensure_future(self._compute(plan, seq_no))
            task.add_done_callback(lambda _: self._state.notify())
            self._in_flight.append(_InFlight(plan, seq_no, task))
            self._state.notify()

    async def _compute(self, plan: InputPlan, seq_no: int) -> Output:
        """Read a batch's input and call the step with it."""
        if not plan.size:
            return Output(EMPTY_TABLE, {})
        await self._start()
        step = self.step
        assert isinstance(step, Step)  # noqa: S101  (for the type checker)
        on_error = self._state.options.on_error
        if self._pool is not None:
            return await self._pool.process(await self._thread().submit(self._read, plan), on_error, seq_no)
        output: Output = await self._thread().submit(
            lambda: process_batch(step, self._read(plan), on_error, seq_no)
        )
        return output

    def _read(self, plan: InputPlan) -> list[pa.Table]:
        return [self._state.logs[name].read_slices(slices) for name, slices in plan.slices.items()]

    def _record(self, plan: InputPlan, seq_no: int, output: Output) -> BatchRecord:
        routing = self._dag.routing.get(self.name)
        routed_to: list[str] = []
        if routing is not None and seq_no >= len(self._log.records):
            routed_to = choose_route(routing, self.name, self._dag.successors(self.name), seq_no)
        return BatchRecord(
            seq_no=seq_no,
            size=output.table.num_rows,
            last_batch=plan.last_batch,
            created_from=plan.created_from or None,
            batch_routed_to=tuple(routed_to),
            revision=self._base_revision,
            errors=output.errors or None,
        )

    def _append(self, record: BatchRecord, table: pa.Table) -> None:
        self._log.append(Batch(record, table))
        self.computed += 1
        self._state.notify()

    def _report(self, seq_no: int, output: Output) -> None:
        if output.errors:
            first = next(iter(output.errors.values()))
            self._state.emit(RowsFailed(self.name, seq_no, len(output.errors), first, output.trace))
        elif output.table.num_rows and not self._columns_checked:
            self._columns_checked = True
            self._check_columns(output.table)

    def _check_columns(self, table: pa.Table) -> None:
        """Say when a step doesn't make what it declares; steps behind it were allowed in because of that."""
        missing = [
            name
            for name, is_given in self.step.get_outputs().items()
            if is_given and name not in table.schema.names
        ]
        if missing:
            told, found = (
                ", ".join(f"`{name}`" for name in names) for names in (missing, table.schema.names)
            )
            self._state.emit(
                StepWarning(
                    self.name, f"declares the output {told}, but its rows have only the columns {found}"
                )
            )
