"""Cache directories that can't be used, and disks that fill up."""

import contextlib
import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError
from distilabel_dagster.steps import Step, StepInput
from tests.integration.bad_input.steps import Broken, Collect, build, ids


@pytest.fixture(autouse=True)
def forget() -> None:
    Broken.on, Broken.batches = set(), []


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for cache_dir in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(
            CacheDirectoryError, match=r"taken\S* can't be .*`cache_dir=` or DISTILABEL_CACHE_DIR"
        ):
            build(cache_dir, Broken(name="broken")).run()
    assert Broken.batches == []
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_directory_that_cannot_be_made() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc here, in which nobody may make a directory")
    with pytest.raises(CacheDirectoryError, match="/proc/nowhere/"):
        build("/proc/nowhere", Broken(name="broken")).run()
    assert Broken.batches == []


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is refused to root: see the mounted directory below")
    tmp_path.chmod(0o500)
    with pytest.raises(CacheDirectoryError, match="Permission denied"):
        build(tmp_path / "cache", Broken(name="broken")).run()
    assert Broken.batches == []


def _mount(*arguments: str) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("file systems can't be mounted here")
    if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
        pytest.skip("file systems can't be mounted here")


@contextlib.contextmanager
def mounted(directory: Path, *arguments: str) -> Iterator[None]:
    directory.mkdir()
    _mount(*arguments, str(directory))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_read_only_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    refused = pytest.raises(CacheDirectoryError, match=r"Read-only file system.*`cache_dir=`")
    with mounted(disk, "-t", "tmpfs", "-o", "ro", "tmpfs"), refused:
        build(disk / "cache", Broken(name="broken")).run()
    assert Broken.batches == []


class Large(Step):
    """64 KiB of text a row, which doesn't compress."""

    computed: ClassVar[list[int]] = []

    def process(self, inputs: StepInput) -> Any:
        self.computed.extend(row["id"] for row in inputs)
        yield [
            {
                **row,
                "text": "".join(uuid.uuid5(uuid.NAMESPACE_OID, f"{row['id']} {n}").hex for n in range(2048)),
            }
            for row in inputs
        ]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    Large.computed = []
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=1500k", "tmpfs"):
        pipeline = build(disk / "cache", Large(name="large", input_batch_size=1), rows=60)
        with pytest.raises(
            CacheError, match=r"No space left on device.*start the same run again|disk is full"
        ):
            pipeline.run()
        assert not list(disk.rglob(".*.tmp")), "half a file would take what space is left"
        store = pipeline.open_cache().stores["large"]
        store.open()
        committed = [row["id"] for row in store.read_all().to_pylist()]
        assert committed == list(range(len(committed)))

        Large.computed = []
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = build(disk / "cache", Large(name="large", input_batch_size=1), rows=60)
        assert ids(again.run(), "large") == list(range(60))
        assert Large.computed == list(range(len(committed), 60))


class Quota(MemoryFileSystem):
    """A store in memory with room for `left` bytes."""

    protocol = "quota"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    left: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("quota://", "memory://")))

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        if len(value) > type(self).left:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        type(self).left -= len(value)
        super().pipe_file(path, value, **kwargs)


@pytest.mark.parametrize("left", [0, 6_000, 40_000, 400_000])
def test_a_full_quota_loses_nothing(left: int) -> None:
    """On any store and at any moment: at the first write, in the middle, at the last."""
    fsspec.register_implementation("quota", Quota, clobber=True)
    Quota.left, Large.computed = left, []
    cache_dir = f"quota://{uuid.uuid4().hex}"
    pipeline = build(cache_dir, Large(name="large", input_batch_size=1), Collect(name="collect"), rows=8)
    with pytest.raises(CacheFullError, match=r"can't be written.*Free some space.*start the same run again"):
        pipeline.run()
    store = pipeline.open_cache().stores["large"]
    store.open()
    committed = store.read_all().num_rows
    Quota.left, Large.computed = 10**9, []
    again = build(cache_dir, Large(name="large", input_batch_size=1), Collect(name="collect"), rows=8)
    assert ids(again.run(), "collect") == list(range(8))
    assert Large.computed == list(range(committed, 8))
