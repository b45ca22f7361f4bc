"""Rows as Arrow tables and back, and the union of the schemas of a step's batches.

Between two steps rows travel as tables, so what a step gets is what reading the cache would give it, whether the
rows come from memory or from disk: a tuple is a list, each row of a batch has each of its columns, an empty dict is
None (Arrow has no struct without fields).
"""

from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

from distilabel_dagster.batch import Rows
from distilabel_dagster.errors import ColumnTypeError, StepOutputError

_SCALARS: Final[dict[type, pa.DataType]] = {
    str: pa.string(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
}
EMPTY_TABLE: Final = pa.table({})


def build_table(rows: Rows, step: str) -> pa.Table:
    """Make a table of rows: columns in the order in which they first appear, None where a row lacks one.

    Args:
        rows: rows of one batch; not changed.
        step: the step that made them, for messages.

    Raises:
        ColumnTypeError: a column holds values that have no common type, or that Arrow can't hold.
        StepOutputError: no row has a column.
    """
    columns: dict[str, None] = {}
    for row in rows:
        if row.keys() - columns.keys():
            columns.update(dict.fromkeys(row))
    if rows and not columns:
        raise StepOutputError(
            f"Step `{step}` gave {len(rows)} rows without any column. Give each row at least one, or leave it out.",
            step=step,
        )
    arrays = {name: _build_array([row.get(name) for row in rows], step, name) for name in columns}
    return pa.table(arrays)


def _build_array(values: list[Any], step: str, column: str) -> pa.Array:
    types = set(map(type, values)) - {type(None)}
    try:
        if len(types) == 1 and (known := _SCALARS.get(next(iter(types)))) is not None:
            return pa.array(values, known)
        if str in types and bytes in types:
            raise pa.ArrowTypeError("str and bytes")
        if any(getattr(value, "ndim", 1) > 1 for value in values):
            values = [value.tolist() if hasattr(value, "tolist") else value for value in values]
        array = pa.array(values)
        plain = _without_empty_structs(array.type)
        return array if plain == array.type else pa.array(_drop_empty_dicts(values), plain)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        told = ", ".join(sorted(f"`{each.__name__}`" for each in types))
        raise ColumnTypeError(
            f"Step `{step}`: the values of column `{column}` can't be kept in one column: {error}. Found {told} in one "
            "batch. Make the step give values of one type (text, whole numbers up to 64 bits, floats, booleans, bytes, "
            "dates, lists, dicts with text keys), or JSON text where types must vary.",
            step=step,
            column=column,
        ) from error


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
        if index < 0:
            arrays.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            arrays.append(table.column(index).cast(field.type))
        except pa.ArrowException as error:
            raise ColumnTypeError(
                f"Step `{step}`: values of column `{field.name}` can't become {field.type}, which other batches need: "
                f"{error}.",
                step=step,
                column=field.name,
            ) from error
    return pa.table(arrays, schema=schema)


def narrow_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Undo `widen_table`: give the columns and types that a batch had before it was united with others."""
    if table.schema.equals(schema):
        return table
    arrays = []
    for field in schema:
        column = table.column(field.name)
        arrays.append(column.cast(_fill_null_types(field.type, column.type)))
    return pa.table(arrays, names=schema.names)


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
    """Give a table's rows as new dicts, which the caller may change."""
    rows: Rows = table.to_pylist()
    return rows
