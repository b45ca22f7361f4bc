"""A step's rows, read batch by batch."""

from collections.abc import Iterator

import pyarrow as pa

from distilabel_dagster.batch import Rows
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import table_rows


class BatchStream(Iterator[Rows]):
    """The batches of a complete step, in order, as lists of rows; read as they're asked for.

    Annotate an asset's input with it to go through more rows than fit into memory.

    Args:
        store: the step's committed batches, opened.
    """

    def __init__(self, store: StepStore) -> None:
        self._store = store
        self._next = 0

    def __iter__(self) -> "BatchStream":
        return self

    def __next__(self) -> Rows:
        while self._next < len(self._store.records):
            seq_no = self._next
            self._next += 1
            if self._store.records[seq_no].size:
                return table_rows(self._store.read(seq_no))
        raise StopIteration

    @property
    def row_count(self) -> int:
        """Rows of all batches."""
        return sum(record.size for record in self._store.records)

    def read_table(self) -> pa.Table:
        """Read all rows at once."""
        return self._store.read_all()
