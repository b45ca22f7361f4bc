"""Disks that fill up, or become read-only, in the middle of a run."""

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.resources.conftest import WAYS, Disk, Ended, Runs, expected_rows

MakeDisk = Callable[..., Disk]
MakeRuns = Callable[[Path], Runs]


def check_end(ended: Ended, way: str, reason: str, remedy: str) -> None:
    """It failed, and what it said last names a file of the cache, the reason and what to do."""
    assert ended.code != 0
    told = ended.last_words if way != "dagster" else ended.err
    assert f"can't be written: {reason}" in told
    assert remedy in told
    if way == "command":
        assert "Traceback" not in ended.err


def check_resumed(runs: Runs) -> None:
    """Go on in this process: the rows are right, and what was committed isn't computed again."""
    done = runs.committed()
    before = {step: runs.computed(step) for step in ("large", "turn")}
    runs.resume()
    assert runs.rows() == expected_rows()
    for step, counts in before.items():
        again = runs.computed(step) - counts
        assert not again.keys() & {row["id"] for row in done[step]}, (
            f"`{step}` was given committed rows again"
        )
        assert again == Counter(
            {row["id"]: 1 for row in expected_rows() if row["id"] not in _ids(done[step])}
        )


def _ids(rows: list[dict[str, int]]) -> set[int]:
    return {row["id"] for row in rows}


@pytest.mark.parametrize("way", ["command", "dagster"])
def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_space(
    way: str, make_disk: MakeDisk, make_runs: MakeRuns
) -> None:
    disk = make_disk("size=900k")
    runs = make_runs(disk.path / "cache")
    check_end(runs.go(way), way, "No space left on device", "Free some space")
    disk.resize("size=64m")
    check_resumed(runs)


def test_a_run_stops_soon_after_the_disk_is_full(make_disk: MakeDisk, make_runs: MakeRuns) -> None:
    disk = make_disk("size=400k")
    runs = make_runs(disk.path / "cache")
    check_end(runs.go("python", BATCH_S="0.5"), "python", "No space left on device", "Free some space")
    # It fills up with the 7th of 24 batches; a few more are made until a round of commits finds that out.
    assert 0 < runs.computed("large").total() < 100
    disk.resize("size=64m")
    check_resumed(runs)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", ["4k", "100k", "300k", "500k", "700k", "1100k", "1300k", "1500k"])
def test_a_disk_of_any_size(size: str, way: str, make_disk: MakeDisk, make_runs: MakeRuns) -> None:
    disk = make_disk(f"size={size}")
    runs = make_runs(disk.path / "cache")
    ended = runs.go(way)
    if ended.code:
        assert "No space left on device" in ended.err or "disk is full" in ended.err
        assert "Free some space" in (ended.last_words if way != "dagster" else ended.err)
    disk.resize("size=64m")
    check_resumed(runs)


@pytest.mark.parametrize("inodes", [8, 14, 18])
def test_a_disk_that_holds_no_more_files(inodes: int, make_disk: MakeDisk, make_runs: MakeRuns) -> None:
    disk = make_disk(f"nr_inodes={inodes}")
    runs = make_runs(disk.path / "cache")
    error = runs.fail()
    assert "No space left on device" in error
    assert "Free some space" in error
    disk.resize("nr_inodes=10000")
    check_resumed(runs)


def test_a_disk_that_becomes_read_only(make_disk: MakeDisk, make_runs: MakeRuns, tmp_path: Path) -> None:
    """As Linux does it itself when a disk gives errors."""
    disk = make_disk("size=64m")
    runs = make_runs(disk.path / "cache")
    # The ledger is open for writing all the time, and then only Linux itself can make its disk read-only.
    process = runs.start("python", BATCH_S="0.3", DISTILABEL_LEDGER_URL=str(tmp_path / "ledger.sqlite"))
    runs.wait_for_parts(process, "large", 2)
    # Of the mount, not its file system: so it's refused only in the moments in which a file is open for writing.
    while subprocess.run(["mount", "-o", "remount,bind,ro", str(disk.path)], check=False).returncode:
        assert process.poll() is None
    ended = runs.finish(process)
    check_end(ended, "python", "Read-only file system", "Check the path and its permissions")
    assert runs.computed("large").total() < 120
    subprocess.run(["mount", "-o", "remount,bind,rw", str(disk.path)], check=True)
    check_resumed(runs)


def test_a_full_disk_under_dagster_home(make_disk: MakeDisk, make_runs: MakeRuns, tmp_path: Path) -> None:
    """What Dagster keeps of the run can't be written: what was committed is safe, and the error says where it is."""
    disk = make_disk("size=600k")
    runs = make_runs(tmp_path / "cache")
    ended = runs.go("command", DAGSTER_HOME=str(disk.path))
    assert ended.code == 1
    assert ended.last_words.startswith(
        f"Error: Dagster's records of the run in {disk.path} can't be read or written"
    )
    assert "DAGSTER_HOME" in ended.last_words
    check_resumed(runs)
