"""How much memory a Parquet file may take when it's read, found out before any of it is.

A few hundred bytes can claim 10^12 rows, a page of gigabytes, or a long text that a million rows refer to, and Arrow
believes them. So the pages' own headers are gone through first; they bound everything but texts that stand once in a
dictionary and are referred to from many rows. Where those may be too many the columns are to be read as dictionaries, and
to be measured before they're written out.
"""

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from distilabel_dagster.cache.thrift import Struct, ThriftReader

FREE_BYTES: Final = 1024 * 1024 * 1024
"""What any file may take in memory."""
_MOST_GROWTH: Final = 100
"""How many times its own size a larger one may take; what this package writes stays below."""
ROW_BYTES: Final = 64
"""What a row is reckoned at, since it becomes a dict in the end; and, below, what a value is besides its own bytes."""
VALUE_BYTES: Final = 16
_MOST_PAGES: Final = 1_000_000
_MAGIC: Final = b"PAR1"
_LENGTH: Final = struct.Struct("<I")
_BYTE_ARRAY, _FIXED = 6, 7
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_DICTIONARY_ENCODINGS: Final = (2, 8)
_SHARED_ENCODINGS: Final = (*_DICTIONARY_ENCODINGS, 7)
"""Encodings in which a value's bytes may stand once for many values: dictionaries, and prefixes of the value before."""
_CODECS: Final = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd"}


@dataclass(frozen=True, slots=True)
class ParquetFooter:
    """What a Parquet file says of itself.

    Attributes:
        rows: how many it claims.
        key_values: its metadata, keys and values as they stand there.
        columns: of each row group, its rows and its columns' chunks.
        lengths: of each leaf column in order, bytes of a value whose length is fixed; 0 for others.
    """

    rows: int
    key_values: list[tuple[bytes, bytes]]
    columns: list[tuple[int, list[Struct]]]
    lengths: list[int]


@dataclass(slots=True)
class _Chunk:
    """The pages of one column in one row group, as their headers tell of them."""

    path: str
    codec: int
    values: int = 0
    shared_values: int = 0
    page_bytes: int = 0
    dictionary: tuple[int, int, int] | None = None
    """Where its content begins, its size there, and when it's unpacked."""


def read_parquet_footer(content: bytes | memoryview) -> ParquetFooter:
    """Read what a Parquet file says of itself; `content` is the file, or its end with the whole footer.

    Raises:
        ValueError: it's no Parquet file, or its footer is damaged.
    """
    length = footer_length(bytes(content[-8:]))
    if length > len(content) - 8:
        raise ValueError("its footer claims to be longer than the file")
    metadata = ThriftReader(content, len(content) - 8 - length).read_struct()
    try:
        leaves = [each for each in metadata[2] if 1 in each]
        return ParquetFooter(
            rows=_count(metadata[3]),
            key_values=[(bytes(pair[1]), bytes(pair.get(2, b""))) for pair in metadata.get(5, ())],
            columns=[(_count(group[3]), [_chunk_of(each) for each in group[1]]) for group in metadata[4]],
            lengths=[_count(each.get(2, 0)) if each.get(1) == _FIXED else 0 for each in leaves],
        )
    except (KeyError, TypeError, AttributeError):
        raise ValueError("its footer is damaged") from None


def footer_length(end: bytes) -> int:
    """Give the length of a Parquet file's footer, of the file's last 8 bytes.

    Raises:
        ValueError: it's no whole Parquet file.
    """
    if len(end) < 8 or end[-4:] != _MAGIC:
        raise ValueError("it's no whole Parquet file")
    length: int = _LENGTH.unpack(end[:4])[0]
    return length


def _chunk_of(column: Any) -> Struct:
    if column.get(1):
        raise ValueError("its columns stand in other files")
    chunk: Struct = column[3]
    return chunk


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("its footer holds what is no count where one belongs")
    return value


def find_large_columns(content: bytes | memoryview, footer: ParquetFooter) -> list[str]:
    """Go through the headers of all pages, and give the columns that can only be read as dictionaries.

    Args:
        content: the whole file.
        footer: what it says of itself.

    Raises:
        ValueError: it would take more memory than `FREE_BYTES` and than 100 times its own size, or a page is damaged.
    """
    if sum(rows for rows, _ in footer.columns) != footer.rows:
        raise ValueError("its row groups have other rows than it claims")
    limit = max(FREE_BYTES, _MOST_GROWTH * len(content))
    taken = footer.rows * ROW_BYTES
    _check_size(taken, limit, footer.rows)
    open_chunks: list[_Chunk] = []
    for rows, columns in footer.columns:
        if len(columns) != len(footer.lengths):
            raise ValueError("a row group has other columns than its schema")
        for column, length in zip(columns, footer.lengths, strict=True):
            taken += rows * (VALUE_BYTES + length)
            _check_size(taken, limit, footer.rows)
            chunk = _scan_chunk(content, column)
            taken += max(0, chunk.values - rows) * (VALUE_BYTES + length) + chunk.page_bytes
            _check_size(taken, limit, footer.rows)
            if column.get(1) == _BYTE_ARRAY and chunk.shared_values:
                open_chunks.append(chunk)
    return _find_large(content, open_chunks, limit - taken)


