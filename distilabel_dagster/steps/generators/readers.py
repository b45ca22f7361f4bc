"""Rows of csv, JSON and parquet files, read lazily: what's in memory doesn't grow with the files.

What is wrong with a file is a ValueError here, whose message starts with the file; the step turns it into an error
of this package.
"""

import bz2
import contextlib
import csv
import gzip
import io
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

import pyarrow as pa

from distilabel_dagster.batch import Row
from distilabel_dagster.steps.generators.batching import Piece, make_piece
from distilabel_dagster.steps.generators.data_files import DataFile

READ_ERRORS: Final = (
    OSError,
    ValueError,
    EOFError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    csv.Error,
)
"""What reading a damaged or vanished file can raise."""

_PEEKED_ROWS: Final = 100
_CHUNK_CHARS: Final = 1 << 20
_LONGEST_FIELD: Final = (1 << 31) - 1
_SPACE = re.compile(r"[ \t\r\n]*")
_SMALL_INT = re.compile(r"-?(0|[1-9][0-9]{0,14})")
_LARGE_INT = re.compile(r"-?[1-9][0-9]{15,17}")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

_Made = TypeVar("_Made")
Converters = dict[str, Callable[[str], Any]]
"""Column of csv files -> what makes a value of a field's text."""


@contextlib.contextmanager
def _reading(file: DataFile) -> Iterator[None]:
    try:
        yield
    except READ_ERRORS as error:
        raise ValueError(f"{file.url}: {str(error) or type(error).__name__}") from error


@contextlib.contextmanager
def _open(file: DataFile) -> Iterator[BinaryIO]:
    with contextlib.ExitStack() as stack:
        opened: Any
        if file.is_local:
            opened = stack.enter_context(Path(file.path).open("rb"))
        else:
            opened = stack.enter_context(file.fs.open(file.path, "rb"))
        if file.compression == "zstd":
            opened = io.BufferedReader(stack.enter_context(pa.CompressedInputStream(opened, "zstd")))
        elif file.compression is not None:
            unpack: Any = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[file.compression]
            opened = stack.enter_context(unpack(opened, "rb"))
        yield cast("BinaryIO", opened)


# --- JSON: one object a line, or one array of objects ---------------------------------------------


def iter_json_rows(files: Sequence[DataFile], skip: int) -> Iterator[Row]:
    """Read the rows behind the first `skip`; skipped lines aren't parsed."""
    for file in files:
        with _reading(file):
            for number, content in _iter_json_records(file):
                if skip:
                    skip -= 1
                    continue
                yield content if isinstance(content, dict) else _parse_line(number, content)


def peek_json_columns(files: Sequence[DataFile]) -> dict[str, bool]:
    """Give the columns of the first rows -> whether each of those rows has it."""
    counts: dict[str, int] = {}
    rows = list(itertools.islice(iter_json_rows(files, 0), _PEEKED_ROWS))
    for row in rows:
        for column in row:
            counts[column] = counts.get(column, 0) + 1
    return {column: count == len(rows) for column, count in counts.items()}


def _iter_json_records(file: DataFile) -> Iterator[tuple[int, bytes | Row]]:
    with _open(file) as opened:
        lines = enumerate(opened, start=1)
        for number, line in lines:
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not content.strip():
                continue
            if content.lstrip().startswith(b"["):
                break
            yield number, content
        else:
            return
    yield from _iter_array(file)


def _parse_line(number: int, line: bytes) -> Row:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"line {number} isn't UTF-8 text: {error.reason} at byte {error.start}.") from error
    except ValueError as error:
        raise ValueError(
            f"line {number} isn't JSON: {error}. Expected one object a line, or one array of objects."
        ) from error
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 (the content of a file is wrong, not the type of an argument)
            f"line {number} is a {type(value).__name__}, expected an object (a row)."
        )
    return value


def _iter_array(file: DataFile) -> Iterator[tuple[int, Row]]:
    """Take an array of objects apart as it's read; numbers count its items from 1."""
    with _open(file) as opened, io.TextIOWrapper(opened, encoding="utf-8-sig") as text:
        array = _Array(text)
        array.peek()
        array.position += 1
        for number in itertools.count(1):
            if array.peek() == "]":
                return
            if number > 1:
                if array.peek() != ",":
                    raise ValueError(
                        f"after item {number - 1} a `,` or `]` is expected, not {array.peek()!r}."
                    )
                array.position += 1
            if array.peek() != "{":
                raise ValueError(f"item {number} of its array isn't an object (a row).")
            yield number, array.take(number)


class _Array:
    """The text of an array, of which no more is in memory than a chunk and the item that is read."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.text = text
        self.buffer = ""
        self.position = 0
        self.decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Give the next character that is no white space, and stay before it."""
        while True:
            self.position = cast("re.Match[str]", _SPACE.match(self.buffer, self.position)).end()
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            self.buffer, self.position = self.text.read(_CHUNK_CHARS), 0
            if not self.buffer:
                raise ValueError("the file ends within its array of rows.")

    def take(self, number: int) -> Row:
        """Give the object that begins here, reading on until it's whole."""
        size = _CHUNK_CHARS
        while True:
            try:
                row, self.position = self.decoder.raw_decode(self.buffer, self.position)
                return cast("Row", row)
            except json.JSONDecodeError as error:
                more = self.text.read(size)
                if not more:
                    raise ValueError(f"item {number} of its array isn't JSON: {error.msg}.") from error
                self.buffer, self.position, size = self.buffer[self.position :] + more, 0, size * 2


