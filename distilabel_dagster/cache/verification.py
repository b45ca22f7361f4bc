"""Looks through a cache for damage: every row of every part, and every other file; and makes right what can be.

It only reads, unless a repair is asked for. What it finds is told; nothing is raised but for a cache that can't be
looked at.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol

from distilabel_dagster.base.signature import is_signature
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.entries import list_entries
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.findings import Finding, Kind, Verification, compare
from distilabel_dagster.cache.pipeline_check import check_pipeline, read_frozen
from distilabel_dagster.cache.repair import repair_pipeline, repair_step
from distilabel_dagster.cache.step_check import ACCESS, KEPT, NO_FILE, StepCheck, check_step
from distilabel_dagster.errors import CacheDirectoryError

_ORPHAN: Final = "Its pipeline was removed or can't be read now, or it holds an asset that's no step. A pipeline with that step uses it."


class Guard(Protocol):
    """Proof that nobody else writes to some steps' directories."""

    def check(self) -> None:
        """Raise if it was lost."""
        ...


Lease = Callable[[list[str]], AbstractContextManager[Guard | None]]
"""Takes the leases on some steps' directories, or raises StepInUseError; None where a cache has none."""


def verify_cache(
    fs: CacheFileSystem, signature: str | None = None, *, lease: Lease | None = None
) -> Verification:
    """Look through a cache, or through one pipeline of it with its steps.

    Args:
        fs: the cache's files.
        signature: the pipeline's; None for all that the cache holds.
        lease: given where what's found is to be repaired; called once, with all directories that may be written.
            Nothing is deleted by a repair but marks, unfinished writes and second names of files: what can't be used is
            set aside. Repeating it is safe.

    Raises:
        CacheDirectoryError: the cache's directory can't be listed.
        StepInUseError: a run is at one of the steps, so nothing was repaired.
        CacheError: a repair can't be written.
    """
    look = _Look(fs, signature)
    if lease is None:
        look.go_through()
    else:
        with lease(sorted(look.steps)) as guard:
            look.repair_under = guard.check if guard is not None else lambda: None
            look.go_through()
    return look.result


class _Look:
    """One look through the cache."""

    def __init__(self, fs: CacheFileSystem, signature: str | None) -> None:
        self._fs = fs
        self.result = Verification()
        self.repair_under: Callable[[], None] | None = None
        self._pipelines = [signature] if signature else _list_pipelines(fs)
        self._frozen = {each: read_frozen(fs, each) for each in self._pipelines}
        named = [step for frozen, _ in self._frozen.values() if frozen is not None for step in frozen.steps]
        self.steps = {
            layout.step_dir(step.name, step.signature): (step.name, step.signature) for step in named
        }
        if signature is None:
            self._take_in_others()

    def _take_in_others(self) -> None:
        """Steps that no pipeline names, and what's no step at all."""
        try:
            entries = list_entries(self._fs, layout.STEPS_DATA_DIR)
        except CacheDirectoryError as error:
            path = self._fs.full_path(layout.STEPS_DATA_DIR)
            self.result.findings.append(
                Finding(path, "unreadable", f"can't be looked through: {error}", ACCESS)
            )
            return
        for entry in entries:
            path = f"{layout.STEPS_DATA_DIR}/{entry.name}"
            name, _, signature = entry.name.rpartition("_")
            if not (name and is_signature(signature)):
                told = KEPT if layout.SET_ASIDE_SUFFIX in entry.name else ""
                self._note(path, "unknown file", "isn't of this package", told)
            elif entry.kind in ("file", "special"):
                self._note(
                    path, "unknown file", f"is {NO_FILE.get(entry.kind, 'a file')}, no step's directory", ""
                )
            elif path not in self.steps:
                self._note(path, "step directory", "is named by no pipeline", _ORPHAN)
                self.steps[path] = (name, signature)

    def go_through(self) -> None:
        """Check all, and repair what's found where that's asked for."""
        checks = {}
        for path, (name, signature) in self.steps.items():
            checks[path] = self._go_through_step(name, signature)
        for signature in self._pipelines:
            self._go_through_pipeline(signature, checks)
        self.result.pipelines = len(self._pipelines)
        self.result.steps = sum(bool(check.parts_read or check.findings) for check in checks.values())
        self.result.parts = sum(check.parts_read for check in checks.values())
        self.result.rows = sum(check.rows for check in checks.values())
        self.result.answers_needed = max((check.answers_needed for check in checks.values()), default=0)

    def _go_through_step(self, name: str, signature: str) -> StepCheck:
        check = check_step(self._fs, name, signature)
        if self.repair_under is None or not repair_step(self._fs, check, self.repair_under):
            self.result.findings += check.findings
            return check
        after = check_step(self._fs, name, signature)
        self.result.findings += compare(check.findings, after.findings)
        return after

    def _go_through_pipeline(self, signature: str, checks: dict[str, StepCheck]) -> None:
        found = check_pipeline(self._fs, signature, *self._frozen[signature], checks)
        if self.repair_under is None or not repair_pipeline(self._fs, found, checks, self.repair_under):
            self.result.findings += found.findings
            return
        after = check_pipeline(self._fs, signature, *read_frozen(self._fs, signature), checks)
        self.result.findings += compare(found.findings, after.findings)

    def _note(self, path: str, kind: Kind, problem: str, remedy: str) -> None:
        self.result.findings.append(Finding(self._fs.full_path(path), kind, problem, remedy, "note"))


def _list_pipelines(fs: CacheFileSystem) -> list[str]:
    return [name for name in fs.list_names("") if layout.is_pipeline_dir(name)]
