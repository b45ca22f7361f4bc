"""Writing to a disk: what's renamed when, and who may."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distilabel_dagster.cache.local_files import LocalFiles, fence, is_temporary
from distilabel_dagster.errors import StepInUseError

_HOLD = """
import sys
from distilabel_dagster.cache.local_files import fence
with fence(sys.argv[1]):
    print("inside", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(str(tmp_path))


@contextlib.contextmanager
def held_by_another_process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "inside\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def temporary_files(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if is_temporary(path.name)]


def test_a_link_to_the_same_file_leaves_nothing_behind(files: LocalFiles, tmp_path: Path) -> None:
    source, target = tmp_path / "part", tmp_path / "data" / "part"
    files.write(str(source), b"rows")
    files.link(str(source), str(target))
    files.link(str(source), str(target))
    assert target.samefile(source)
    assert [path.name for path in target.parent.iterdir()] == ["part"]


def test_a_refused_commit_changes_nothing(files: LocalFiles, tmp_path: Path) -> None:
    path, source = tmp_path / "part", tmp_path / "source"
    files.write(str(path), b"before")
    files.write(str(source), b"other")

    @contextlib.contextmanager
    def refuse() -> Iterator[None]:
        assert path.read_bytes() == b"before", "all is written by now, but for the rename"
        raise StepInUseError("taken over")
        yield

    with pytest.raises(StepInUseError):
        files.write(str(path), b"after", refuse)
    with pytest.raises(StepInUseError):
        files.link(str(source), str(path), refuse)
    assert path.read_bytes() == b"before"
    assert temporary_files(tmp_path) == []


def test_a_directory_that_goes_away_is_made_again(files: LocalFiles, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    files.write(str(path), b"one")
    path.unlink()
    path.parent.rmdir()
    files.write(str(path), b"two")
    assert path.read_bytes() == b"two"


def test_what_a_killed_process_of_the_same_number_left_is_no_hindrance(
    files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, shown = tmp_path / "part", tmp_path / "data" / "part"
    files.write(str(part), b"rows")
    with monkeypatch.context() as patched:  # killed between the link and its rename
        patched.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(SystemExit))
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            files.link(str(part), str(shown))
    assert len(temporary_files(shown.parent)) == 1
    again = LocalFiles(str(tmp_path))
    again.link(str(part), str(shown))
    again.write(str(shown), b"more")
    assert part.read_bytes() == b"rows"


def test_one_thread_at_a_time_is_inside_a_fence(tmp_path: Path) -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        for _ in range(20):
            with fence(str(tmp_path)):
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_another_process_inside_is_told_by_its_number(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as holder:
        with (
            pytest.raises(
                StepInUseError, match=f"process {holder.pid} is in the middle of writing"
            ) as caught,
            fence(str(tmp_path), patience_s=0.2),
        ):
            pytest.fail("two were inside")
        assert caught.value.pid == holder.pid  # type: ignore[attr-defined]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with fence(str(tmp_path), patience_s=5):
            pass


def test_a_fence_around_nothing_is_open(tmp_path: Path) -> None:
    with fence(str(tmp_path / "nowhere")):
        pass
    assert not (tmp_path / "nowhere").exists()
