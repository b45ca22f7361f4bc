"""What stands where a file belongs and is none: it's told at once, never waited for, and never followed outside."""

import os
from pathlib import Path

import pytest

from distilabel_dagster.cache.entries import list_entries
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.errors import CacheError, DamagedFileError


@pytest.fixture
def fs(tmp_path: Path) -> CacheFileSystem:
    return CacheFileSystem(tmp_path / "cache")


@pytest.mark.timeout(60)  # who opens a pipe to read it waits for a writer, for ever
@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_what_is_no_file_is_told_when_it_is_read(fs: CacheFileSystem, kind: str) -> None:
    fs.check_writable()
    make = {"pipe": os.mkfifo, "directory": os.mkdir}[kind]
    make(fs.full_path("odd"))
    with pytest.raises(DamagedFileError, match=r"/odd can't be read: (Not a regular file|Is a directory)"):
        fs.read_bytes("odd")
    with pytest.raises(CacheError, match="/odd can't be read"):
        fs.open_input("odd")


@pytest.mark.timeout(60)
def test_a_log_that_is_a_pipe_is_not_waited_for(fs: CacheFileSystem) -> None:
    fs.check_writable()
    os.mkfifo(fs.full_path("log"))
    with pytest.raises(CacheError, match="/log can't be written"):
        fs.append_bytes("log", b"line\n")


def test_a_log_that_is_a_link_is_not_followed(fs: CacheFileSystem, tmp_path: Path) -> None:
    outside = tmp_path / "somebody's"
    outside.write_text("theirs\n")
    fs.check_writable()
    Path(fs.full_path("log")).symlink_to(outside)
    with pytest.raises(CacheError, match=r"/log (can't be written|is a link)"):
        fs.append_bytes("log", b"line\n")
    assert outside.read_text() == "theirs\n"


def test_a_log_is_added_to(fs: CacheFileSystem) -> None:
    for line in (b"one\n", b"two\n"):
        fs.append_bytes("deep/log", line)
    assert fs.read_bytes("deep/log") == b"one\ntwo\n"


def test_entries_are_told_as_what_they_are(fs: CacheFileSystem, tmp_path: Path) -> None:
    fs.write_bytes("here/file", b"x")
    here = Path(fs.full_path("here"))
    (here / "below").mkdir()
    (here / "link").symlink_to("file")
    os.mkfifo(here / "pipe")
    (here / ".file.1-2.tmp").write_bytes(b"x")
    found = {entry.name: (entry.kind, entry.is_temporary) for entry in list_entries(fs, "here")}
    assert found == {
        ".file.1-2.tmp": ("file", True),
        "below": ("directory", False),
        "file": ("file", False),
        "link": ("link", False),
        "pipe": ("special", False),
    }
    assert list_entries(fs, "nowhere") == []


def test_entries_of_a_store_are_files_and_what_has_files_below() -> None:
    fs = CacheFileSystem("memory://entries/cache")
    fs.write_bytes("here/file", b"x")
    fs.write_bytes("here/below/file", b"x")
    try:
        assert [(entry.name, entry.kind) for entry in list_entries(fs, "here")] == [
            ("below", "directory"),
            ("file", "file"),
        ]
    finally:
        fs.remove_all()
