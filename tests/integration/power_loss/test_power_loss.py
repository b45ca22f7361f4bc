"""What a loss of power leaves: all that was reported as kept, and nothing that's wrong.

Two runs of a pipeline are watched by `strace`, so that every change of the cache's files is known, those of SQLite too.
Then the disk is cut off after each change in turn, in three ways: nothing that wasn't synced is there; names are, but not
their content; any part of either.
"""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.ledger.responses import ResponseLedger
from tests.integration.power_loss import work
from tests.integration.power_loss.disk import Disk, Mode
from tests.integration.power_loss.operations import STRACE, Operation, read_operations

MODES: tuple[Mode, ...] = get_args(Mode)
_ROOT = Path(__file__).parents[3]
_LONG_AGO = 1_700_000_000
_Image = dict[str, bytes | None]


@dataclass
class Kept:
    """What the runs had reported as kept: of each step the revisions of its committed batches, and answers."""

    revisions: dict[str, list[int]] = field(default_factory=dict)
    answers: list[bytes] = field(default_factory=list)

    def note(self, text: str) -> None:
        for line in text.splitlines():
            kind, *told = line.split(" ")
            if kind == "answer":
                self.answers.append(bytes.fromhex(told[0]))
            else:
                self.revisions[told[0]] = [int(each) for each in told[2].split(",") if each]


@dataclass(frozen=True)
class Recording:
    """All that the two runs did to the files of the cache, and noted."""

    cache_dir: str
    notes: str
    operations: list[Operation]

    def iter_cuts(self) -> Iterator[tuple[Disk, Kept]]:
        """The disk after each change of it; both are changed by the next step."""
        disk, kept = Disk(self.cache_dir), Kept()
        for operation in self.operations:
            if operation.name == "write" and operation.paths == (self.notes,):
                kept.note(operation.content.decode())
            elif disk.apply(operation):
                yield disk, kept

    def count_cuts(self) -> int:
        return sum(1 for _ in self.iter_cuts())


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    if shutil.which(STRACE[0]) is None:
        pytest.skip("strace isn't installed: what a process does to files can't be recorded")
    directory = tmp_path_factory.mktemp("watched")
    log, notes, cache_dir = directory / "log", directory / "notes", directory / "cache"
    cache_dir.mkdir()
    command = [*STRACE, "-o", str(log), sys.executable, "-m", work.__name__, str(cache_dir), str(notes)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300, check=False)
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip(f"processes can't be watched here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Recording(str(cache_dir), str(notes), list(read_operations(log.read_text(encoding="latin-1"))))


def write_image(image: _Image, directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for path, content in image.items():
        if content is None:
            (directory / path).mkdir(parents=True, exist_ok=True)
        else:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
            os.utime(directory / path, (_LONG_AGO, _LONG_AGO))


def open_stores(cache_dir: Path) -> dict[str, StepStore]:
    fs = CacheFileSystem(cache_dir)
    found = {}
    for name in fs.list_names("steps_data"):
        step, _, signature = name.rpartition("_")
        found[step] = StepStore(fs, step, signature)
        found[step].open()
    return found


def check(cache_dir: Path, kept: Kept) -> None:
    """All that was reported is there, each batch at the revision reported or a later one, and every row is right."""
    stores = open_stores(cache_dir)
    for step, revisions in kept.revisions.items():
        found = [record.revision for record in stores[step].records] if step in stores else []
        assert len(found) >= len(revisions), f"batches of {step} are gone"
        assert all(now >= then for now, then in zip(found, revisions, strict=False)), f"{step} is older"
    for step, store in stores.items():
        for record in store.records:
            store.read(record.seq_no)
        check_rows(step, store.read_all().to_pylist())
    for parts in cache_dir.glob("*/data/*/*.parquet"):
        assert parts.stat().st_size, "a leaf's part is empty"
    if kept.answers:
        with ResponseLedger(str(cache_dir / "ledger.sqlite")) as ledger:
            assert ledger.find_keys(kept.answers) == set(kept.answers), "answers that were paid for are gone"
            assert len(ledger.look_up(kept.answers)) == len(set(kept.answers))


def check_rows(step: str, rows: list[dict[str, Any]]) -> None:
    expected: list[dict[str, Any]] = {
        "load": [{"id": n} for n in range(work.ROWS)],
        "ask": [{"id": n, "generation": f"echo of About text {n}"} for n in range(work.ROWS)],
        "check": [{"id": n, "length": len(f"echo of About text {n}")} for n in range(work.ROWS)],
        **work.expected_rows(),
    }[step]
    failed = range(8, 12)  # the batch of four that row 10 is in
    for row, right in zip(rows, expected, strict=False):
        told = {key: row[key] for key in right}
        is_failed = step in ("check", "kept") and right["id"] in failed and told["length"] is None
        assert told == right or is_failed


def resume(cache_dir: Path, kept: Kept) -> None:
    """Run again to the end: the rows are right, and no answer that was reported as kept is asked for again."""
    work.calls.clear()
    assert work.run(str(cache_dir)) == work.expected_rows()
    assert len(work.calls) <= work.ROWS - len(set(kept.answers))
    files = [path.name for path in cache_dir.rglob("*") if path.is_file()]
    assert not [name for name in files if name.endswith(".tmp")]


def cut_everywhere(
    recording: Recording, directory: Path, *, every: int, resume_every: int, seeds: int
) -> None:
    resumed = itertools.count(1)
    for number, (disk, kept) in enumerate(recording.iter_cuts()):
        if number % every:
            continue
        for mode in MODES:
            for seed in range(seeds if mode == "anything" else 1):
                image = disk.after_power_loss(mode, random.Random(f"{number} {seed}"))
                where = f"cut after change {number}, {mode}, seed {seed}, kept: {json.dumps(kept.revisions)}"
                try:
                    write_image(image, directory)
                    check(directory, kept)
                    if next(resumed) % resume_every == 0:
                        write_image(image, directory)
                        resume(directory, kept)
                except Exception as error:
                    raise AssertionError(where) from error


def test_the_recording_is_complete(recording: Recording, tmp_path: Path) -> None:
    """With nothing lost, it gives the very files that the runs left; so nothing was done that it doesn't know."""
    disk = Disk(recording.cache_dir)
    for operation in recording.operations:
        disk.apply(operation)
    image = disk.after_power_loss("names without content", random.Random(0))
    there = {
        str(path.relative_to(recording.cache_dir)): path.read_bytes()
        for path in Path(recording.cache_dir).rglob("*")
        if path.is_file() and path.name != "pipeline.log"
    }
    assert {path: image.get(path) for path in there} == there
    assert recording.count_cuts() > 300


def test_a_cut_anywhere_loses_nothing_that_was_reported(recording: Recording, tmp_path: Path) -> None:
    every = max(1, recording.count_cuts() // 40)
    cut_everywhere(recording, tmp_path / "cache", every=every, resume_every=12, seeds=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_cut_at_every_change_loses_nothing_that_was_reported(recording: Recording, tmp_path: Path) -> None:
    cut_everywhere(recording, tmp_path / "cache", every=1, resume_every=25, seeds=2)
