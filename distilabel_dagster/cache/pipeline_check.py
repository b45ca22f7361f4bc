"""Looks through a pipeline's directory: its file, what `data/` shows of its leaf steps, its snapshot, and the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.entries import Entry, list_entries
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.findings import Finding, Kind, Severity
from distilabel_dagster.cache.footer import decode_footer
from distilabel_dagster.cache.frozen_pipeline import FrozenPipeline, FrozenStep, parse_frozen
from distilabel_dagster.cache.part_file import read_part
from distilabel_dagster.cache.pipeline_cache import read_pipeline_file
from distilabel_dagster.cache.snapshot_check import SnapshotCheck, check_snapshot
from distilabel_dagster.cache.step_check import ACCESS, KEPT, NO_FILE, TEMPORARY_AFTER_S, StepCheck
from distilabel_dagster.errors import CacheDirectoryError, CacheError

_AGAIN: Final = "The next run of the pipeline brings it in line with the step's parts."
_REWRITTEN: Final = "The next run of the pipeline writes it again."
_DIRECTORIES: Final = frozenset({layout.DATA_DIR, layout.BATCH_MANAGER_STEPS_DIR})
_FILES: Final = frozenset({layout.PIPELINE_FILE, layout.LOG_FILE, layout.BATCH_MANAGER_FILE})


@dataclass(slots=True)
class PipelineCheck:
    """What's known of a pipeline's directory.

    Attributes:
        signature: the pipeline's, which names the directory.
        frozen: the pipeline, where its file can be read.
        snapshot: its snapshot, where all its steps could be looked through.
        in_the_way: paths where something stands that's no file, or no directory, as it should be.
        findings: what isn't as it should be.
    """

    signature: str
    frozen: FrozenPipeline | None = None
    snapshot: SnapshotCheck | None = None
    in_the_way: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read_frozen(fs: CacheFileSystem, signature: str) -> tuple[FrozenPipeline | None, Finding | None]:
    """Read a pipeline's file, or say what's wrong with it; neither where the directory has none."""
    path = fs.full_path(layout.pipeline_file(signature))
    try:
        fs.read_bytes(layout.pipeline_file(signature))
    except FileNotFoundError:
        return None, None
    except (OSError, CacheError) as error:
        return None, Finding(path, "unreadable", f"can't be read: {error}", ACCESS)
    try:
        return parse_frozen(read_pipeline_file(fs, signature), signature), None
    except (ValueError, OSError) as error:
        told = str(error).removeprefix(f"{path} ")
        return None, Finding(path, "pipeline file", told)


def check_pipeline(
    fs: CacheFileSystem,
    signature: str,
    frozen: FrozenPipeline | None,
    problem: Finding | None,
    checks: Mapping[str, StepCheck],
) -> PipelineCheck:
    """Look through a pipeline's directory; nothing is written.

    Args:
        fs: the cache's files.
        signature: the pipeline's.
        frozen: the pipeline, or None where its file can't be read.
        problem: what's wrong with its file.
        checks: directory of a step -> what its parts say, for all steps of the pipeline.
    """
    check = PipelineCheck(signature, frozen, findings=[problem] if problem is not None else [])
    try:
        _PipelineReader(fs, check, checks).read()
    except CacheDirectoryError as error:
        told = f"can't be looked through: {error}"
        check.findings.append(Finding(fs.full_path(signature), "unreadable", told, ACCESS))
    return check


class _PipelineReader:
    """One look through a pipeline's directory."""

    def __init__(self, fs: CacheFileSystem, check: PipelineCheck, checks: Mapping[str, StepCheck]) -> None:
        self._fs = fs
        self._check = check
        self._steps: dict[str, StepCheck] = {}
        if check.frozen is not None:
            for step in check.frozen.steps:
                self._steps[step.name] = checks[layout.step_dir(step.name, step.signature)]

    def read(self) -> None:
        """Go through all that's there."""
        signature = self._check.signature
        entries = {entry.name: entry for entry in list_entries(self._fs, signature)}
        for name, entry in list(entries.items()):
            expected = "directory" if name in _DIRECTORIES else "file"
            if name in _DIRECTORIES | _FILES and entry.kind != expected:
                self._note_in_the_way(name, f"is {NO_FILE.get(entry.kind, 'a file')}, expected a {expected}")
            elif name not in _DIRECTORIES | _FILES:
                self._check_other(name, entry)
        if layout.BATCH_MANAGER_STEPS_DIR in entries and not self._is_in_the_way(
            layout.BATCH_MANAGER_STEPS_DIR
        ):
            for entry in list_entries(self._fs, f"{signature}/{layout.BATCH_MANAGER_STEPS_DIR}"):
                entries[f"{layout.BATCH_MANAGER_STEPS_DIR}/{entry.name}"] = entry
        self._check_pipeline_file(entries)
        if self._check.frozen is None:
            return
        self._check_steps(self._check.frozen)
        if not any(step.is_unreadable for step in self._steps.values()):
            self._check_snapshot(self._check.frozen, entries)
            if not self._is_in_the_way(layout.DATA_DIR):
                self._check_data(self._check.frozen)

    def _check_pipeline_file(self, entries: Mapping[str, Entry]) -> None:
        if layout.PIPELINE_FILE in entries or not self._fs.exists(self._check.signature):
            return
        self._add(layout.PIPELINE_FILE, "pipeline file", "is missing", _REWRITTEN, "note")

    def _check_steps(self, frozen: FrozenPipeline) -> None:
        for step in frozen.steps:
            check = self._steps[step.name]
            followers = [each.name for each in frozen.steps if step.name in each.predecessors]
            made = [each for each in followers if self._steps[each].records]
            path = self._fs.full_path(check.path)
            if made and not self._fs.exists(check.path):
                told = f"is missing, though step `{made[0]}` was made of its rows"
                remedy = "The next run makes it anew."
                self._check.findings.append(Finding(path, "step directory", told, remedy, "note"))
            elif not check.is_unreadable:
                self._check_sources(step)

    def _check_sources(self, step: FrozenStep) -> None:
        check = self._steps[step.name]
        for name in step.predecessors:
            before = self._steps[name]
            reached = max((_reach(record, name) for record in check.records), default=-1)
            if reached >= len(before.records) and before.records and not before.is_unreadable:
                told = f"has rows made of batch {reached} of `{name}`, which has only {len(before.records)} batches now"
                path = self._fs.full_path(check.path)
                remedy = "The next run computes them again."
                self._check.findings.append(Finding(path, "step directory", told, remedy, "note"))

    def _check_snapshot(self, frozen: FrozenPipeline, entries: Mapping[str, Entry]) -> None:
        files = {name: entry for name, entry in entries.items() if name not in _DIRECTORIES}
        self._check.snapshot = check_snapshot(self._fs, self._check.signature, frozen, self._steps, files)
        self._check.findings += [
            each for each in self._check.snapshot.findings if not self._is_known(each.path)
        ]
        known = self._check.snapshot.expected
        prefix = f"{layout.BATCH_MANAGER_STEPS_DIR}/"
        for name, entry in files.items():
            if name.startswith(prefix) and name not in known:
                self._check_other(name, entry)
            elif name in known and entry.kind != "file" and not self._is_in_the_way(name):
                self._check.in_the_way.append(f"{self._check.signature}/{name}")

    def _check_data(self, frozen: FrozenPipeline) -> None:
        leaves = {step.name: step for step in frozen.steps if step.is_leaf}
        for entry in list_entries(self._fs, layout.data_dir(self._check.signature)):
            name = f"{layout.DATA_DIR}/{entry.name}"
            if entry.name not in leaves:
                told = "isn't of a leaf step of this pipeline; `create_distiset` may take it for one's rows"
                if entry.kind == "directory":
                    self._add(name, "unknown file", told, "Move it away.", "note")
                else:
                    self._check_other(name, entry)
            elif entry.kind != "directory":
                self._note_in_the_way(name, f"is {NO_FILE.get(entry.kind, 'a file')}, expected a directory")
        for step in leaves.values():
            if not self._is_in_the_way(f"{layout.DATA_DIR}/{step.name}"):
                self._check_shown(step)

    def _check_shown(self, step: FrozenStep) -> None:
        """Compare what's shown of a leaf step with its parts."""
        check = self._steps[step.name]
        directory = f"{layout.DATA_DIR}/{step.name}"
        entries = {
            entry.name: entry for entry in list_entries(self._fs, f"{self._check.signature}/{directory}")
        }
        expected = [layout.part_name(number) for number in range(1, check.parts + 1)]
        shown = [name for name in expected if name in entries]
        has_ended = self._check.snapshot is not None and step.name in self._check.snapshot.ended
        for number, name in enumerate(expected, start=1):
            if name in entries:
                self._compare_shown(step, number, f"{directory}/{name}", entries[name])
            elif has_ended or number <= len(shown):
                self._add(f"{directory}/{name}", "shown part", "is missing", _AGAIN)
            else:
                self._add(f"{directory}/{name}", "shown part", "isn't there yet", _AGAIN, "note")
        for name, entry in entries.items():
            if name in expected:
                continue
            if layout.part_number(name) is not None:
                self._check_extra(step, f"{directory}/{name}", entry)
            else:
                self._check_other(f"{directory}/{name}", entry)

    def _compare_shown(self, step: FrozenStep, number: int, name: str, entry: Entry) -> None:
        check = self._steps[step.name]
        if entry.kind != "file":
            self._note_in_the_way(name, f"is {NO_FILE[entry.kind]}, expected the step's part")
            return
        own, shown = f"{check.path}/{layout.part_name(number)}", f"{self._check.signature}/{name}"
        try:
            if self._fs.is_same_file(own, shown):
                return
            records = self._read_shown(step, number, shown)
        except (ValueError, pa.ArrowException) as error:
            told = f"isn't the part {self._fs.full_path(own)}, and is damaged: {error}"
            self._add(name, "shown part", told, _AGAIN)
        except (OSError, CacheError) as error:
            self._add(name, "unreadable", f"can't be read: {error}", ACCESS)
        else:
            mine = [record.seq_no for record in check.records if record.part == number]
            is_earlier = [record.seq_no for record in records] == mine
            told = f"isn't the part {self._fs.full_path(own)}" + (
                ", but an earlier one" if is_earlier else ""
            )
            self._add(name, "shown part", told, _AGAIN, "note" if is_earlier else "damage")

    def _check_extra(self, step: FrozenStep, name: str, entry: Entry) -> None:
        """A part that's shown and that the step hasn't; it may have had it."""
        told = "is shown, and the step has no such part that can be used"
        if entry.kind != "file":
            self._note_in_the_way(name, f"is {NO_FILE[entry.kind]} where nothing is expected")
            return
        try:
            self._read_shown(step, 1, f"{self._check.signature}/{name}")
        except (ValueError, OSError, pa.ArrowException) as error:
            self._add(name, "shown part", f"{told}: {error}", _AGAIN)
        else:
            self._add(name, "shown part", f"{told} (any more)", _AGAIN, "note")

    def _read_shown(self, step: FrozenStep, number: int, path: str) -> list[BatchRecord]:
        _, footer = read_part(self._fs.read_bytes(path))
        return decode_footer(footer, step.name, step.signature, number)

    def _check_other(self, name: str, entry: Entry) -> None:
        if entry.is_temporary:
            if entry.age_s > TEMPORARY_AFTER_S:
                told = "was left by a write that was interrupted"
                self._add(name, "temporary file", told, "Remove it.", "note")
        elif layout.SET_ASIDE_SUFFIX in name:
            self._add(name, "set-aside file", "was set aside, since it couldn't be used", KEPT, "note")
        else:
            self._add(name, "unknown file", "isn't of this package", "", "note")

    def _note_in_the_way(self, name: str, problem: str) -> None:
        self._check.in_the_way.append(f"{self._check.signature}/{name}")
        self._add(name, "special file", problem, "Move it away; the next run makes what belongs there.")

    def _is_in_the_way(self, name: str) -> bool:
        return f"{self._check.signature}/{name}" in self._check.in_the_way

    def _is_known(self, path: str) -> bool:
        return any(each.path == path for each in self._check.findings)

    def _add(self, name: str, kind: Kind, problem: str, remedy: str, severity: Severity = "damage") -> None:
        path = self._fs.full_path(f"{self._check.signature}/{name}")
        self._check.findings.append(Finding(path, kind, problem, remedy, severity))


def _reach(record: BatchRecord, predecessor: str) -> int:
    return max((source.seq_no for source in record.sources.get(predecessor, ())), default=-1)
