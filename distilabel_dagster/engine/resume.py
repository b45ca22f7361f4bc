"""Where to go on: which committed batches still hold, and which are to be computed again. Pure functions.

A batch holds if each batch that it was made from holds, at the revision that it saw, and no row of it failed. What
doesn't hold is computed again in its place; all else stays.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from distilabel_dagster.batch import BatchRecord, Source
from distilabel_dagster.engine.step_buffer import InputPlan, Slice


@dataclass(slots=True)
class _Taken:
    """How many rows of each batch of one predecessor were taken, when batches were made and by today's sizes."""

    before: dict[int, int] = field(default_factory=dict)
    now: dict[int, int] = field(default_factory=dict)


def usable_batches(records: list[BatchRecord], predecessor_batches: Mapping[str, int]) -> int:
    """Count the leading batches whose inputs are all committed.

    Behind a predecessor that lost batches (a damaged part was set aside) the rest can't be checked, so it's computed
    again.

    Args:
        records: a step's committed batches.
        predecessor_batches: predecessor -> number of its committed batches.
    """
    for count, record in enumerate(records):
        for name, sources in record.sources.items():
            if any(source.seq_no >= predecessor_batches[name] for source in sources):
                return count
    return len(records)


def find_stale(
    records: list[BatchRecord],
    predecessors: Mapping[str, list[BatchRecord]],
    stale: Mapping[str, set[int]],
    *,
    retry_failed: bool,
) -> set[int]:
    """Find the committed batches of a step that no longer hold.

    Args:
        records: its committed batches.
        predecessors: predecessor -> its committed batches.
        stale: predecessor -> its batches that don't hold; they may change.
        retry_failed: whether batches with failed rows are to be tried again.

    Returns:
        Their numbers. Those made of a stale batch are among them, though it may turn out unchanged.
    """
    found = set()
    for record in records:
        is_outdated = any(
            source.seq_no in stale[name] or predecessors[name][source.seq_no].revision != source.revision
            for name, sources in record.sources.items()
            for source in sources
        )
        if is_outdated or (retry_failed and record.errors):
            found.add(record.seq_no)
    return found


def iter_repairs(
    records: list[BatchRecord], predecessors: Mapping[str, list[BatchRecord]], *, retry_failed: bool
) -> Iterator[tuple[BatchRecord, InputPlan]]:
    """Go through a step's batches that are to be computed again, in order, each with its input.

    A predecessor's batch may have another number of rows than it had. Then the batch that took its last rows takes
    all up to its new end, so that no row is left out or taken twice.

    Args:
        records: the step's committed batches.
        predecessors: predecessor -> its batches, all of which hold by now.
        retry_failed: whether batches with failed rows are among them.
    """
    taken = {name: _Taken() for name in predecessors}
    for record in records:
        slices: dict[str, list[Slice]] = {}
        created_from: dict[str, list[Source]] = {}
        is_due = retry_failed and bool(record.errors)
        for name, sources in record.sources.items():
            slices[name], created_from[name] = [], []
            for source in sources:
                current = predecessors[name][source.seq_no]
                piece = _place(source, current, taken[name])
                slices[name].append(piece)
                used = piece.stop - piece.start
                created_from[name].append(Source(source.seq_no, current.size, used, current.revision))
                is_due = is_due or current.revision != source.revision
        if is_due:
            yield record, InputPlan(slices, created_from, record.last_batch)


def _place(source: Source, current: BatchRecord, taken: _Taken) -> Slice:
    """Which rows of the batch as it is now stand for those that were taken of it."""
    before = taken.before.get(source.seq_no, 0) + source.rows_used
    taken.before[source.seq_no] = before
    start = taken.now.get(source.seq_no, 0)
    stop = current.size if before >= source.size else max(start, min(before, current.size))
    taken.now[source.seq_no] = stop
    return Slice(source.seq_no, start, stop)
