"""What travels between two steps: batches of rows, and the record of where each came from."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
Rows = list[Row]
DIGEST_BYTES = 8
"""What a batch's record keeps of the digest of each request to a model: enough to tell equal requests of a step."""


@dataclass(frozen=True, slots=True)
class Source:
    """The rows that a batch took from one batch of a predecessor.

    Attributes:
        seq_no: number of the predecessor's batch.
        size: rows of that batch when they were taken.
        rows_used: how many of its rows were taken; they follow on those that the batch before took.
        revision: revision of the predecessor's batch that was seen.
    """

    seq_no: int
    size: int
    rows_used: int
    revision: int = 0


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch without its rows.

    Attributes:
        seq_no: its number among the step's batches.
        size: number of rows.
        last_batch: whether the step makes no further batch.
        created_from: predecessor -> what was taken of its batches, in order.
        batch_routed_to: successors that get it; empty where all do.
        revision: raised each time that the batch was computed anew with another result.
        errors: index of a failed row -> what went wrong.
        requests: what a model was asked for the batch, in order: the first 8 bytes of each request's digest.
        occurrences: index of a request -> how often the step had made an equal one before; left out where it's 0.
        part: number of the part that holds it; 0 while it isn't committed.
        row_offset: rows before it in that part.
        schema: the batch's own schema, where it's narrower than its part's.
    """

    seq_no: int
    size: int
    last_batch: bool = False
    created_from: dict[str, list[Source]] | None = None
    batch_routed_to: tuple[str, ...] = ()
    revision: int = 0
    errors: dict[int, str] | None = None
    requests: bytes = b""
    occurrences: dict[int, int] | None = None
    part: int = 0
    row_offset: int = 0
    schema: pa.Schema | None = None

    @property
    def sources(self) -> dict[str, list[Source]]:
        """`created_from`, empty for a generator's batch."""
        return self.created_from or {}

    @property
    def failed_rows(self) -> int:
        """How many of its rows failed."""
        return len(self.errors or {})


@dataclass(frozen=True, slots=True)
class Batch:
    """One output batch of a step: its record and its rows as a table.

    A batch is a value, never changed after it was made. A recomputed batch is another `Batch` with the same `seq_no`
    and a higher `revision`.

    Attributes:
        record: what is known of it.
        table: its rows.
        size_bytes: what the rows take in memory.
    """

    record: BatchRecord
    table: pa.Table
    size_bytes: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # Once: Arrow goes through all columns for it, which takes longer than much that is done to a batch.
        object.__setattr__(self, "size_bytes", self.table.nbytes)
