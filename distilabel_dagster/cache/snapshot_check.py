"""Compares the snapshot of a run, `batch_manager.json` and its companions, with what the parts say.

Nothing is read from the snapshot to resume, and a run that was killed, or one of another pipeline that shares steps,
leaves it behind. So what only counts other batches than there are is worth a note; anything else wrong is damage.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.checkpoint import StepSnapshot, describe_snapshot
from distilabel_dagster.cache.entries import Entry
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.findings import Finding, Severity
from distilabel_dagster.cache.frozen_pipeline import FrozenPipeline
from distilabel_dagster.cache.step_check import NO_FILE, StepCheck
from distilabel_dagster.errors import CacheError

_AGAIN: Final = "The next run of the pipeline writes it; nothing is read from it."
_LAST: Final = ("last_batch_received", "last_batch_sent")
_Problem = tuple[Severity, str]


@dataclass(slots=True)
class SnapshotCheck:
    """What's known of a pipeline's snapshot.

    Attributes:
        expected: what each file should hold, by its path in the pipeline's directory.
        unknown: files of which that isn't known, since only the damaged ones said whether a step takes all rows at once.
        ended: steps of which it says that their last batch is committed.
        findings: what isn't as it should be.
    """

    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


def check_snapshot(
    fs: CacheFileSystem,
    signature: str,
    frozen: FrozenPipeline,
    checks: Mapping[str, StepCheck],
    entries: Mapping[str, Entry],
) -> SnapshotCheck:
    """Look through a pipeline's snapshot; nothing is written.

    Args:
        fs: the cache's files.
        signature: the pipeline's.
        frozen: the pipeline.
        checks: step -> what its parts say.
        entries: what's in the pipeline's directory and in `batch_manager_steps`, by path relative to the former.
    """
    reader = _SnapshotReader(fs, signature, entries)
    found = {name: reader.read(name) for name in _files_of(frozen)}
    steps, unknown = _describe_steps(frozen, checks, found)
    check = SnapshotCheck(describe_snapshot(steps), unknown)
    check.ended = {
        step.name for step in frozen.steps if _says_ended(found[layout.BATCH_MANAGER_FILE], step.name)
    }
    is_begun = layout.LOG_FILE in entries or any(name in entries for name in found)
    is_whole = all(
        checks[step.name].is_complete and checks[step.name].is_marked_complete for step in frozen.steps
    )
    for name, expected in check.expected.items():
        if name in reader.problems:
            problem: _Problem | None = reader.problems[name]
        elif name not in entries:
            was_set_aside = any(each.startswith(f"{name}{layout.SET_ASIDE_SUFFIX}") for each in entries)
            severity: Severity = "damage" if is_whole and not was_set_aside else "note"
            problem = (severity, "is missing") if is_begun else None
        else:
            judge = _judge_manager if name == layout.BATCH_MANAGER_FILE else _judge_step
            problem = judge(found[name], expected)
        if problem is not None:
            path = fs.full_path(f"{signature}/{name}")
            check.findings.append(Finding(path, "snapshot", problem[1], _AGAIN, problem[0]))
    return check


def _files_of(frozen: FrozenPipeline) -> list[str]:
    with_input = [step.name for step in frozen.steps if step.input_batch_size is not None]
    return [layout.BATCH_MANAGER_FILE, *(layout.batch_manager_step_name(name) for name in with_input)]


class _SnapshotReader:
    """Reads the files as JSON and keeps what was wrong with those that can't be."""

    def __init__(self, fs: CacheFileSystem, signature: str, entries: Mapping[str, Entry]) -> None:
        self._fs = fs
        self._signature = signature
        self._entries = entries
        self.problems: dict[str, _Problem] = {}

    def read(self, name: str) -> Any:
        """Give a file's content; None where there's none or none that can be read."""
        if name not in self._entries:
            return None
        kind = self._entries[name].kind
        if kind != "file":
            self.problems[name] = ("damage", f"is {NO_FILE[kind]}, expected JSON")
            return None
        try:
            found = json.loads(self._fs.read_bytes(f"{self._signature}/{name}"))
        except (ValueError, RecursionError) as error:
            self.problems[name] = ("damage", f"is no JSON: {error}")
        except (OSError, CacheError) as error:
            self.problems[name] = ("damage", f"can't be read: {error}")
        else:
            if isinstance(found, dict):
                return found
            self.problems[name] = ("damage", f"is a {type(found).__name__}, expected a mapping")
        return None


