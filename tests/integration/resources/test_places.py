"""Places that a process takes for granted: the home directory, one for temporary files, /dev/shm."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.resources.conftest import Disk, Runs, expected_rows

MakeRuns = Callable[[Path], Runs]


def test_a_home_that_cannot_be_written(
    make_disk: Callable[..., Disk], make_runs: MakeRuns, tmp_path: Path
) -> None:
    home = make_disk("ro").path
    runs = make_runs(tmp_path / "cache")
    ended = runs.go("command", HOME=str(home), DISTILABEL_CACHE_DIR="", XDG_CACHE_HOME="")
    assert ended.code == 1
    assert f"Error: {home}/.cache/distilabel/pipelines" in ended.last_words
    assert "Read-only file system" in ended.last_words
    assert "`cache_dir=` or DISTILABEL_CACHE_DIR" in ended.last_words
    assert "Traceback" not in ended.err


def test_a_home_that_cannot_be_written_is_not_needed(
    make_disk: Callable[..., Disk], make_runs: MakeRuns, tmp_path: Path
) -> None:
    runs = make_runs(tmp_path / "cache")
    ended = runs.go("command", HOME=str(make_disk("ro").path), DAGSTER_HOME="")
    assert ended.code == 0, ended.err
    assert runs.rows() == expected_rows()


SHARED_MEMORY = {
    "full": (
        "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full",
        "No space left",
    ),
    "read-only": ("mount -t tmpfs -o ro tmpfs /dev/shm", "Read-only file system"),
    "absent": (
        "mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9",
        "No such file",
    ),
}


@pytest.fixture
def elsewhere() -> Callable[[str], list[str]]:
    """Give the beginning of a command that runs in a view of the file systems of its own, changed by a shell's words."""
    if sys.platform != "linux":
        pytest.skip("there are no mount namespaces here")

    def begin(change: str) -> list[str]:
        tried = subprocess.run(["unshare", "--mount", "sh", "-c", change], capture_output=True, check=False)
        if tried.returncode:
            pytest.skip("file systems can't be mounted here")
        return ["unshare", "--mount", "sh", "-c", f'{change} && exec "$0" "$@"']

    return begin


@pytest.mark.parametrize("case", SHARED_MEMORY)
def test_replicas_without_shared_memory(
    case: str, elsewhere: Callable[[str], list[str]], make_runs: MakeRuns, tmp_path: Path
) -> None:
    change, reason = SHARED_MEMORY[case]
    runs = make_runs(tmp_path / "cache")
    runs.prefix = elsewhere(change)
    ended = runs.go("python", REPLICAS="2")
    assert ended.code != 0
    assert ended.last_words.startswith("distilabel_dagster.errors.StepLoadError: ")
    assert f"worker processes of step `large` can't be started: {reason}" in ended.last_words
    assert "/dev/shm" in ended.last_words
    runs.prefix = []
    runs.resume()
    assert runs.rows() == expected_rows()