# --- csv ------------------------------------------------------------------------------------------


def iter_csv_rows(files: Sequence[DataFile], skip: int, converters: Converters) -> Iterator[Row]:
    """Read the rows behind the first `skip`; an empty field is None."""
    for file in files:
        with _reading(file):
            records = _iter_csv_records(file)
            header = next(records, [])
            for fields in records:
                if skip:
                    skip -= 1
                    continue
                yield {
                    column: converters[column](field) if field else None
                    for column, field in zip(header, fields, strict=True)
                }


def peek_csv_columns(files: Sequence[DataFile]) -> dict[str, bool]:
    """Give the columns of the headers -> whether each file has it."""
    headers = []
    for file in files:
        with _reading(file):
            headers.append(next(_iter_csv_records(file), []))
    return {column: all(column in header for header in headers) for header in headers for column in header}


def infer_converters(files: Sequence[DataFile], rows: int | None) -> Converters:
    """Find the type of each column from all its values, in one pass over the files.

    A column is int, float or bool where each of its values is written as one, and text otherwise; numbers that
    would lose something (leading zeros, too many digits) are text.

    Args:
        files: read in this order.
        rows: how many rows count; None for all.
    """
    kinds: dict[str, set[str]] = {}
    for file in files:
        with _reading(file):
            records = _iter_csv_records(file)
            header = next(records, [])
            for column in header:
                kinds.setdefault(column, set())
            for fields in itertools.islice(records, rows):
                rows = None if rows is None else rows - 1
                for column, field in zip(header, fields, strict=True):
                    if field and "text" not in kinds[column]:
                        kinds[column].add(_kind_of(field))
    return {column: _converter(seen) for column, seen in kinds.items()}


def _kind_of(field: str) -> str:
    if _SMALL_INT.fullmatch(field):
        return "int"
    if _LARGE_INT.fullmatch(field):
        return "large int"
    if _FLOAT.fullmatch(field):
        return "float"
    return "bool" if field in _BOOLS else "text"


def _converter(kinds: set[str]) -> Callable[[str], Any]:
    if kinds and kinds <= {"int", "large int"}:
        return int
    if kinds and kinds <= {"int", "float"}:
        return float
    return _BOOLS.__getitem__ if kinds == {"bool"} else str


def _iter_csv_records(file: DataFile) -> Iterator[list[str]]:
    """Read the header, then the records, each with as many fields as that."""
    # The limit of the csv module, 128 KiB a field, is one for the process; long documents are longer.
    csv.field_size_limit(_LONGEST_FIELD)
    with _open(file) as opened, io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as text:
        records = csv.reader(text, delimiter=file.delimiter, strict=True)
        header: list[str] | None = None
        try:
            for fields in records:
                if not fields:
                    continue
                if header is None:
                    header = _check_header(fields)
                    yield header
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"line {records.line_num} has {len(fields)} fields, expected {len(header)} as in the header. "
                        "Put fields that contain the delimiter into double quotes."
                    )
                yield fields
        except csv.Error as error:
            raise ValueError(f"line {records.line_num} isn't csv: {error}.") from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"isn't UTF-8 text, some way behind line {records.line_num}: {error.reason}."
            ) from error


def _check_header(fields: list[str]) -> list[str]:
    header = [field or f"Unnamed: {index}" for index, field in enumerate(fields)]
    double = next((column for column in header if header.count(column) > 1), None)
    if double is not None:
        raise ValueError(f"the header names the column `{double}` twice. Rename one of them.")
    return header


# --- parquet --------------------------------------------------------------------------------------


def iter_parquet_rows(files: Sequence[DataFile], skip: int) -> Iterator[Row]:
    """Read the rows behind the first `skip`, part by part; skipped row groups aren't read."""
    return itertools.chain.from_iterable(_iter_parquet(files, skip, lambda batch: batch.to_pylist()))


def iter_parquet_pieces(files: Sequence[DataFile], skip: int) -> Iterator[Piece]:
    """Read the rows behind the first `skip` as `iter_parquet_rows` does, as tables where they can stand for them."""
    return _iter_parquet(files, skip, lambda batch: make_piece(pa.Table.from_batches([batch])))


def _iter_parquet(
    files: Sequence[DataFile], skip: int, make: Callable[[pa.RecordBatch], _Made]
) -> Iterator[_Made]:
    for file in files:
        with _reading(file), _open_parquet(file) as parquet:
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                if skip >= count:
                    skip -= count
                    continue
                for batch in parquet.iter_batches(batch_size=1024, row_groups=[group]):
                    yield make(batch.slice(min(skip, batch.num_rows)))
                    skip = max(0, skip - batch.num_rows)


def peek_parquet_columns(files: Sequence[DataFile]) -> dict[str, bool]:
    """Give the columns of the schemas -> whether each file has it."""
    schemas: list[list[str]] = []
    for file in files:
        with _reading(file), _open_parquet(file) as parquet:
            schemas.append(list(parquet.schema_arrow.names))
    return {column: all(column in schema for schema in schemas) for schema in schemas for column in schema}


@contextlib.contextmanager
def _open_parquet(file: DataFile) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with _open(file) as opened, pq.ParquetFile(opened) as parquet:
        yield parquet
