"""Rows cut into the batches that a generator step yields."""

from collections.abc import Iterable

from distilabel_dagster.batch import Row, Rows
from distilabel_dagster.steps.step import DEFAULT_BATCH_SIZE, GeneratorStepOutput


def iter_batches(rows: Iterable[Row], batch_size: int | None) -> GeneratorStepOutput:
    """Yield `(rows, last_batch)` with exactly one `last_batch`, at the end; no rows give one empty last batch.

    A batch is held back until the next row is known, so at most `batch_size + 1` rows are in memory.

    Args:
        rows: read lazily.
        batch_size: rows per batch; None for the default.
    """
    size = batch_size or DEFAULT_BATCH_SIZE
    batch: Rows = []
    for row in rows:
        if len(batch) == size:
            yield batch, False
            batch = []
        batch.append(row)
    yield batch, True
