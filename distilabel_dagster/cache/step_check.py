"""Looks through a step's directory: every row of every part, the order of its batches, and all that lies beside."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.entries import Entry, list_entries
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.findings import Finding
from distilabel_dagster.cache.footer import decode_footer
from distilabel_dagster.cache.part_file import read_part
from distilabel_dagster.cache.pipeline_cache import build_marker, read_marker_file
from distilabel_dagster.cache.tables import narrow_table, unite_schemas
from distilabel_dagster.errors import CacheError, ColumnTypeError

_TRIES: Final = 3
_TEMPORARY_AFTER_S: Final = 60.0
_NEXT_RUN: Final = "The next run sets it aside and computes its batches again, as far as they aren't whole elsewhere."


@dataclass(slots=True)
class StepCheck:
    """What's known of a step's directory.

    Attributes:
        step: the step.
        signature: its signature.
        records: the batches of the parts that can be used: those before the first that can't.
        parts: how many parts that are.
        read: parts that were read, damaged ones included.
        is_sealed: whether its marker is there.
        unmarkable: numbers of parts whose footer may look whole to a run, so that it wouldn't see the damage.
        findings: what isn't as it should be.
    """

    step: str
    signature: str
    records: list[BatchRecord] = field(default_factory=list)
    parts: int = 0
    read: int = 0
    is_sealed: bool = False
    findings: list[Finding] = field(default_factory=list)
    schemas: list[pa.Schema] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The directory."""
        return layout.step_dir(self.step, self.signature)

    @property
    def is_complete(self) -> bool:
        """Whether the last batch is among the usable ones."""
        return bool(self.records) and self.records[-1].last_batch

    @property
    def rows(self) -> int:
        """Rows in the parts that can be used."""
        return sum(record.size for record in self.records)


def check_step(fs: CacheFileSystem, step: str, signature: str) -> StepCheck:
    """Look through a step's directory; nothing is written.

    A run may be writing it: where files changed while they were read, they're read again.

    Raises:
        CacheDirectoryError: the directory can't be listed.
    """
    path = layout.step_dir(step, signature)
    entries = list_entries(fs, path)
    for _ in range(_TRIES):
        check = StepCheck(step, signature)
        _look_through(fs, check, entries)
        before, entries = entries, list_entries(fs, path)
        if entries == before or not check.findings:
            return check
    note = Finding(fs.full_path(path), "step directory", "is being written", "Look again later.", "note")
    check.findings = [note]
    return check
