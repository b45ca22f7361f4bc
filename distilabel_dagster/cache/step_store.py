"""A step's committed outputs: `steps_data/<step>_<signature>/`, parts of consecutive batches.

What is committed is always a prefix of the step's batches, and the parts alone say what it is.
"""

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.footer import decode_footer, encode_footer
from distilabel_dagster.cache.part_file import encode_part, read_part, read_part_footer
from distilabel_dagster.cache.part_numbers import find_part_numbers
from distilabel_dagster.cache.tables import EMPTY_TABLE, narrow_table, unite_schemas, widen_table
from distilabel_dagster.errors import CacheError, DamagedFileError

_logger = logging.getLogger("distilabel_dagster.cache")
_OPEN_PARTS: Final = 2
_PART_BYTES: Final = 16 * 1024 * 1024
_DAMAGED: Final = (OSError, ValueError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class _Part:
    records: list[BatchRecord]
    schema: pa.Schema
    footer: bytes


class StepStore:
    """The committed batches of one step under one signature.

    One process writes at a time, which a lease sees to; others may read. Each call that writes is atomic and durable:
    after a crash the batches are those before or those after it.

    Attributes:
        records: the committed batches in order.
        has_lost_parts: whether a part was set aside, now or before.
        problem: which part is the first that can't be used, and why; None where all can be.
        guard: raises if this process isn't the one that may write any more. Each change is made right after it, behind
            a fence that keeps other processes out: one that is paused at any moment, and wakes up when another has taken
            its lease over, changes nothing.

    Args:
        fs: the cache's files.
        step_name: the step.
        signature: its signature.
        leaf_of: signature of the pipeline whose `data/<step>/` shows the parts, where the step is a leaf.
    """

    def __init__(
        self, fs: CacheFileSystem, step_name: str, signature: str, leaf_of: str | None = None
    ) -> None:
        self.fs = fs
        self.step_name = step_name
        self.signature = signature
        self.path = layout.step_dir(step_name, signature)
        self._shown_in = layout.leaf_dir(leaf_of, step_name) if leaf_of else None
        self._parts: dict[int, _Part] = {}
        self.records: list[BatchRecord] = []
        self.has_lost_parts = False
        self.problem: str | None = None
        self._schema: pa.Schema | None = None
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._reading = threading.RLock()
        self.guard: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def _committing(self) -> Iterator[None]:
        with self.fs.fence(self.path):
            self.guard()
            yield

    @property
    def is_complete(self) -> bool:
        """Whether the last batch is committed."""
        return bool(self.records) and self.records[-1].last_batch

    @property
    def schema(self) -> pa.Schema:
        """The union of the schemas of all committed batches."""
        if self._schema is None:
            self._schema = unite_schemas([part.schema for part in self._parts.values()], self.step_name)
        return self._schema

    def part_file(self, number: int) -> str:
        """Path of a part, relative to the cache's root."""
        return f"{self.path}/{layout.part_name(number)}"

    def open(self, *, for_writing: bool = False) -> None:
        """Read the footers of all parts; only rows of batches that follow on each other count.

        Args:
            for_writing: set parts that can't be used aside (renamed, with a warning that names them), so that their
                batches are computed again. Without it they're left where they are.

        Raises:
            StepInUseError: `for_writing`, and who wrote before is still in the middle of it, or `guard` says no.
        """
        self._forget()
        if for_writing:
            with self._committing():
                pass  # whoever was renaming a part when the lease changed hands is through now
        names = self.fs.list_names(self.path)
        self.has_lost_parts = any(layout.SET_ASIDE_SUFFIX in name for name in names)
        if for_writing:
            self.remove_unfinished()
        for number in find_part_numbers(self.fs, self.path, names):
            mark = f"{layout.part_name(number)}{layout.DAMAGED_SUFFIX}"
            problem = "its rows couldn't be read" if mark in names else self._open_part(number)
            if problem and self.problem is None:
                self.problem = f"{self.fs.full_path(self.part_file(number))} can't be used: {problem}"
            if problem and for_writing:
                self.has_lost_parts = True
                with self._committing():
                    self.fs.remove(f"{self.path}/{layout.COMPLETE_FILE}")
                    kept = self.fs.set_aside(self.part_file(number), layout.SET_ASIDE_SUFFIX)
                    self.fs.remove(f"{self.path}/{mark}")
                _logger.warning(
                    "%s can't be used: %s. It was set aside as %s; its batches are computed again.",
                    self.fs.full_path(self.part_file(number)),
                    problem,
                    self.fs.full_path(kept),
                )
            elif problem:
                _logger.warning("%s is not read: %s.", self.fs.full_path(self.part_file(number)), problem)

    def _open_part(self, number: int) -> str | None:
        """Take a part in; give what's wrong with it, if it's there (a store may list what was removed) and anything is."""
        if number != len(self._parts) + 1:
            told = f"{layout.part_name(len(self._parts) + 1)} before it is missing or damaged"
            return told if self.fs.exists(self.part_file(number)) else None
        try:
            part = self._read_footer(number)
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            if _is_about_the_store(error):
                raise
            return str(error) or type(error).__name__
        expected = len(self.records)
        numbers = [record.seq_no for record in part.records]
        if numbers != list(range(expected, expected + len(numbers))):
            return f"it should begin with batch {expected}"
        if self.is_complete:
            return "the step's last batch stands before it"
        self._parts[number] = part
        self.records += part.records
        return None

    def _read_footer(self, number: int) -> _Part:
        with self.fs.open_input(self.part_file(number)) as file:
            footer = read_part_footer(file)
        records = decode_footer(footer.content, self.step_name, self.signature, number)
        if sum(record.size for record in records) != footer.rows:
            raise ValueError("its footer counts other rows than it holds")
        if any(record.schema and set(record.schema.names) - set(footer.schema.names) for record in records):
            raise ValueError("its footer names columns that it doesn't hold")
        return _Part(records, footer.schema, footer.content)

    def append(self, batches: list[Batch]) -> None:
        """Commit batches that follow on those committed; a very large list becomes several parts.

        Raises:
            CacheFullError: what was committed before stays, and so do the parts of this call that were written.
            ColumnTypeError: a column's types can't be united with those of earlier batches.
        """
        group: list[Batch] = []
        size = 0
        for batch in batches:
            if group and size + batch.size_bytes > _PART_BYTES:
                self._write_part(len(self._parts) + 1, group)
                group, size = [], 0
            group.append(batch)
            size += batch.size_bytes
        if group:
            self._write_part(len(self._parts) + 1, group)

    def _write_part(self, number: int, batches: list[Batch]) -> None:
        others = [part.schema for each, part in self._parts.items() if each != number]
        before = others if number in self._parts else [self.schema]
        schema = unite_schemas([*before, *(batch.table.schema for batch in batches)], self.step_name)
        self._write(number, [batch.record for batch in batches], [batch.table for batch in batches], schema)

    def _write(
        self, number: int, records: list[BatchRecord], tables: list[pa.Table], schema: pa.Schema
    ) -> None:
        placed, row_offset = [], 0
        for record, table in zip(records, tables, strict=True):
            own = None if table.schema.equals(schema) else table.schema
            placed.append(replace(record, part=number, row_offset=row_offset, schema=own))
            row_offset += record.size
        whole = pa.concat_tables([widen_table(table, schema, self.step_name) for table in tables])
        content, footer = encode_part(whole, encode_footer(self.step_name, self.signature, placed))
        is_new = number not in self._parts
        # A step may be sealed, and its parts written anew, while those behind it still read them in other threads.
        with contextlib.nullcontext() if is_new else self._reading:
            self.fs.write_bytes(self.part_file(number), content, is_new=is_new, commit=self._committing)
            self._tables.pop(number, None)
            self._take_in(number, _Part(placed, schema, footer))
        self.show(number)

    def _take_in(self, number: int, part: _Part) -> None:
        # A new part only widens the schema; one in place of another may have lost columns.
        is_new = number not in self._parts and self._schema is not None
        self._schema = unite_schemas([self._schema, part.schema], self.step_name) if is_new else None
        first = part.records[0].seq_no
        self._parts[number] = part
        self.records[first : first + len(part.records)] = part.records

    def replace(self, batches: list[Batch]) -> None:
        """Commit other versions of committed batches of one part, which is written anew in one step."""
        again = {batch.record.seq_no: batch for batch in batches}
        number = self.records[batches[0].record.seq_no].part
        versions = [
            again.get(record.seq_no) or Batch(record, self.read(record.seq_no))
            for record in self._parts[number].records
        ]
        self._write_part(number, versions)

    def read(self, seq_no: int) -> pa.Table:
        """Read the rows of a committed batch, with the columns that it was committed with.

        Raises:
            DamagedFileError: the part is gone or can't be read.
        """
        with self._reading:
            table = self._read_part(self.records[seq_no].part)
            record = self.records[seq_no]
        table = table.slice(record.row_offset, record.size)
        if record.schema is None:
            return table
        return narrow_table(table, record.schema, self.fs.full_path(self.part_file(record.part)))

    def _read_part(self, number: int) -> pa.Table:
        table = self._tables.get(number)
        if table is None:
            path = self.part_file(number)
            try:
                table, footer = self._load_part(number)
                if footer != self._parts[number].footer:
                    self._follow_rewrite(number, table.schema, footer)
            except _DAMAGED as error:
                if _is_about_the_store(error):
                    raise
                raise DamagedFileError(
                    f"{self.fs.full_path(path)} can't be read ({str(error).strip()}). Run the pipeline again: the file "
                    "is set aside then, and its batches are computed again.",
                    path=self.fs.full_path(path),
                ) from error
            self._tables[number] = table
            while len(self._tables) > _OPEN_PARTS:
                self._tables.popitem(last=False)
        return table

    def close_parts(self) -> None:
        """Give back the memory of parts that were read, unless someone is reading now; never waits."""
        if self._reading.acquire(blocking=False):
            self._tables.clear()
            self._reading.release()

    def _load_part(self, number: int) -> tuple[pa.Table, bytes]:
        """Read a part; one that can't be is noted, since its footer may look whole to the next run."""
        path = self.part_file(number)
        try:
            return read_part(self.fs.read_bytes(path))
        except _DAMAGED as error:
            if not _is_about_the_store(error) and not isinstance(error, FileNotFoundError):
                with contextlib.suppress(CacheError):
                    self.fs.write_bytes(f"{path}{layout.DAMAGED_SUFFIX}", str(error).strip().encode())
            raise

    def _follow_rewrite(self, number: int, schema: pa.Schema, footer: bytes) -> None:
        """Take note that a part was written anew, with the same batches, by whoever sealed the step."""
        records = decode_footer(footer, self.step_name, self.signature, number)
        known = [(each.seq_no, each.size, each.revision) for each in self._parts[number].records]
        if [(each.seq_no, each.size, each.revision) for each in records] != known:
            raise ValueError("another run has written it anew meanwhile")
        self._take_in(number, _Part(records, schema, footer))

    def read_all(self) -> pa.Table:
        """Read all committed rows in order, in the united schema."""
        with self._reading:
            tables = [self._read_part(number) for number in self._parts]
        schema = self.schema
        tables = [widen_table(table, schema, self.step_name) for table in tables]
        return pa.concat_tables(tables) if tables else EMPTY_TABLE

    def read_head(self, count: int) -> pa.Table:
        """Read the first `count` committed rows, or fewer where there are fewer, in the united schema."""
        schema, tables, left = self.schema, [], count
        for number in self._parts:
            if left <= 0:
                break
            with self._reading:
                table = self._read_part(number).slice(0, left)
            tables.append(widen_table(table, schema, self.step_name))
            left -= table.num_rows
        self.close_parts()  # who asks for a few rows is done with them
        return pa.concat_tables(tables) if tables else EMPTY_TABLE

    def show(self, number: int) -> None:
        """Make a part appear in the pipeline's `data/<step>/`, where the step is a leaf."""
        if self._shown_in is not None:
            shown = f"{self._shown_in}/{layout.part_name(number)}"
            self.fs.link(self.part_file(number), shown, commit=self._committing)

    def show_all(self) -> None:
        """Bring `data/<step>/` in line with the committed parts, where the step is a leaf; safe to repeat."""
        if self._shown_in is None:
            return
        for number in self._parts:
            shown = f"{self._shown_in}/{layout.part_name(number)}"
            if not self.fs.is_same_file(self.part_file(number), shown):
                self.show(number)
        for number in find_part_numbers(self.fs, self._shown_in, self.fs.list_names(self._shown_in)):
            if number not in self._parts:
                self._remove(f"{self._shown_in}/{layout.part_name(number)}")

    def reset(self) -> None:
        """Forget all committed batches, last part first, so that a crash half-way leaves a prefix."""
        self._remove(f"{self.path}/{layout.COMPLETE_FILE}")
        for number in sorted(self._parts, reverse=True):
            self._remove(self.part_file(number))
            if self._shown_in is not None:
                self._remove(f"{self._shown_in}/{layout.part_name(number)}")
        self._forget()

    def remove_unfinished(self, older_than_s: float = 0.0) -> None:
        """Remove files that a killed process had begun to write, as far as they're older; 0 is for the one writer."""
        for directory in filter(None, (self.path, self._shown_in)):
            self.fs.remove_temporary_files(directory, older_than_s)

    def write_beside(self, name: str, content: bytes) -> None:
        """Write a file that says something of the parts, into their directory."""
        self.fs.write_bytes(f"{self.path}/{name}", content, commit=self._committing)

    def _remove(self, path: str) -> None:
        with self._committing():
            self.fs.remove(path)

    def _forget(self) -> None:
        with self._reading:
            self._parts, self.records, self.problem = {}, [], None
            self._schema = None
            self._tables.clear()

    def truncate(self, count: int) -> None:
        """Forget all but the first `count` committed batches, the last part first."""
        self._remove(f"{self.path}/{layout.COMPLETE_FILE}")
        for number in sorted(self._parts, reverse=True):
            kept = [record for record in self._parts[number].records if record.seq_no < count]
            if len(kept) == len(self._parts[number].records):
                break
            del self.records[max(count, self._parts[number].records[0].seq_no) :]
            if kept:
                self._write(
                    number, kept, [self.read(record.seq_no) for record in kept], self._parts[number].schema
                )
            else:
                self._remove(self.part_file(number))
                del self._parts[number]
                self._schema = None
                self._tables.pop(number, None)

    def unite_parts(self) -> None:
        """Give all parts the one schema of the step, for readers that look at files one by one; safe to repeat."""
        schema = self.schema
        for number, part in list(self._parts.items()):
            if not part.schema.equals(schema):
                tables = [self.read(record.seq_no) for record in part.records]
                self._write(number, part.records, tables, schema)


def _is_about_the_store(error: Exception) -> bool:
    """Whether the file couldn't be got at (permissions, network), which says nothing of what it holds."""
    if isinstance(error, CacheError):
        cause = error.__cause__
        while isinstance(cause, CacheError):
            cause = cause.__cause__
        return not isinstance(cause, IsADirectoryError)
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError)


def describe_schema(schema: pa.Schema) -> dict[str, Any]:
    """Give a schema as column name -> type, for markers and metadata."""
    return {field.name: str(field.type) for field in schema}


def count_failed_rows(records: Iterable[BatchRecord]) -> int:
    """Count the rows that failed."""
    return sum(record.failed_rows for record in records)
