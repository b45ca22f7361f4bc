"""Makes right what a look through the cache has found, as far as the cache itself knows how.

Whoever calls this holds the leases of the steps. What can't be used is set aside, so that the next run computes it
again. Each change is whole or absent, and what was left undone is found by the next look.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.entries import list_entries
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import seal_store
from distilabel_dagster.cache.pipeline_check import PipelineCheck
from distilabel_dagster.cache.step_check import TEMPORARY_AFTER_S, StepCheck
from distilabel_dagster.cache.step_store import StepStore

_NOTHING_TO_DO: Final = frozenset({"set-aside file", "unknown file", "step directory"})


def repair_step(fs: CacheFileSystem, check: StepCheck, guard: Callable[[], None]) -> bool:
    """Set parts aside that can't be used, and bring the step's marker in line; tell whether there was anything to do.

    Args:
        fs: the cache's files.
        check: what was found.
        guard: raises if the step's lease is lost.

    Raises:
        CacheError: it can't be written.
    """
    if check.is_unreadable or not any(each.kind not in _NOTHING_TO_DO for each in check.findings):
        return False
    marker = f"{check.path}/{layout.COMPLETE_FILE}"
    entries = {entry.name: entry for entry in list_entries(fs, check.path)}
    for name in check.wrong_marks:
        fs.remove(f"{check.path}/{name}")
    for number in check.lost:
        # Its footer may be whole: by the mark the store sees that the part isn't.
        name = layout.part_name(number)
        if name in entries:
            fs.write_bytes(
                f"{check.path}/{name}{layout.DAMAGED_SUFFIX}", b"found by a look through the cache"
            )
    if layout.COMPLETE_FILE in entries and entries[layout.COMPLETE_FILE].kind != "file":
        fs.set_aside(marker, layout.SET_ASIDE_SUFFIX)
    store = StepStore(fs, check.step, check.signature)
    store.guard = guard
    store.open(for_writing=True)
    if store.is_complete:
        seal_store(store)
    elif fs.exists(marker):
        fs.remove(marker)
    return True


def repair_pipeline(
    fs: CacheFileSystem, check: PipelineCheck, checks: Mapping[str, StepCheck], guard: Callable[[], None]
) -> bool:
    """Bring `data/` and the snapshot in line with the parts, and move away what's in the way; tell whether one had to.

    Args:
        fs: the cache's files.
        check: what was found.
        checks: directory of a step -> what its parts say, after its own repair.
        guard: raises if the steps' leases are lost.

    Raises:
        CacheError: it can't be written.
    """
    if not any(each.kind not in _NOTHING_TO_DO for each in check.findings):
        return False
    frozen = layout.pipeline_file(check.signature)
    is_damaged = any(each.kind == "pipeline file" for each in check.findings) and fs.exists(frozen)
    for path in [*check.in_the_way, *([frozen] if is_damaged and frozen not in check.in_the_way else [])]:
        fs.set_aside(path, layout.SET_ASIDE_SUFFIX)
    for name in ("", layout.BATCH_MANAGER_STEPS_DIR):
        fs.remove_temporary_files(f"{check.signature}/{name}".rstrip("/"), TEMPORARY_AFTER_S)
    if check.frozen is None or check.snapshot is None:
        return True
    for step in check.frozen.steps:
        if step.is_leaf:
            _show(fs, check, checks[layout.step_dir(step.name, step.signature)], guard)
    _rewrite_snapshot(fs, check)
    return True


def _show(fs: CacheFileSystem, check: PipelineCheck, step: StepCheck, guard: Callable[[], None]) -> None:
    directory = layout.leaf_dir(check.signature, step.step)
    fs.remove_temporary_files(directory, TEMPORARY_AFTER_S)
    kept = [f"{step.path}/{name}" for name in fs.list_names(step.path) if layout.SET_ASIDE_SUFFIX in name]
    for name in fs.list_names(directory):
        path = f"{directory}/{name}"
        is_extra = (layout.part_number(name) or 0) > step.parts
        # One that's a second name of what was set aside in the step's directory simply goes.
        if is_extra and not any(fs.is_same_file(each, path) for each in kept):
            fs.set_aside(path, layout.SET_ASIDE_SUFFIX)
    store = StepStore(fs, step.step, step.signature, leaf_of=check.signature)
    store.guard = guard
    store.open()
    store.show_all()


def _rewrite_snapshot(fs: CacheFileSystem, check: PipelineCheck) -> None:
    snapshot = check.snapshot
    if snapshot is None:
        return
    damaged = {each.path for each in snapshot.findings}
    for name, content in snapshot.expected.items():
        path = f"{check.signature}/{name}"
        if fs.full_path(path) not in damaged:
            continue
        if name in snapshot.unknown:
            if fs.exists(path):
                fs.set_aside(path, layout.SET_ASIDE_SUFFIX)
        else:
            fs.write_bytes(path, json.dumps(content, indent=2).encode())
