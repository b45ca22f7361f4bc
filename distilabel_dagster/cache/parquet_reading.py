"""Rows of a Parquet file that may come from a stranger: in bounded memory, and of types that run no code."""

import io
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from distilabel_dagster.cache.claims import (
    FREE_BYTES,
    ROW_BYTES,
    VALUE_BYTES,
    ParquetFooter,
    check_growth,
    find_large_columns,
    footer_length,
    read_parquet_footer,
)
from distilabel_dagster.cache.extension_types import check_key_values
from distilabel_dagster.cache.tables import check_fixed_size

_END_BYTES: Final = 8
_MOST_COLUMNS: Final = 20_000
# To unite schemas takes time that grows with the square of it.


def check_parquet_footer(content: bytes | memoryview) -> None:
    """Make sure that Arrow can be given a file's footer: no count is absurd, and no type runs code.

    Args:
        content: the file, or its end with the whole footer.

    Raises:
        ValueError: it can't; the message says why.
    """
    _check_footer(read_parquet_footer(content))


def _check_footer(footer: ParquetFooter) -> None:
    if len(footer.lengths) > _MOST_COLUMNS:
        raise ValueError(f"it has more than {_MOST_COLUMNS:,} columns")
    check_key_values(footer.key_values)


def check_schema(schema: pa.Schema, rows: int) -> None:
    """Make sure that each column has a name of its own, and that its type leaves room for so many rows.

    Raises:
        ValueError, pa.ArrowInvalid: it isn't so.
    """
    if len(set(schema.names)) < len(schema.names):
        raise ValueError("it has two columns of one name")
    for field in schema:
        check_fixed_size(field.type, rows)


def read_parquet_schema(file: Any) -> pa.Schema:
    """Read the schema of a Parquet file, with its metadata.

    Args:
        file: open for reading bytes at any position.

    Raises:
        ValueError: it's damaged, or has a type that may run code.
        pa.ArrowException, OSError: it's damaged, as Arrow found it.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_BYTES))
    end = file.read(_END_BYTES)
    file.seek(max(0, size - footer_length(end) - _END_BYTES))
    end = file.read()
    check_parquet_footer(end)
    with pq.ParquetFile(pa.BufferReader(end)) as parquet:
        schema: pa.Schema = parquet.schema_arrow
    return schema


def read_parquet(content: bytes, *, without: Sequence[str] = (), use_threads: bool = True) -> pa.Table:
    """Read all rows of a Parquet file, with its schema's metadata.

    Every value is what its type says: text is UTF-8, times are of a day. Memory is bounded by the file's size and
    `claims.FREE_BYTES`, whatever the file claims.

    Args:
        content: the file.
        without: columns that are left out, and aren't decoded.
        use_threads: whether columns are decoded side by side.

    Raises:
        ValueError: it's damaged, or would take too much memory.
        pa.ArrowException, OSError: the same, as Arrow found it.
    """
    footer = read_parquet_footer(content)
    _check_footer(footer)
    large = find_large_columns(content, footer)
    with pq.ParquetFile(pa.BufferReader(content)) as parquet:
        schema = parquet.schema_arrow
        check_schema(schema, footer.rows)
        names = [name for name in schema.names if name not in without]
        columns = names if len(names) < len(schema.names) else None
        if not large:
            table = parquet.read(columns=columns, use_threads=use_threads)
    if large:
        with pq.ParquetFile(pa.BufferReader(content), read_dictionary=large) as parquet:
            packed = parquet.read(columns=columns, use_threads=use_threads)
        check_growth(
            content, sum(_written_out(chunk) for column in packed.columns for chunk in column.chunks)
        )
        table = packed.cast(pa.schema([schema.field(name) for name in packed.column_names], schema.metadata))
    # Parquet takes the name of a column `x.y` for a field of `x`.
    table = table.drop_columns([name for name in without if name in table.column_names])
    table.validate(full=True)
    return table


def may_exceed_free(table: pa.Table) -> bool:
    """Tell whether a table is so large that its file may have to be as well, for `read_parquet` to take it."""
    size_bytes: int = table.nbytes + table.num_rows * (ROW_BYTES + VALUE_BYTES * table.num_columns)
    return size_bytes > FREE_BYTES // 4


def is_readable(content: bytes) -> bool:
    """Tell whether `read_parquet` takes a file that this process wrote itself."""
    try:
        find_large_columns(content, read_parquet_footer(content))
    except ValueError:
        return False
    return True


def _written_out(array: pa.Array) -> int:
    """Bytes that an array's values take once each has a copy of its own."""
    import pyarrow.compute as pc  # takes 40 ms to import, and this is called for large columns only

    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return int(pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0) + len(array) * 4
    if pa.types.is_struct(kind):
        return sum(_written_out(array.field(index)) for index in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _written_out(array.keys) + _written_out(array.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _written_out(array.values)
    return int(array.nbytes)
