"""Tables that weren't made of rows, as the tables that their rows would make.

A file says that a column is of 32-bit integers, has a dictionary, or could hold text where it holds nothing; rows say
none of that. What's kept mustn't tell whether a batch came as rows or as a table, so a table is given the types that
`build_table` finds in its rows, without making these. Columns of types that aren't known here go through Python values.
"""

import functools
from typing import Any, Final

import pyarrow as pa

from distilabel_dagster.cache.tables import (
    EMPTY_TABLE,
    SCALARS,
    build_array,
    build_table,
    check_names,
    table_rows,
)
from distilabel_dagster.errors import StepOutputError

_TARGETS: Final = {
    **{each.id: each for each in (pa.null(), pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary())},
    **dict.fromkeys((each.id for each in (pa.int8(), pa.int16(), pa.int32())), pa.int64()),
    **dict.fromkeys((each.id for each in (pa.uint8(), pa.uint16(), pa.uint32())), pa.int64()),
    pa.float32().id: pa.float64(),
    pa.large_string().id: pa.string(),
    pa.large_binary().id: pa.binary(),
}
"""Type -> what Arrow makes of its values as Python values: a type that has all of them."""

_MOST_LEVELS: Final = 20
_MOST_ITEMS: Final = 2**31 - 1
_MOST_SLACK_BYTES: Final = 4 * 1024 * 1024
"""What a table may keep in memory beside its own rows."""


def check_table(made: Any, source: pa.Table, step: str) -> pa.Table:
    """Give a table that a step made of another one as `build_table` would have made it of its rows.

    Args:
        made: what the step gave.
        source: what it was given.
        step: its name, for messages.

    Raises:
        ColumnTypeError: a column holds what rows can't.
        StepOutputError: it's no table, or has two columns of one name, or one whose name can't be kept.
    """
    if not isinstance(made, pa.Table):
        raise StepOutputError(
            f"Step `{step}`: `process_table()` gave a {type(made).__name__}, expected a `pyarrow.Table` or None.",
            step=step,
        )
    names = made.column_names
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise StepOutputError(
            f"Step `{step}`: `process_table()` gave a table with two columns `{double}`. Name each column once.",
            step=step,
        )
    check_names(names, step)
    if not made.num_rows:
        return EMPTY_TABLE
    if {*made.schema.types} <= {*source.schema.types, *SCALARS.values(), pa.int64(), pa.null()}:
        return made.replace_schema_metadata(None)
    return build_table(table_rows(made), step)


def build_table_as_of_rows(table: pa.Table, step: str) -> pa.Table:
    """Give the table that `build_table` makes of a table's rows; it may share memory with it, but not much more than it needs.

    Args:
        table: any table.
        step: the step that gave it, for messages.

    Raises:
        ColumnTypeError, StepOutputError: as `build_table`.
        ValueError, OverflowError, pa.ArrowException: a value isn't one in Python (text that isn't UTF-8, a date after the
            year 9999), as in `to_pylist`.
    """
    if not table.num_rows:
        return EMPTY_TABLE
    names = table.column_names
    if not names or len({*names}) < len(names):
        return build_table(table.to_pylist(), step)
    check_names(names, step)
    try:
        table = _drop_slack(table.combine_chunks())
        table.validate(full=True)
    except pa.ArrowInvalid:  # rows tell what's wrong, or that nothing they show is
        return build_table(table.to_pylist(), step)
    arrays = []
    for name, column in zip(names, table.itercolumns(), strict=True):
        array = _convert_column(column)
        arrays.append(build_array(column.to_pylist(), step, name) if array is None else array)
    return pa.Table.from_arrays(arrays, names=names)


def widen_for_rows(table: pa.Table) -> pa.Table | None:
    """Bring a table as near to `build_table_as_of_rows` of any slice of it as can be; so it's done once for all slices.

    Returns:
        The table; None where its rows are the cheaper way, or a value of it isn't one in Python.
    """
    names = table.column_names
    if len({*names}) < max(1, len(names)):
        return None
    try:
        table = table.combine_chunks()
        table.validate(full=True)
        columns = table.columns
        arrays = [_convert_column(column, narrows=False) for column in columns] if len(table) else columns
        odd = [column for column, array in zip(columns, arrays, strict=True) if array is None]
        # An odd column is made Python values of twice, here to find what can't be and when it's kept.
        if 2 * len(odd) > len(names):
            return None
        for column in odd:
            column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        return None
    made = [column if array is None else array for column, array in zip(columns, arrays, strict=True)]
    return pa.Table.from_arrays(made, names=names)


