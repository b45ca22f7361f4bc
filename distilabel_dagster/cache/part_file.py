"""A part as bytes: Parquet, with what the cache knows of its batches, and checksums over every byte of it.

Parquet itself notices a flipped bit only where it makes the file unreadable. So the footer's JSON begins with two
CRC-32: one over all that stands before Parquet's footer, then one over that footer, in which its own digits count as
zeros. The second is enough to trust what's said of the batches, and is checked without reading the rows. Parts of the
first layout have none, and are read as they are.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from distilabel_dagster.cache.footer import CHECKSUMS_BEGIN, FOOTER_KEY
from distilabel_dagster.cache.parquet_reading import (
    check_parquet_footer,
    check_schema,
    is_readable,
    may_exceed_free,
    read_parquet,
)

_MAGIC: Final = b"PAR1"
_TAIL_BYTES: Final = 64 * 1024
_DIGITS: Final = 8
_CHECKSUMS: Final = re.compile(re.escape(CHECKSUMS_BEGIN) + rb"([0-9a-f]{%d})" % (2 * _DIGITS))
_WITHOUT_CHECKSUMS: Final = b'{"format":1,"step_name":'
_COMPRESSION: Final = "zstd"


@dataclass(frozen=True, slots=True)
class PartFooter:
    """What a part's footer says.

    Attributes:
        schema: the columns, without metadata.
        rows: rows in the part.
        content: the JSON of its batches, see `decode_footer`.
    """

    schema: pa.Schema
    rows: int
    content: bytes


def encode_part(table: pa.Table, footer: bytes) -> tuple[bytes, bytes]:
    """Give a part's bytes, and its footer's JSON as it stands in them.

    Args:
        table: the rows.
        footer: what `encode_footer` gave.
    """
    written = _write_parquet(table, footer, is_small=True)
    if may_exceed_free(table) and not is_readable(written.tobytes()):
        written = _write_parquet(table, footer, is_small=False)
    start = _footer_start(written)
    rows, end = written[:start], bytearray(written[start:])
    place = _find_checksums(memoryview(end))
    own = place + _DIGITS
    end[place:own] = b"%08x" % zlib.crc32(rows)
    end[own : own + _DIGITS] = b"%08x" % zlib.crc32(end)
    digits = bytes(end[place : own + _DIGITS])
    return b"".join([rows, end]), footer.replace(b"0" * len(digits), digits, 1)


def _write_parquet(table: pa.Table, footer: bytes, *, is_small: bool) -> memoryview:
    """Write a table; where it's not to be small, each value as it is, since readers refuse files that grow too much."""
    # Arrow's own: for each page that goes to a file of Python's it waits until all other threads let it have its turn.
    sink = pa.BufferOutputStream()
    # Parquet's own name for a list's items would make the schema read differ from the one written.
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression=_COMPRESSION if is_small else "none",
        use_dictionary=is_small,
        use_compliant_nested_type=False,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FOOTER_KEY: footer})
    return memoryview(sink.getvalue())


def read_part(content: bytes) -> tuple[pa.Table, bytes]:
    """Read the rows of a part of ours, and its footer's JSON.

    Raises:
        ValueError: it isn't one, or not as it was written; the message says what's wrong.
        pa.ArrowException: the same, as Arrow found it.
    """
    check_part(content)
    table = read_parquet(content)
    footer = (table.schema.metadata or {}).get(FOOTER_KEY, b"")
    return table.replace_schema_metadata(None), footer


def check_part(content: bytes) -> None:
    """Make sure that a part of ours is as it was written, to the last bit.

    Raises:
        ValueError: it's no part of ours, or isn't whole.
    """
    view = memoryview(content)
    start = _footer_start(view)
    expected = _check_footer(view[start:])
    if expected is not None and zlib.crc32(view[:start]) != expected:
        raise ValueError("its rows aren't as they were written: their checksum differs")


def is_ours(content: bytes) -> bool:
    """Tell whether a Parquet file says that this package wrote it: of two signs one is enough, the other may be damaged."""
    view = memoryview(content)
    try:
        footer = bytes(view[_footer_start(view) :])
    except ValueError:
        return False
    return FOOTER_KEY in footer or _CHECKSUMS.search(footer) is not None


def read_part_footer(file: Any) -> PartFooter:
    """Read what a part's footer says, without its rows.

    Args:
        file: open for reading bytes at any position.

    Raises:
        ValueError: it's no part of ours, or its footer isn't as it was written.
        pa.ArrowException: the same, as Arrow found it.
    """
    size = file.seek(0, io.SEEK_END)
    tail = _read_tail(file, size, _TAIL_BYTES)
    length = _footer_length(tail, size)
    if length > len(tail):
        tail = _read_tail(file, size, length)
    _check_footer(memoryview(tail)[-length:])
    check_parquet_footer(tail)
    with pq.ParquetFile(pa.BufferReader(tail)) as parquet:
        metadata, schema = parquet.metadata, parquet.schema_arrow.remove_metadata()
    check_schema(schema, metadata.num_rows)
    return PartFooter(schema, metadata.num_rows, (metadata.metadata or {}).get(FOOTER_KEY, b""))


def _read_tail(file: Any, size: int, length: int) -> bytes:
    file.seek(max(0, size - length))
    tail: bytes = file.read(length)
    return tail


def _footer_start(content: memoryview) -> int:
    return len(content) - _footer_length(content[-8:], len(content))


def _footer_length(end: bytes | memoryview, size: int) -> int:
    """Bytes from the footer's beginning to the end of the file, its length and the magic word included."""
    if size < len(_MAGIC) + 8 or bytes(end[-4:]) != _MAGIC:
        raise ValueError("it's no whole Parquet file")
    length: int = struct.unpack("<I", end[-8:-4])[0] + 8
    if length > size - len(_MAGIC):
        raise ValueError("it's no whole Parquet file: its footer claims to be longer than it")
    return length


def _check_footer(footer: memoryview) -> int | None:
    """Check a footer against its own checksum; give the one over what stands before it, None in the first layout."""
    if _WITHOUT_CHECKSUMS in bytes(footer) and _CHECKSUMS.search(footer) is None:
        return None
    place = _find_checksums(footer)
    own = place + _DIGITS
    found = zlib.crc32(footer[own + _DIGITS :], zlib.crc32(b"0" * _DIGITS, zlib.crc32(footer[:own])))
    if found != int(bytes(footer[own : own + _DIGITS]), 16):
        raise ValueError("its footer isn't as it was written: its checksum differs")
    return int(bytes(footer[place:own]), 16)


def _find_checksums(footer: memoryview) -> int:
    """The place of the checksums' digits: the last that looks like them, since names of columns come before."""
    found = list(_CHECKSUMS.finditer(footer))
    if not found:
        raise ValueError("it wasn't written by this package, or by a version that kept no checksums")
    return found[-1].start(1)
