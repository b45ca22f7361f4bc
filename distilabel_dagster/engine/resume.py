"""Where to go on: which committed batches still hold, and which are to be computed again. Pure functions.

A batch holds if each batch that it was made from holds, at the revision that it saw, and no row of it failed. What
doesn't hold is computed again in its place; all else stays.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from distilabel_dagster.batch import BatchRecord, Source
from distilabel_dagster.cache.tables import unite_schemas, widen_table
from distilabel_dagster.engine.step_buffer import InputPlan, Slice
from distilabel_dagster.errors import ColumnTypeError


@dataclass(slots=True)
class _Taken:
    """How many rows of each batch of one predecessor were taken, when batches were made and by today's sizes."""

    before: dict[int, int] = field(default_factory=dict)
    now: dict[int, int] = field(default_factory=dict)


def usable_batches(
    step: str, records: list[BatchRecord], predecessors: Mapping[str, list[BatchRecord]]
) -> int:
    """Count the leading batches whose inputs are all there.

    Behind a predecessor that lost batches (a damaged part was set aside) the rest can't be checked, so it's computed
    again. A last batch is usable only if its predecessors end where it says that they do.

    Args:
        step: the step's name.
        records: its committed batches.
        predecessors: predecessor -> its batches that can be used.
    """
    reached = dict.fromkeys(predecessors, -1)
    for count, record in enumerate(records):
        if record.sources.keys() - reached.keys():  # a footer that isn't this pipeline's
            return count
        for name, sources in record.sources.items():
            reached[name] = max([reached[name], *(source.seq_no for source in sources)])
        if any(reached[name] >= len(found) for name, found in predecessors.items()):
            return count
        ends = (_ends_by(found, step, reached[name]) for name, found in predecessors.items())
        if record.last_batch and not all(ends):
            return count
    return len(records)


def _ends_by(records: list[BatchRecord], step: str, seq_no: int) -> bool:
    """Whether a predecessor is complete, and gives `step` nothing behind batch `seq_no`."""
    if not records or not records[-1].last_batch:
        return False
    behind = itertools.takewhile(lambda record: record.seq_no > seq_no, reversed(records))
    return not any(
        (record.size or any(record.sources.values()))
        and (not record.batch_routed_to or step in record.batch_routed_to)
        for record in behind
    )


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


def holds_same_rows(table: pa.Table, before: pa.Table) -> bool:
    """Whether two versions of a batch hold the same rows; a column of Nones has no type of its own.

    Args:
        table: the batch as it was computed now.
        before: as it was read from the cache, where it may have got the types of the batches around it.
    """
    if table.schema.names != before.schema.names or table.num_rows != before.num_rows:
        return False
    try:
        is_wider = unite_schemas([before.schema, table.schema], "").equals(before.schema)
        return is_wider and _are_same_tables(widen_table(table, before.schema, ""), before)
    except ColumnTypeError:
        return False


def _are_same_tables(one: pa.Table, other: pa.Table) -> bool:
    """Whether tables of one schema are equal; unlike in Arrow, NaN equals NaN, also within lists and dicts."""
    pairs = zip(one.columns, other.columns, strict=True)
    return bool(one.equals(other)) or all(
        _are_same(column.combine_chunks(), before.combine_chunks()) for column, before in pairs
    )


def _are_same(one: pa.Array, other: pa.Array) -> bool:
    if one.equals(other):
        return True
    if len(one) != len(other) or not one.is_null().equals(other.is_null()):
        return False
    if pa.types.is_list(one.type):
        has_same_lengths = one.value_lengths().equals(other.value_lengths())
        return has_same_lengths and _are_same(one.flatten(), other.flatten())
    if pa.types.is_struct(one.type):
        return all(map(_are_same, one.flatten(), other.flatten()))
    if not pa.types.is_floating(one.type):
        return False
    import pyarrow.compute as pc  # takes 40 ms to import, and is for rows that are computed again

    numbers, others = one.drop_null().cast(pa.float64()), other.drop_null().cast(pa.float64())
    is_nan = pc.is_nan(numbers)
    return bool(is_nan.equals(pc.is_nan(others))) and bool(
        pc.if_else(is_nan, 0.0, numbers).equals(pc.if_else(is_nan, 0.0, others))
    )


def _place(source: Source, current: BatchRecord, taken: _Taken) -> Slice:
    """Which rows of the batch as it is now stand for those that were taken of it."""
    before = taken.before.get(source.seq_no, 0) + source.rows_used
    taken.before[source.seq_no] = before
    start = taken.now.get(source.seq_no, 0)
    stop = current.size if before >= source.size else max(start, min(before, current.size))
    taken.now[source.seq_no] = stop
    return Slice(source.seq_no, start, stop)
