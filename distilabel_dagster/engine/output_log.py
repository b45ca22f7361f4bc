"""A step's outputs as the engine sees them: committed batches on disk, and those that are about to be."""

from collections import OrderedDict

import pyarrow as pa

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import EMPTY_TABLE, unite_schemas, widen_table
from distilabel_dagster.engine.step_buffer import Slice

_HOT_BYTES = 32 * 1024 * 1024


class OutputLog:
    """The batches of one step in order. `append` and `mark_committed` belong to the event loop, `read` to anyone.

    Batches that aren't committed are held in memory, and of the committed ones the latest few, so that a consumer
    that keeps up reads no file.
    """

    def __init__(self, store: StepStore) -> None:
        self.store = store
        self.records: list[BatchRecord] = list(store.records)
        self.rows = sum(record.size for record in self.records)
        self.pending: list[Batch] = []
        self.pending_bytes = 0
        self.pending_rows = 0
        self._hot: OrderedDict[int, pa.Table] = OrderedDict()
        self._hot_bytes = 0

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
        self.pending_bytes += batch.table.nbytes
        self.pending_rows += batch.record.size
        self._hot[batch.record.seq_no] = batch.table
        self._hot_bytes += batch.table.nbytes

    def mark_committed(self, count: int) -> None:
        """Note that the first `count` pending batches are on disk."""
        done, self.pending = self.pending[:count], self.pending[count:]
        self.pending_bytes -= sum(batch.table.nbytes for batch in done)
        self.pending_rows -= sum(batch.record.size for batch in done)
        first_pending = self.committed
        while self._hot_bytes > _HOT_BYTES and self._hot:
            seq_no = next(iter(self._hot))
            if seq_no >= first_pending:
                break
            self._hot_bytes -= self._hot.pop(seq_no).nbytes

    def reload(self) -> None:
        """Take the records from the store again, after batches were replaced there."""
        self.records = list(self.store.records)
        self.rows = sum(record.size for record in self.records)

    def read(self, seq_no: int, start: int, stop: int) -> pa.Table:
        """Read rows `start` to `stop` (excluded) of a batch."""
        table = self._hot.get(seq_no)
        if table is None:
            table = self.store.read(seq_no)
        return table.slice(start, stop - start)

    def read_slices(self, slices: list[Slice]) -> pa.Table:
        """Read rows of several batches together, as one table with the columns of all."""
        tables = [self.read(each.seq_no, each.start, each.stop) for each in slices]
        if len(tables) == 1:
            return tables[0]
        schema = unite_schemas([table.schema for table in tables], self.store.step_name)
        widened = [widen_table(table, schema, self.store.step_name) for table in tables]
        return pa.concat_tables(widened) if widened else EMPTY_TABLE