def check_growth(content: bytes | memoryview, size_bytes: int) -> None:
    """Refuse values that take more memory than a file of this size may.

    Raises:
        ValueError: they do.
    """
    _check_size(size_bytes, max(FREE_BYTES, _MOST_GROWTH * len(content)), None)


def _check_size(taken: int, limit: int, rows: int | None) -> None:
    if taken > limit:
        claim = "" if rows is None else f" for the {rows:,} rows that it claims"
        raise ValueError(
            f"it would take {_tell(taken)} of memory{claim}, and a file of its size may take {_tell(limit)}"
        )


def _tell(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:,.1f} GiB"


def _find_large(content: bytes | memoryview, chunks: list[_Chunk], left: int) -> list[str]:
    """The columns of `chunks` whose values may take more than what is `left`, were each as long as the longest."""
    cheap = sum(chunk.shared_values * _longest_by_size(chunk) for chunk in chunks)
    if cheap <= left:
        return []
    sizes = {id(chunk): chunk.shared_values * _longest_in_dictionary(content, chunk) for chunk in chunks}
    if sum(sizes.values()) <= left:
        return []
    return sorted({chunk.path for chunk in chunks if sizes[id(chunk)] > left // (2 * len(chunks))})


def _longest_by_size(chunk: _Chunk) -> int:
    return chunk.dictionary[2] if chunk.dictionary else FREE_BYTES


def _longest_in_dictionary(content: bytes | memoryview, chunk: _Chunk) -> int:
    """Bytes of the longest value in a dictionary; its whole size where that can't be told."""
    if chunk.dictionary is None or (chunk.codec and chunk.codec not in _CODECS):
        return _longest_by_size(chunk)
    start, packed, size = chunk.dictionary
    page: Any = bytes(content[start : start + packed])
    if chunk.codec:
        try:
            page = pa.decompress(page, decompressed_size=size, codec=_CODECS[chunk.codec], asbytes=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"a page can't be unpacked ({error})") from None
    return _longest_text(page)


def _longest_text(page: bytes) -> int:
    """Bytes of the longest of texts that stand one behind another, each with its length before it."""
    longest = place = 0
    with contextlib.suppress(struct.error):
        while True:
            (length,) = _LENGTH.unpack_from(page, place)
            place += 4 + length
            longest = max(longest, length)
    return longest


def _scan_chunk(content: bytes | memoryview, column: Struct) -> _Chunk:
    try:
        chunk = _Chunk(b".".join(column[3]).decode(), _count(column[4]))
        expected = _count(column[5])
        if not expected:
            return chunk  # its pages aren't looked for
        start, end = _place_of(column)
        if end > len(content):
            raise ValueError("a column claims to be longer than the file")
        for header, at in _iter_pages(content, start, end):
            _add_page(chunk, header, at)
            if chunk.values >= expected:
                break
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise ValueError("a column of it is damaged") from None
    return chunk


def _place_of(column: Struct) -> tuple[int, int]:
    start = _count(column[9])
    dictionary = column.get(11, 0)
    if 0 < dictionary < start:
        start = dictionary
    return start, start + _count(column[7])


def _iter_pages(content: bytes | memoryview, start: int, end: int) -> Iterator[tuple[Struct, int]]:
    """Give the headers of the pages, and where the content of each begins."""
    reader = ThriftReader(content, start)
    for _ in range(_MOST_PAGES):
        if reader.position >= end:
            return
        header = reader.read_struct()
        yield header, reader.position
        reader = ThriftReader(content, reader.position + _count(header[3]))
    raise ValueError("a column has too many pages")


def _add_page(chunk: _Chunk, header: Struct, at: int) -> None:
    kind, size = header[1], _count(header[2])
    chunk.page_bytes += size
    if kind == _DICTIONARY_PAGE:
        if chunk.dictionary is not None:
            raise ValueError("a column has two dictionaries")
        chunk.dictionary = at, _count(header[3]), size
        chunk.page_bytes += _count(header[7][1]) * VALUE_BYTES
        return
    place = {_DATA_PAGE: (5, 2), _DATA_PAGE_V2: (8, 4)}.get(kind)
    if place is None:
        return
    about = header[place[0]]
    values = _count(about[1])
    chunk.values += values
    if about[place[1]] in _SHARED_ENCODINGS:
        chunk.shared_values += values
