"""Rows of many parts as one table: in memory where they're few, else in a file that is mapped into it."""

import contextlib
import hashlib
import logging
import os
import secrets
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from distilabel_dagster.cache.tables import widen_table
from distilabel_dagster.errors import DistisetError

if TYPE_CHECKING:
    from datasets.table import Table

_IN_MEMORY_BYTES: Final = 64 * 1024 * 1024
_READERS: Final = 2
_ROWS_OF_BATCH: Final = 10_000

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartRows:
    """The rows of one part, and a digest of the file that they were read from."""

    digest: bytes
    table: pa.Table


class _FileNotWrittenError(Exception):
    """The file for the rows can't be written; the error behind it says why."""


def collect_rows(
    paths: Sequence[str],
    read: Callable[[str], PartRows],
    unite: Callable[[list[pa.Schema]], pa.Schema],
    read_schema: Callable[[str], pa.Schema],
    step: str,
) -> "tuple[Table, str]":
    """Read parts into one table of `datasets`; give it, and a fingerprint of what was read.

    Rows of more than 64 MB are written to a file below `HF_DATASETS_CACHE`, where `datasets` itself keeps what it loads,
    and mapped into memory from there, so that only what is looked at takes room; a few parts at a time are in memory
    meanwhile. The same parts go to the same file again. Where it can't be written, the rows are held in memory, and a
    warning says so.

    Args:
        paths: the parts in order.
        read: reads one; called in threads, for several at a time.
        unite: gives the schema that holds the rows of parts with these.
        read_schema: gives a part's schema without reading its rows.
        step: whose rows they are, for messages.

    Raises:
        DistisetError: a part got other columns while it was read.
        CacheError, ColumnTypeError: as the functions given.
    """
    held: deque[PartRows] = deque()
    size_bytes = 0
    with contextlib.closing(read_ahead(read, paths)) as parts:
        for part in parts:
            held.append(part)
            size_bytes += part.table.nbytes
            if size_bytes > _IN_MEMORY_BYTES:
                schema = unite([read_schema(path) for path in paths])
                try:
                    return _map_rows(chain(_drain(held), parts), schema, step)
                except _FileNotWrittenError as error:
                    _logger.warning(
                        "The rows of `%s` are held in memory: %s. Free some space there, or set HF_DATASETS_CACHE to a "
                        "directory with more, to have them mapped from a file.",
                        step,
                        error,
                    )
                    break
        else:
            return _hold_rows(list(held), unite, step)
    with contextlib.closing(read_ahead(read, paths)) as parts:
        return _hold_rows(list(parts), unite, step)


def read_ahead(read: Callable[[str], PartRows], paths: Sequence[str]) -> Generator[PartRows, None, None]:
    """Read parts in order, a few of them at the same time.

    Args:
        read: reads one; called in threads.
        paths: the parts; close the iterator to leave the rest.
    """
    left = iter(paths)
    with ThreadPoolExecutor(_READERS) as readers:
        reading: deque[Future[PartRows]] = deque(
            readers.submit(read, path) for path in islice(left, _READERS)
        )
        try:
            while reading:
                part = reading.popleft().result()
                reading.extend(readers.submit(read, path) for path in islice(left, 1))
                yield part
        finally:
            for each in reading:
                each.cancel()


def _drain(held: deque[PartRows]) -> Iterator[PartRows]:
    while held:
        yield held.popleft()


def _hold_rows(
    parts: list[PartRows], unite: Callable[[list[pa.Schema]], pa.Schema], step: str
) -> "tuple[Table, str]":
    from datasets.table import InMemoryTable

    schema = unite([part.table.schema for part in parts])
    tables = (_fit(part.table, schema, step) for part in parts)
    whole = pa.concat_tables(tables).replace_schema_metadata(schema.metadata)
    return InMemoryTable(whole), _fingerprint(part.digest for part in parts)


def _map_rows(parts: Iterator[PartRows], schema: pa.Schema, step: str) -> "tuple[Table, str]":
    from datasets import config
    from datasets.table import MemoryMappedTable

    directory = Path(config.HF_DATASETS_CACHE) / "distilabel_dagster"
    digests = []
    with _RowFile(directory, schema) as file:
        for part in parts:
            digests.append(part.digest)
            file.write(_fit(part.table, schema, step))
        fingerprint = _fingerprint(digests)
        path = file.finish(f"{fingerprint}.arrow")
    return MemoryMappedTable.from_file(str(path)), fingerprint


def _fit(table: pa.Table, schema: pa.Schema, step: str) -> pa.Table:
    if new := set(table.schema.names) - set(schema.names):
        raise DistisetError(
            f"The rows of `{step}` got the columns {', '.join(f'`{name}`' for name in sorted(new))} while they were read: a "
            "run is rewriting them. Try again when that has ended."
        )
    return widen_table(table.replace_schema_metadata(None), schema.remove_metadata(), step)


def _fingerprint(digests: Any) -> str:
    """Name what was read; left to itself, `datasets` pickles all rows for that, which takes longer than to read them."""
    return hashlib.blake2b(b"".join(digests), digest_size=8).hexdigest()


class _RowFile:
    """A file of Arrow's stream format under a temporary name, gone at the end of the block unless it was finished."""

    def __init__(self, directory: Path, schema: pa.Schema) -> None:
        self._directory = directory
        self._schema = schema
        self._temporary = directory / f".{os.getpid()}-{secrets.randbits(48)}.arrow"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _FileNotWrittenError(
                f"{self._temporary} can't be written ({error.strerror or error})"
            ) from error

    def __enter__(self) -> "_RowFile":
        with self._writing():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._sink = pa.OSFile(str(self._temporary), "wb")
            self._writer = pa.ipc.new_stream(self._sink, self._schema)
        return self

    def write(self, table: pa.Table) -> None:
        with self._writing():
            self._writer.write_table(table, max_chunksize=_ROWS_OF_BATCH)

    def finish(self, name: str) -> Path:
        """Give the file its name, in place of one that was written before."""
        path = self._directory / name
        with self._writing():
            self._writer.close()
            self._sink.close()
            self._temporary.replace(path)
        return path

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._sink.close()
        self._temporary.unlink(missing_ok=True)
