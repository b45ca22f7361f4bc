"""Rows as Arrow tables and back, and the union of the schemas of a step's batches.

Between two steps rows travel as tables, so what a step gets is what reading the cache would give it, whether the
rows come from memory or from disk: a tuple is a list, each row of a batch has each of its columns, an empty dict is
None (Arrow has no struct without fields).
"""

import datetime as dt
import itertools
from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

from distilabel_dagster.batch import Rows
from distilabel_dagster.errors import ColumnTypeError, DamagedFileError, StepOutputError

SCALARS: Final[dict[type, pa.DataType]] = {
    str: pa.string(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
}
"""Class of Python values -> the type that a column of them gets."""
_OF_ONE_KIND: Final[tuple[set[type], ...]] = ({str}, {bytes}, set())
_UNITS: Final = ("s", "ms", "us", "ns")
_MOST_FIXED_BYTES: Final = 2 * 1024 * 1024 * 1024
_MOST_LEVELS: Final = 100  # of schema, its root among them, that Arrow reads of a Parquet file
EMPTY_TABLE: Final = pa.table({})


def build_table(rows: Rows, step: str) -> pa.Table:
    """Make a table of rows: columns in the order in which they first appear, None where a row lacks one.

    Args:
        rows: rows of one batch; not changed.
        step: the step that made them, for messages.

    Raises:
        ColumnTypeError: a column holds values that have no common type, or that Arrow can't hold.
        StepOutputError: no row has a column, or one has a name that can't be kept.
    """
    columns: dict[str, None] = {}
    for row in rows:
        if not row.keys() <= columns.keys():
            columns.update(dict.fromkeys(row))
    if rows and not columns:
        raise StepOutputError(
            f"Step `{step}` gave {len(rows)} rows without any column. Give each row at least one, or leave it out.",
            step=step,
        )
    check_names(columns, step)
    arrays = {name: build_array([row.get(name) for row in rows], step, name) for name in columns}
    return pa.table(arrays)


def check_names(columns: Iterable[str], step: str) -> None:
    """Refuse names of columns that can't be kept."""
    for name in columns:
        if name.isascii() and name.isprintable():
            continue
        if (told := name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")) != name:
            raise StepOutputError(
                f"Step `{step}` gave the column `{told}`: a column's name is UTF-8 text without NUL. Rename it.",
                step=step,
            )


def build_array(values: list[Any], step: str, column: str) -> pa.Array:
    """Make a column of its values in a batch; raises as `build_table`."""
    types = set(map(type, values)) - {type(None)}
    try:
        if len(types) == 1 and (known := SCALARS.get(next(iter(types)))) is not None:
            return pa.array(values, known)
        if types == {int} and (array := _build_ints(values)) is not None:
            return array
        array = _infer_array(values, types)
        _check_nesting(array.type)
        _check_leaves(values, array.type)
        plain = _without_empty_structs(array.type)
        return array if plain == array.type else pa.array(_drop_empty_dicts(values), plain)
    except (pa.ArrowException, OverflowError, RecursionError, TypeError, ValueError) as error:
        told = ", ".join(sorted(f"`{each.__name__}`" for each in types))
        raise ColumnTypeError(
            f"Step `{step}`: the values of column `{column}` can't be kept in one column: {error}. Found {told} in one "
            "batch. Make the step give values of one type (text, whole numbers up to 64 bits, floats, booleans, bytes, "
            "dates, lists, dicts with text keys), or JSON text where types must vary.",
            step=step,
            column=column,
        ) from error


def _build_ints(values: list[Any]) -> pa.Array | None:
    try:
        return pa.array(values, pa.int64())
    except (pa.ArrowException, OverflowError):  # told of in the words of `_infer_array`
        return None


def _infer_array(values: list[Any], types: set[type]) -> pa.Array:
    if types & {set, frozenset}:
        raise TypeError("a set has no order that two runs would agree on: give a sorted list")
    try:
        return pa.array(values)
    except pa.ArrowException:
        lists = [_list_arrays(value) for value in values]
        if all(one is other for one, other in zip(lists, values, strict=True)):
            raise
        return pa.array(lists)


def _list_arrays(value: Any) -> Any:
    """Give NumPy arrays of two and more dimensions, wherever they are in `value`, as lists of lists."""
    if getattr(value, "ndim", 1) > 1 and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        listed: Any = {key: _list_arrays(item) for key, item in value.items()}
        return listed if any(listed[key] is not value[key] for key in value) else value
    if isinstance(value, list | tuple):
        listed = [_list_arrays(item) for item in value]
        return listed if any(one is not other for one, other in zip(listed, value, strict=True)) else value
    return value


def _check_leaves(values: Iterable[Any], kind: pa.DataType) -> None:
    """Refuse mixtures that Arrow would unite by changing values: text and bytes, dates with and without a time."""
    if not _may_change(kind):
        return
    present = [value for value in values if value is not None]
    if pa.types.is_list(kind):
        _check_leaves(itertools.chain.from_iterable(present), kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            _check_leaves([value.get(field.name) for value in present if isinstance(value, dict)], field.type)
    elif set(map(type, present)) not in _OF_ONE_KIND:
        _check_kinds({_kind_of(value) for value in present})


def _check_nesting(kind: pa.DataType, left: int = _MOST_LEVELS - 1) -> None:
    """Refuse keys with NUL, and more levels than are left: in Parquet a list takes two, a struct or plain value one."""
    if left < 1:
        raise ValueError("they are nested more deeply than Parquet can be read")
    if pa.types.is_list(kind):
        _check_nesting(kind.value_type, left - 2)
    elif pa.types.is_struct(kind):
        for field in kind:
            if "\0" in field.name:
                raise ValueError(f"the key {field.name!r} of a dict holds NUL")
            _check_nesting(field.type, left - 1)


def _may_change(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _may_change(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_may_change(field.type) for field in kind)
    checks = (pa.types.is_string, pa.types.is_binary, pa.types.is_date, pa.types.is_timestamp)
    return any(is_kind(kind) for is_kind in checks)


def _kind_of(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return "times without a time zone" if value.tzinfo is None else "times with a time zone"
    if isinstance(value, dt.date):
        return "dates"
    if isinstance(value, str):
        return "text"
    return "bytes" if isinstance(value, bytes | bytearray | memoryview) else ""


def _check_kinds(kinds: set[str]) -> None:
    found = sorted(kinds - {""})
    if len(found) > 1:
        raise TypeError(f"there are {' and '.join(found)}")


def _drop_empty_dicts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_empty_dicts(item) for key, item in value.items()} or None
    return [_drop_empty_dicts(item) for item in value] if isinstance(value, list | tuple) else value


def _without_empty_structs(kind: pa.DataType) -> pa.DataType:
    """The type with `null` in place of structs without fields, which Parquet can't hold."""
    if pa.types.is_struct(kind):
        if kind.num_fields == 0:
            return pa.null()
        return pa.struct([field.with_type(_without_empty_structs(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_without_empty_structs(kind.value_type))
    return kind


def unite_schemas(schemas: Iterable[pa.Schema], step: str) -> pa.Schema:
    """Give the narrowest schema that holds all: columns and struct fields together, nulls and ints widened.

    Raises:
        ColumnTypeError: a column has types without a union, such as text and numbers; it names both.
    """
    united = pa.schema([])
    for schema in schemas:
        if schema.equals(united):
            continue
        for field in schema:
            index = united.get_field_index(field.name)
            if index < 0:
                united = united.append(field)
            else:
                united = united.set(index, _unite_fields(united.field(index), field, step))
    return united


def _unite_fields(first: pa.Field, second: pa.Field, step: str) -> pa.Field:
    if first.equals(second):
        return first
    try:
        if _mixes_text_and_bytes(first.type, second.type):
            raise pa.ArrowTypeError("text and bytes")
        if _have_two_time_zones(first.type, second.type):
            return first.with_type(
                pa.timestamp(max(first.type.unit, second.type.unit, key=_UNITS.index), "UTC")
            )
        if _mixes_decimals_and_floats(first.type, second.type):
            raise pa.ArrowTypeError("a decimal isn't a float")
        merged = pa.unify_schemas([pa.schema([first]), pa.schema([second])], promote_options="permissive")
        return merged.field(0)
    except pa.ArrowException as error:
        raise ColumnTypeError(
            f"Step `{step}`: column `{first.name}` is {first.type} in some batches and {second.type} in others, and "
            "there's no type for both. Make the step give one type for that column in each row, or JSON text where "
            "types must vary.",
            step=step,
            column=first.name,
        ) from error


def _have_two_time_zones(first: pa.DataType, second: pa.DataType) -> bool:
    if not (pa.types.is_timestamp(first) and pa.types.is_timestamp(second)):
        return False
    return first.tz is not None and second.tz is not None and first.tz != second.tz


def _mixes_decimals_and_floats(first: pa.DataType, second: pa.DataType) -> bool:
    kinds = {(pa.types.is_decimal(each), pa.types.is_floating(each)) for each in (first, second)}
    return kinds == {(True, False), (False, True)}


def _mixes_text_and_bytes(first: pa.DataType, second: pa.DataType) -> bool:
    if pa.types.is_list(first) and pa.types.is_list(second):
        return _mixes_text_and_bytes(first.value_type, second.value_type)
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        others = {field.name: field.type for field in second}
        return any(_mixes_text_and_bytes(field.type, others.get(field.name, pa.null())) for field in first)
    kinds = {(pa.types.is_string(each), pa.types.is_binary(each)) for each in (first, second)}
    return kinds == {(True, False), (False, True)}


def widen_table(table: pa.Table, schema: pa.Schema, step: str) -> pa.Table:
    """Give `table` with the columns, order and types of `schema`, a union that covers it.

    Raises:
        ColumnTypeError: a whole number is too large for the float column it has to go to.
    """
    if table.schema.equals(schema):
        return table
    arrays = []
    for field in schema:
        index = table.schema.get_field_index(field.name)
        try:
            check_fixed_size(field.type, table.num_rows)
            arrays.append(
                pa.nulls(table.num_rows, field.type) if index < 0 else _cast(table.column(index), field.type)
            )
        except pa.ArrowException as error:
            raise ColumnTypeError(
                f"Step `{step}`: values of column `{field.name}` can't become {field.type}, which other batches need: "
                f"{error}.",
                step=step,
                column=field.name,
            ) from error
    return pa.table(arrays, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast a column; one of structs or lists by its values, since Arrow's cast of a slice of such can be invalid."""
    if column.type.equals(kind):
        return column
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array(column.to_pylist(), kind)], kind)
    return column.cast(kind)


def narrow_table(table: pa.Table, schema: pa.Schema, where: str = "the part") -> pa.Table:
    """Undo `widen_table`: give the columns and types that a batch had before it was united with others.

    Args:
        table: the batch's rows as the part has them.
        schema: the batch's own.
        where: the part, for messages.

    Raises:
        DamagedFileError: the rows never had that schema.
    """
    if table.schema.equals(schema):
        return table
    arrays = []
    for field in schema:
        try:
            column = table.column(field.name)
            check_fixed_size(field.type, table.num_rows)
            arrays.append(_cast(column, _fill_null_types(field.type, column.type)))
        except (pa.ArrowException, LookupError, TypeError, ValueError, OverflowError) as error:
            raise DamagedFileError(
                f"{where} says that a batch's column `{field.name}` was {field.type}, and its values never were ({error}). "
                "The file is damaged, or was made so: remove it and run the pipeline again, which computes its batches "
                "again.",
                path=where,
            ) from error
    return pa.table(arrays, names=schema.names)


def check_fixed_size(kind: pa.DataType, rows: int) -> None:
    """Refuse a type each of whose values takes so much room, null or not, that so many rows can't have it.

    Raises:
        pa.ArrowInvalid: it is.
    """
    if rows * _fixed_size(kind) > _MOST_FIXED_BYTES:
        raise pa.ArrowInvalid(f"{rows:,} values of {kind} would take more than {_MOST_FIXED_BYTES:,} bytes")


def _fixed_size(kind: pa.DataType, *, in_list: bool = False) -> int:
    """Bytes that each value takes, null or not, because its type has a fixed length; 0 where it hasn't."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _fixed_size(kind.value_type, in_list=True)
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    if pa.types.is_struct(kind):
        return sum(_fixed_size(field.type, in_list=in_list) for field in kind)
    if not in_list:
        return 0
    return max(1, kind.bit_width // 8) if pa.types.is_primitive(kind) else 8


def _fill_null_types(kind: pa.DataType, source: pa.DataType) -> pa.DataType:
    """Take the source's type where `kind` is null: it holds nothing there, and casts to null don't exist."""
    if pa.types.is_null(kind):
        return source
    if pa.types.is_list(kind) and pa.types.is_list(source):
        return pa.list_(_fill_null_types(kind.value_type, source.value_type))
    if pa.types.is_struct(kind) and pa.types.is_struct(source):
        types = {field.name: field.type for field in source}
        return pa.struct([field.with_type(_fill_null_types(field.type, types[field.name])) for field in kind])
    return kind


def table_rows(table: pa.Table) -> Rows:
    """Give a table's rows as new dicts, which the caller may change.

    Raises:
        ColumnTypeError: a column holds values that Python has nothing for, such as dates after the year 9999.
    """
    try:
        rows: Rows = table.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise _build_unknown_value_error(table, error) from error
    return rows


def _build_unknown_value_error(table: pa.Table, error: Exception) -> ColumnTypeError:
    column = ""
    for name in table.column_names:
        try:
            table.column(name).to_pylist()
        except (pa.ArrowException, ValueError, OverflowError):
            column = name
            break
    return ColumnTypeError(
        f"Column `{column}` holds a value of its type {table.schema.field(column).type} that Python has nothing for: "
        f"{error}. It wasn't written by a step; remove the part that it's in, or mend what wrote it.",
        step="",
        column=column,
    )
