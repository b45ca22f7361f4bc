"""Rows cut into the batches that a generator step yields."""

from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import TypeAlias

import pyarrow as pa

from distilabel_dagster.batch import Row, Rows
from distilabel_dagster.cache.foreign_tables import widen_for_rows
from distilabel_dagster.cache.tables import EMPTY_TABLE
from distilabel_dagster.steps.step import DEFAULT_BATCH_SIZE, GeneratorStepOutput, GeneratorTableOutput

Piece: TypeAlias = pa.Table | Rows
"""Some rows: as a table, or as they are."""


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


def make_piece(table: pa.Table) -> Piece:
    """Give a table that stands for the given one's rows, or these where they're the cheaper way.

    Raises:
        ValueError, OverflowError, pa.ArrowException: a value isn't one in Python, as in `to_pylist`.
    """
    widened = widen_for_rows(table)
    return table.to_pylist() if widened is None else widened


def iter_table_batches(
    pieces: Iterable[Piece], batch_size: int | None, most: int | None = None
) -> GeneratorTableOutput:
    """Yield what `iter_batches` yields of the pieces' rows, as tables where all pieces of a batch are alike.

    Args:
        pieces: read lazily; a batch is held back until the next row is known.
        batch_size: rows per batch; None for the default.
        most: how many rows to give; None for all.
    """
    size = batch_size or DEFAULT_BATCH_SIZE
    waiting = _Waiting()
    left = most
    unread = iter(pieces)
    while left != 0 and (piece := next(unread, None)) is not None:
        piece = piece[:left]
        left = None if left is None else left - len(piece)
        waiting.add(piece)
        while waiting.count > size:
            yield waiting.take(size), False
    yield waiting.take(waiting.count), True


class _Waiting:
    """Pieces that aren't in a batch yet, in order."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._start = 0
        self.count = 0

    def add(self, piece: Piece) -> None:
        """Take a piece in."""
        if len(piece):
            self._pieces.append(piece)
            self.count += len(piece)

    def take(self, count: int) -> Piece:
        """Give the next rows; so many are there."""
        self.count -= count
        taken = []
        while count:
            first = self._pieces[0]
            stop = min(self._start + count, len(first))
            taken.append(first[self._start : stop])
            count -= stop - self._start
            self._start = stop
            if stop == len(first):
                self._pieces.popleft()
                self._start = 0
        return _unite(taken)


def _unite(pieces: list[Piece]) -> Piece:
    """Put pieces together; those that aren't tables of one schema as rows."""
    tables = [piece for piece in pieces if isinstance(piece, pa.Table)]
    if len(tables) == len(pieces) and all(each.schema.equals(tables[0].schema) for each in tables):
        return pa.concat_tables(tables) if tables else EMPTY_TABLE
    return list(
        chain.from_iterable(piece.to_pylist() if isinstance(piece, pa.Table) else piece for piece in pieces)
    )