def _describe_steps(
    frozen: FrozenPipeline, checks: Mapping[str, StepCheck], found: Mapping[str, Any]
) -> tuple[list[StepSnapshot], set[str]]:
    """What the snapshot is made of; whether a step takes all rows at once is known to its class and to the snapshot only."""
    steps, unknown = [], set()
    for step in frozen.steps:
        is_global = _find_is_global(step.name, found) if step.input_batch_size is not None else False
        if is_global is None:
            unknown |= {layout.BATCH_MANAGER_FILE, layout.batch_manager_step_name(step.name)}
        steps.append(
            StepSnapshot(
                name=step.name,
                signature=step.signature,
                predecessors={each: checks[each].records for each in step.predecessors},
                records=checks[step.name].records,
                input_batch_size=step.input_batch_size,
                is_global=bool(is_global),
                is_convergence=step.is_convergence,
            )
        )
    return steps, unknown


def _find_is_global(step: str, found: Mapping[str, Any]) -> bool | None:
    own = (found.get(layout.batch_manager_step_name(step)) or {}).get("accumulate")
    batch = _last_batch(found.get(layout.BATCH_MANAGER_FILE), step)
    told = own if isinstance(own, bool) else batch.get("accumulated")
    return told if isinstance(told, bool) else None


def _last_batch(manager: Any, step: str) -> Mapping[str, Any]:
    """What `batch_manager.json` says of a step's last batch; empty where it says nothing."""
    received = manager.get("last_batch_received") if isinstance(manager, Mapping) else None
    batch = received.get(step) if isinstance(received, Mapping) else None
    return batch if isinstance(batch, Mapping) else {}


def _says_ended(manager: Any, step: str) -> bool:
    return _last_batch(manager, step).get("last_batch") is True


def _judge_manager(found: Mapping[str, Any], expected: Mapping[str, Any]) -> _Problem | None:
    fixed = [key for key in expected if key not in _LAST]
    if found.keys() != expected.keys() or any(found[key] != expected[key] for key in fixed):
        return "damage", "isn't this pipeline's, or something in it was changed"
    received, sent = (found[key] for key in _LAST)
    if received != sent or not isinstance(received, dict) or received.keys() != expected[_LAST[0]].keys():
        return "damage", "contradicts itself about the batches that there are"
    other = [step for step, batch in expected[_LAST[0]].items() if received[step] != batch]
    counted = [step for step in other if _counts_differ(received[step], expected[_LAST[0]][step])]
    if other != counted:
        wrong = ", ".join(f"`{step}`" for step in other if step not in counted)
        return "damage", f"says of the last batch of {wrong} what isn't so"
    if other:
        told = ", ".join(f"`{step}`" for step in other)
        return (
            "note",
            f"isn't up to date about {told}: it was written before or after a change of their parts",
        )
    return None


def _counts_differ(found: Any, expected: Any) -> bool:
    """Whether two say of different batches of a step that they're its last."""
    if found is None or expected is None:
        return True
    if not isinstance(found, Mapping):
        return False
    seq_no = found.get("seq_no")
    return (
        found.keys() == expected.keys()
        and found["step_name"] == expected["step_name"]
        and type(seq_no) is int
        and seq_no >= 0
        and seq_no != expected["seq_no"]
    )


def _judge_step(found: Mapping[str, Any], expected: Mapping[str, Any]) -> _Problem | None:
    counts = ("seq_no", "last_batch_received", "step_offset", "input_batch_size")
    fixed = [key for key in expected if key not in counts]
    if found.keys() != expected.keys() or any(found[key] != expected[key] for key in fixed):
        return "damage", "isn't this step's, or something in it was changed"
    seq_no, size, ended = found["seq_no"], found["input_batch_size"], found["last_batch_received"]
    if any(type(each) is not int or each < 0 for each in (seq_no, size)) or not isinstance(ended, list):
        return "damage", f"counts {seq_no!r} batches of {size!r} rows, which can't be"
    if not set(map(str, ended)) <= expected["data"].keys():
        return "damage", "names a step that it doesn't follow"
    if seq_no != expected["seq_no"]:
        return "note", f"counts {seq_no} batches, and there are {expected['seq_no']}: it isn't up to date"
    if found["step_offset"] != expected["step_offset"]:
        return "damage", "says of the rows that were taken what isn't so"
    if ended != expected["last_batch_received"]:
        return "note", "isn't up to date about which steps before have ended"
    return None
