"""The record that travels between two steps: some rows, and where they came from."""

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Rows = list[Row]


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
class Batch:
    """One output batch of a step: its rows, and all that a resume has to know of it.

    A batch is a value: it's never changed after it was made. A recomputed batch is another `Batch` with the same
    `seq_no` and a higher `revision`.

    Attributes:
        step_name: the step that made it.
        seq_no: its number among the step's batches, from 0 without gaps.
        rows: the rows, in order.
        last_batch: whether the step makes no further batch.
        created_from: predecessor name -> what was taken from each of its batches, in order.
        batch_routed_to: successors that a routing function chose; empty where all get it.
        revision: 0 when first made; higher each time it was recomputed.
        errors: index of a failed row in `rows` -> what went wrong.
    """

    step_name: str
    seq_no: int
    rows: Rows
    last_batch: bool = False
    created_from: dict[str, list[Source]] = field(default_factory=dict)
    batch_routed_to: list[str] = field(default_factory=list)
    revision: int = 0
    errors: dict[int, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.rows)
