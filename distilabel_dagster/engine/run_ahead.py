"""How far a step may be ahead of those behind it, so that memory doesn't grow with the dataset."""

from collections.abc import Sequence
from typing import Protocol

from distilabel_dagster.engine.output_log import HELD_BYTES
from distilabel_dagster.engine.run_state import RunState


class Consumer(Protocol):
    """A step that takes the rows of another in the same stage."""

    @property
    def wanted_rows(self) -> int:
        """Rows of a predecessor that it needs for a batch."""
        ...

    def waiting_rows(self, predecessor: str) -> int:
        """How many of a predecessor's rows wait for it."""
        ...


def has_room(step: str, consumers: Sequence[Consumer], state: RunState) -> bool:
    """Tell whether a step may make more.

    Not while too much waits to be committed: the committer is at work then, whatever the steps do. Nor while the consumer
    nearest to it has much to take, in rows or in bytes, or the steps together hold too much. But a consumer that lacks
    rows for its next batches gets them in any case: no two steps can wait for each other.

    Args:
        step: the step that would make them.
        consumers: the steps of its stage that take its rows.
        state: what the steps of the run share.
    """
    options = state.options
    if state.pending_bytes > options.max_pending_bytes:
        return False
    if not consumers:
        return True
    nearest = min(consumer.waiting_rows(step) for consumer in consumers)
    if nearest <= max(2 * consumer.wanted_rows for consumer in consumers):
        return True
    # What it would still find in memory: beyond that it would have to read files.
    is_at_hand = nearest * state.logs[step].bytes_per_row <= HELD_BYTES
    return nearest <= options.max_rows_ahead and is_at_hand and state.held_bytes <= options.max_held_bytes