def _convert_column(column: pa.ChunkedArray, *, narrows: bool = True) -> pa.Array | None:
    """Give a column as `build_array` makes it of its values; None where that isn't known.

    Args:
        column: in one chunk, unless it's too long for one.
        narrows: whether what holds no value is made a column of nulls, in lists and structs too.
    """
    return _convert(column.chunk(0), _MOST_LEVELS, narrows) if column.num_chunks == 1 else None


def _convert(array: pa.Array, levels: int, narrows: bool) -> pa.Array | None:
    """Give an array as Arrow makes it of its Python values; the very array where it's that, None where it's unknown."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_nested(kind):
        made = _convert_nested(array, levels - 1, narrows) if levels else None
    else:
        made = _convert_flat(array)
    return pa.nulls(len(array)) if narrows and made is not None and array.null_count == len(array) else made


def _convert_flat(array: pa.Array) -> pa.Array | None:
    kind = array.type
    target = _TARGETS.get(kind.id)
    if target is None or target == kind:
        return target and array
    try:
        return array.cast(target)
    except pa.ArrowInvalid:  # too long for the smaller offsets
        return None


def _convert_nested(array: pa.Array, levels: int, narrows: bool) -> pa.Array | None:
    kind = array.type
    if pa.types.is_struct(kind):
        return _convert_struct(array, levels, narrows)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _convert_list(array, levels, narrows)
    return None


def _convert_list(array: pa.Array, levels: int, narrows: bool) -> pa.Array | None:
    kind = array.type
    found = _find_items(array)
    values = _convert(found, levels, narrows)
    if values is None or len(values) > _MOST_ITEMS:
        return None
    if pa.types.is_list(kind) and values is found:
        if kind.value_field.name == "item" and _is_plain(kind.value_field):
            return array
        own = array.buffers()[:2]
        return pa.Array.from_buffers(
            pa.list_(values.type), len(array), own, array.null_count, array.offset, [array.values]
        )
    import numpy as np
    import pyarrow.compute as pc

    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(pc.list_value_length(array).fill_null(0).to_numpy(), out=offsets[1:])
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


def _find_items(array: pa.Array) -> pa.Array:
    """Give the items of all lists; what stands under a row without a list is none of them."""
    if array.null_count or not pa.types.is_list(array.type):
        return array.flatten()
    offsets = array.offsets
    start = offsets[0].as_py()
    return array.values.slice(start, offsets[len(array)].as_py() - start)


def _convert_struct(array: pa.Array, levels: int, narrows: bool) -> pa.Array | None:
    fields = list(array.type)
    names = [field.name for field in fields]
    if not names or len({*names}) < len(names) or any("\0" in name for name in names):
        return None
    found = array.flatten()  # what stands under a row without a struct is None there
    values = [made for each in found if (made := _convert(each, levels, narrows)) is not None]
    if len(values) < len(names):
        return None
    order = list(range(len(names)))
    if _sorts_keys():
        order.sort(key=lambda at: names[at].encode())
    is_same = all(each is other for each, other in zip(values, found, strict=True))
    if is_same and all(map(_is_plain, fields)) and order == sorted(order):
        return array
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(
        [values[at] for at in order], fields=[pa.field(names[at], values[at].type) for at in order], mask=mask
    )


def _is_plain(field: pa.Field) -> bool:
    """Whether a field says no more than its name and type."""
    return bool(field.nullable) and field.metadata is None


@functools.cache
def _sorts_keys() -> bool:
    """Whether Arrow puts the keys of dicts into alphabetical order, as its older versions do."""
    return bool(pa.array([{"b": 0, "a": 0}]).type.field(0).name == "a")


def _drop_slack(table: pa.Table) -> pa.Table:
    """Copy a table that keeps much more in memory than its own rows, as a slice keeps all that it's a slice of."""
    if table.get_total_buffer_size() <= _MOST_SLACK_BYTES:
        return table
    return copy_table(table) if table.get_total_buffer_size() > table.nbytes + _MOST_SLACK_BYTES else table


def copy_table(table: pa.Table) -> pa.Table:
    """Copy a table's rows, and nothing of what it's a slice of."""
    columns = [pa.concat_arrays([*each.chunks, pa.nulls(0, each.type)]) for each in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema) if columns else table
