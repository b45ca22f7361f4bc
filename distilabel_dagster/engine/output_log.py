"""A step's outputs as the engine sees them: committed batches on disk, and those that are about to be."""

from collections import OrderedDict
from typing import Final

import pyarrow as pa

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import EMPTY_TABLE, unite_schemas, widen_table
from distilabel_dagster.engine.step_buffer import InputPlan, Slice

HELD_BYTES: Final = 32 * 1024 * 1024
"""Of one step's committed rows that others have still to take, what is held in memory."""


class OutputLog:
    """The batches of one step in order. `append` and `mark_committed` belong to the event loop, `read` to anyone.

    Batches that aren't committed are held in memory, and of the committed ones those that a step of the run has still
    to take, up to a limit: a step that keeps up reads no file, and what nobody needs any more takes no room.
    """

    def __init__(self, store: StepStore) -> None:
        self.store = store
        self.records: list[BatchRecord] = list(store.records)
        self.rows = sum(record.size for record in self.records)
        self.pending: list[Batch] = []
        self.pending_bytes = 0
        self.pending_rows = 0
        self._readers: dict[str, int] = {}
        self._held: OrderedDict[int, Batch] = OrderedDict()
        self._held_bytes = 0
        self._bytes_per_row = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether the last batch was made; it may not be committed yet."""
        return bool(self.records) and self.records[-1].last_batch

    @property
    def committed(self) -> int:
        """Number of committed batches."""
        return len(self.records) - len(self.pending)

    @property
    def committed_rows(self) -> int:
        """Number of committed rows."""
        return self.rows - self.pending_rows

    def append(self, batch: Batch) -> None:
        """Add the next batch; it can be read at once, and is to be committed."""
        self.records.append(batch.record)
        self.rows += batch.record.size
        self.pending.append(batch)
        self.pending_bytes += batch.size_bytes
        self.pending_rows += batch.record.size
        self._held[batch.record.seq_no] = batch
        self._held_bytes += batch.size_bytes
        if batch.record.size:
            self._bytes_per_row = batch.size_bytes / batch.record.size

    def mark_committed(self, count: int) -> None:
        """Note that the first `count` pending batches are on disk."""
        done, self.pending = self.pending[:count], self.pending[count:]
        self.pending_bytes -= sum(batch.size_bytes for batch in done)
        self.pending_rows -= sum(batch.record.size for batch in done)
        # The store has records of its own, which say where the rows are: one of each is enough.
        start, stop = self.committed - len(done), self.committed
        self.records[start:stop] = self.store.records[start:stop]
        self._let_go()

    @property
    def held_bytes(self) -> int:
        """Bytes of the rows that are in memory."""
        return self._held_bytes

    @property
    def bytes_per_row(self) -> float:
        """Bytes of a row in memory, as in the latest batch that has any."""
        return self._bytes_per_row

    def add_reader(self, step: str) -> None:
        """Hold what `step` has still to take, from the first batch on."""
        self._readers[step] = 0

    def mark_taken(self, step: str, seq_no: int) -> None:
        """Note that a reader takes nothing of the batches before `seq_no` any more."""
        self._readers[step] = seq_no
        self._let_go()

    def remove_reader(self, step: str) -> None:
        """Note that `step` takes nothing any more; safe to repeat, and for a step that's no reader."""
        self._readers.pop(step, None)
        self._let_go()
        if not self._readers:
            self.store.close_parts()

    def _let_go(self) -> None:
        """Let go of committed batches that all readers have taken, and of the oldest beyond the limit."""
        first_needed = min(self._readers.values(), default=self.committed)
        while self._held:
            seq_no = next(iter(self._held))
            is_needed = seq_no >= first_needed and self._held_bytes <= HELD_BYTES
            if is_needed or seq_no >= self.committed:
                break
            self._held_bytes -= self._held.pop(seq_no).size_bytes

    def reload(self) -> None:
        """Take the records from the store again, after batches were replaced there."""
        self.records = list(self.store.records)
        self.rows = sum(record.size for record in self.records)

    def read(self, seq_no: int, start: int, stop: int) -> pa.Table:
        """Read rows `start` to `stop` (excluded) of a batch."""
        held = self._held.get(seq_no)
        table = held.table if held is not None else self.store.read(seq_no)
        return table.slice(start, stop - start)

    def read_slices(self, slices: list[Slice]) -> pa.Table:
        """Read rows of several batches together, as one table with the columns of all."""
        tables = [self.read(each.seq_no, each.start, each.stop) for each in slices]
        if len(tables) == 1:
            return tables[0]
        schema = unite_schemas([table.schema for table in tables], self.store.step_name)
        widened = [widen_table(table, schema, self.store.step_name) for table in tables]
        return pa.concat_tables(widened) if widened else EMPTY_TABLE


class InputReader:
    """Tells the logs that a step reads how far it is, from its beginning on.

    Args:
        step: the step.
        logs: predecessor -> its log.
        takes_all_at_once: whether it takes nothing before all rows are there. There may be any number of them, so none
            are held for it.
    """

    def __init__(self, step: str, logs: dict[str, OutputLog], *, takes_all_at_once: bool) -> None:
        self._step = step
        self._logs = logs
        self._is_known = not takes_all_at_once
        for log in logs.values() if self._is_known else ():
            log.add_reader(step)

    def mark_taken(self, plan: InputPlan) -> None:
        """Note that a batch was computed; so were those before it."""
        for name, slices in plan.slices.items():
            if slices and self._is_known:
                self._logs[name].mark_taken(self._step, slices[-1].seq_no)

    def close(self) -> None:
        """Note that the step reads no more; safe to repeat."""
        for log in self._logs.values():
            log.remove_reader(self._step)
