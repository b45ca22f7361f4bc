"""Looks through a step's directory: every row of every part, the order of its batches, and all that lies beside."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from distilabel_dagster.batch import DIGEST_BYTES, BatchRecord
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.entries import Entry, list_entries
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.findings import Finding, Kind, Severity
from distilabel_dagster.cache.footer import decode_footer
from distilabel_dagster.cache.part_file import read_part
from distilabel_dagster.cache.pipeline_cache import build_marker
from distilabel_dagster.cache.tables import narrow_table, unite_schemas
from distilabel_dagster.errors import CacheDirectoryError, CacheError, ColumnTypeError

_TRIES: Final = 3
TEMPORARY_AFTER_S: Final = 60.0
"""Age at which an unfinished write is taken for one that nobody goes on with."""

_AGAIN: Final = "The next run sets it aside and computes its batches again."
ACCESS: Final = (
    "Nothing says that its content is damaged: check the permissions, the disk or the store, and look again."
)
KEPT: Final = "It's kept and never read; remove it when nobody needs it."
_ROWS_DAMAGED: Final = "its rows couldn't be read"

NO_FILE: Final = {
    "directory": "a directory",
    "link": "a symbolic link",
    "special": "a pipe, a socket or a device",
}
"""What stands where a file belongs, in words."""


@dataclass(slots=True)
class StepCheck:
    """What's known of a step's directory.

    Attributes:
        step: the step.
        signature: its signature.
        records: the batches of the parts that can be used: those before the first that can't.
        schemas: the columns of these parts.
        parts_read: parts that were read, those that can't be used included.
        is_marked_complete: whether there's a `complete.json`, right or not.
        is_unreadable: whether something couldn't be got at, so that a repair has to wait.
        lost: numbers of parts whose content is damaged.
        wrong_marks: names of marks of damage beside parts that are whole, or gone.
        findings: what isn't as it should be.
    """

    step: str
    signature: str
    records: list[BatchRecord] = field(default_factory=list)
    schemas: list[pa.Schema] = field(default_factory=list)
    parts_read: int = 0
    is_marked_complete: bool = False
    is_unreadable: bool = False
    lost: list[int] = field(default_factory=list)
    wrong_marks: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The directory."""
        return layout.step_dir(self.step, self.signature)

    @property
    def parts(self) -> int:
        """How many parts can be used; they're numbered from 1."""
        return len(self.schemas)

    @property
    def is_complete(self) -> bool:
        """Whether the last batch is among the usable ones."""
        return bool(self.records) and self.records[-1].last_batch

    @property
    def rows(self) -> int:
        """Rows in the parts that can be used."""
        return sum(record.size for record in self.records)

    @property
    def answers_needed(self) -> int:
        """How many answers of models a ledger must hold at least, for these rows to have been made of them.

        Those of batches with failed rows don't count, since a call that failed has none.
        """
        return sum(len(record.requests) // DIGEST_BYTES for record in self.records if not record.errors)


def check_step(fs: CacheFileSystem, step: str, signature: str) -> StepCheck:
    """Look through a step's directory; nothing is written.

    A run may be writing there: where names changed while files were read, they're read again.
    """
    path = layout.step_dir(step, signature)
    check = StepCheck(step, signature)
    for _ in range(_TRIES):
        try:
            entries = list_entries(fs, path)
            check = StepCheck(step, signature)
            _StepReader(fs, check, entries).read()
            if not check.findings or entries == list_entries(fs, path):
                return check
        except CacheDirectoryError as error:
            problem = f"can't be looked through: {error}"
            check.findings = [Finding(fs.full_path(path), "unreadable", problem, ACCESS)]
            check.is_unreadable = True
            return check
    check.findings = [
        Finding(fs.full_path(path), "step directory", "is being written", "Look again later.", "note")
    ]
    return check


class _StepReader:
    """One look through a step's directory."""

    def __init__(self, fs: CacheFileSystem, check: StepCheck, entries: list[Entry]) -> None:
        self._fs = fs
        self._check = check
        self._entries = {entry.name: entry for entry in entries}
        self._numbers = sorted(number for entry in entries if (number := layout.part_number(entry.name)))

    def read(self) -> None:
        """Go through all entries."""
        missing = self._read_parts()
        marker = self._entries.get(layout.COMPLETE_FILE)
        if marker is not None:
            self._check.is_marked_complete = True
            self._check_marker(marker)
        elif self._check.is_complete and not missing:
            told = "is missing: all batches are there, and the step was never sealed"
            self._add(layout.COMPLETE_FILE, "marker", told, "The next run writes it.", "note")
        for name, entry in self._entries.items():
            if not layout.part_number(name) and name != layout.COMPLETE_FILE:
                self._check_other(name, entry)

    def _read_parts(self) -> bool:
        """Read all parts in order; tell whether one can't be used."""
        broken_at: int | None = None
        for number in self._numbers:
            name = layout.part_name(number)
            expected = self._check.parts + 1
            if broken_at is None and number != expected:
                broken_at = expected
                self._add(
                    layout.part_name(expected), "part", "is missing, and there are parts behind it", _AGAIN
                )
            problem = self._read_part(name, number, is_counted=broken_at is None)
            if self._check.is_unreadable:
                return True
            if broken_at is not None and problem is None:
                told = f"can't be used, though it's whole: part {broken_at} before it is missing or damaged"
                self._add(name, "part", told, _AGAIN)
            elif problem is not None:
                broken_at = broken_at or number
        return broken_at is not None

    def _read_part(self, name: str, number: int, *, is_counted: bool) -> str | None:
        """Read a part; give what's wrong with it, which is noted."""
        entry, mark = self._entries[name], f"{name}{layout.DAMAGED_SUFFIX}"
        if entry.kind != "file":
            self._check.lost.append(number)
            self._add(name, "special file", f"is {NO_FILE[entry.kind]}, expected a part", _AGAIN)
            return "no file"
        try:
            table, records = self._load(name, number)
            if is_counted:
                self._check_order(records)
        except (ValueError, pa.ArrowException, RecursionError, MemoryError) as error:
            problem = " ".join((str(error) or type(error).__name__).split())
            self._check.lost.append(number)
            self._add(name, "part", f"can't be used: {problem}", _AGAIN)
            return problem
        except (OSError, CacheError) as error:
            self._check.is_unreadable = True
            self._add(name, "unreadable", f"can't be read: {error}", ACCESS)
            return str(error)
        if mark in self._entries:
            self._check.wrong_marks.append(mark)
            told = f"says of {name} that {_ROWS_DAMAGED}, which they can"
            self._add(mark, "part", told, "Remove it, or the next run sets that part aside.")
        if is_counted:
            self._check.records += records
            self._check.schemas.append(table.schema)
        return None

    def _load(self, name: str, number: int) -> tuple[pa.Table, list[BatchRecord]]:
        content = self._fs.read_bytes(f"{self._check.path}/{name}")
        self._check.parts_read += 1
        table, footer = read_part(content)
        records = decode_footer(footer, self._check.step, self._check.signature, number)
        if sum(record.size for record in records) != table.num_rows:
            raise ValueError("its footer counts other rows than it holds")
        table.validate(full=True)
        for record in records:
            if record.schema is not None:
                try:
                    narrow_table(table.slice(record.row_offset, record.size), record.schema)
                except KeyError as error:
                    raise ValueError(f"its footer names the column {error}, which it doesn't hold") from error
        return table, records

    def _check_order(self, records: list[BatchRecord]) -> None:
        expected = len(self._check.records)
        found = [record.seq_no for record in records]
        if found != list(range(expected, expected + len(found))):
            raise ValueError(f"it should begin with batch {expected}, and has {found[:3]}")
        if self._check.is_complete:
            raise ValueError("the step's last batch stands before it")
        if any(record.last_batch for record in records[:-1]):
            raise ValueError("it has batches behind the step's last one")

    def _check_marker(self, entry: Entry) -> None:
        name, again = layout.COMPLETE_FILE, "The next run writes it anew, or takes it away."
        if entry.kind != "file":
            self._add(
                name, "special file", f"is {NO_FILE[entry.kind]}, expected the step's marker", "Move it away."
            )
            return
        try:
            found = json.loads(self._fs.read_bytes(f"{self._check.path}/{name}"))
        except (ValueError, RecursionError) as error:
            self._add(name, "marker", f"is no JSON: {error}", again)
            return
        except (OSError, CacheError) as error:
            self._check.is_unreadable = True
            self._add(name, "unreadable", f"can't be read: {error}", ACCESS)
            return
        if not self._check.is_complete:
            told = f"says that the step is complete, but its last batch isn't among the {len(self._check.records)} there are"
            self._add(name, "marker", told, again)
            return
        try:
            schema = unite_schemas(self._check.schemas, self._check.step)
        except ColumnTypeError as error:
            self._add(name, "marker", f"stands beside parts that don't go together: {error}", again)
            return
        expected: Mapping[str, Any] = build_marker(
            self._check.step, self._check.signature, self._check.records, schema
        )
        if found != expected:
            differing = [
                key for key in expected if not isinstance(found, dict) or found.get(key) != expected[key]
            ]
            told = f"isn't what the parts say: {', '.join(f'`{key}`' for key in differing) or 'it says more'}"
            severity: Severity = "note" if self._is_older_than_parts(entry) else "damage"
            self._add(name, "marker", told, again, severity)

    def _is_older_than_parts(self, entry: Entry) -> bool:
        """A run that ended while it computed failed rows again has left the marker as it was before."""
        return any(
            self._entries[layout.part_name(number)].modified_at > entry.modified_at
            for number in self._numbers
        )

    def _check_other(self, name: str, entry: Entry) -> None:
        if entry.is_temporary:
            if entry.age_s > TEMPORARY_AFTER_S:
                told = "was left by a write that was interrupted"
                self._add(name, "temporary file", told, "The next run removes it.", "note")
        elif layout.SET_ASIDE_SUFFIX in name:
            self._add(name, "set-aside file", "was set aside, since it couldn't be used", KEPT, "note")
        elif name.endswith(layout.DAMAGED_SUFFIX) and layout.part_number(
            name.removesuffix(layout.DAMAGED_SUFFIX)
        ):
            part = name.removesuffix(layout.DAMAGED_SUFFIX)
            if part not in self._entries:
                self._check.wrong_marks.append(name)
                self._add(name, "part", f"is about {part}, which is gone", "Remove it.", "note")
        else:
            self._add(name, "unknown file", "isn't of this package; it's never read", "", "note")

    def _add(self, name: str, kind: Kind, problem: str, remedy: str, severity: Severity = "damage") -> None:
        path = self._fs.full_path(f"{self._check.path}/{name}")
        self._check.findings.append(Finding(path, kind, problem, remedy, severity))
