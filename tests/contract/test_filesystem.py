import contextlib
import pickle
import threading
from collections.abc import Iterator

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.errors import CacheDirectoryError, CacheError, StepInUseError
from tests.contract.conftest import Place


def test_what_is_written_is_read_and_replaced(fs: CacheFileSystem, place: Place) -> None:
    fs.write_bytes("deep/er/file", b"one")
    assert fs.read_bytes("deep/er/file") == b"one"
    fs.write_bytes("deep/er/file", b"two, longer")
    assert fs.read_bytes("deep/er/file") == b"two, longer"
    with fs.open_input("deep/er/file") as file:
        file.seek(5)
        assert file.read() == b"longer"
    assert place.files() == ["deep/er/file"]


def test_a_large_file_comes_back_whole(fs: CacheFileSystem) -> None:
    content = bytes(range(256)) * 4096 * 12  # 12 MiB: more than one block of any driver
    fs.write_bytes("large", content)
    assert fs.read_bytes("large") == content
    with fs.open_input("large") as file:
        file.seek(-10, 2)
        assert file.read() == content[-10:]


def test_a_reader_never_sees_half_a_file(fs: CacheFileSystem) -> None:
    versions = {bytes([number]) * 200_000 for number in range(12)}
    fs.write_bytes("file", next(iter(versions)))
    seen: set[bytes] = set()
    ended = threading.Event()

    def read() -> None:
        other = pickle.loads(pickle.dumps(fs))
        while not ended.is_set():
            seen.add(other.read_bytes("file"))

    reader = threading.Thread(target=read)
    reader.start()
    for version in sorted(versions):
        fs.write_bytes("file", version)
    ended.set()
    reader.join()
    assert seen <= versions
    assert fs.list_names("") == ["file"]


def test_a_link_is_the_same_file_and_outlives_its_source(fs: CacheFileSystem) -> None:
    fs.write_bytes("from/a", b"rows")
    assert not fs.is_same_file("from/a", "to/b")
    fs.link("from/a", "to/b")
    assert fs.is_same_file("from/a", "to/b")
    fs.link("from/a", "to/b")
    fs.write_bytes("from/a", b"rowS")
    assert fs.read_bytes("to/b") == b"rows"
    assert not fs.is_same_file("from/a", "to/b")
    fs.link("from/a", "to/b")
    assert fs.read_bytes("to/b") == b"rowS"
    fs.remove("from/a")
    assert fs.read_bytes("to/b") == b"rowS"
    assert not fs.is_same_file("from/a", "to/b")


def test_names_are_listed_without_temporary_files(fs: CacheFileSystem) -> None:
    assert fs.list_names("") == []
    assert fs.list_names("nowhere") == []
    for path in ("b", "a", "dir/x", "dir/.y.json.12-3.tmp", ".z"):
        fs.write_bytes(path, b"")
    assert fs.list_names("") == [".z", "a", "b", "dir"]
    assert fs.list_names("dir") == ["x"]


def test_temporary_files_are_swept_by_age(fs: CacheFileSystem, place: Place) -> None:
    if place.kind != "local":
        pytest.skip("an object store has none: a write is one PUT")
    fs.write_bytes("dir/.y.json.12-3.tmp", b"")
    fs.remove_temporary_files("dir", older_than_s=60)
    assert place.files() == ["dir/.y.json.12-3.tmp"]
    fs.remove_temporary_files("dir")
    assert place.files() == []
    fs.remove_temporary_files("nowhere")


def test_exists_tells_files_and_directories(fs: CacheFileSystem) -> None:
    assert not fs.exists("")
    fs.write_bytes("dir/file", b"")
    assert fs.exists("")
    assert fs.exists("dir")
    assert fs.exists("dir/file")
    assert not fs.exists("dir/file2")


def test_what_is_removed_is_gone_and_may_be_gone_already(fs: CacheFileSystem) -> None:
    fs.write_bytes("file", b"")
    fs.remove("file")
    fs.remove("file")
    assert not fs.exists("file")
    with pytest.raises(FileNotFoundError):
        fs.read_bytes("file")
    with pytest.raises(FileNotFoundError):
        fs.open_input("file")
    fs.write_bytes("dir/file", b"")
    fs.remove_all()
    fs.remove_all()
    assert not fs.exists("dir")


def test_what_is_set_aside_stays_under_names_of_its_own(fs: CacheFileSystem, place: Place) -> None:
    for content in (b"one", b"two", b"three"):
        fs.write_bytes("00001.parquet", content)
        fs.set_aside("00001.parquet", ".set-aside")
    assert not fs.exists("00001.parquet")
    assert [fs.read_bytes(path) for path in place.files()] == [b"one", b"two", b"three"]


def test_a_file_system_survives_pickling(fs: CacheFileSystem) -> None:
    fs.write_bytes("file", b"x")
    other = pickle.loads(pickle.dumps(fs))
    assert other.read_bytes("file") == b"x"
    assert other.url == fs.url


def test_check_writable_leaves_nothing(fs: CacheFileSystem, place: Place) -> None:
    fs.check_writable()
    assert place.files() == []


def test_an_unreachable_store_is_an_error_of_ours(s3_options: dict[str, str]) -> None:
    options = {
        **s3_options,
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    fs = CacheFileSystem("s3://pipelines/cache", options)
    with pytest.raises(CacheError, match="s3://pipelines/cache/"):
        fs.check_writable()


def test_a_bucket_that_is_not_there_is_named(s3_options: dict[str, str]) -> None:
    fs = CacheFileSystem("s3://not-made/cache", s3_options)
    with pytest.raises(CacheDirectoryError, match=r"s3://not-made/cache/\S+ can't be written.*`cache_dir=`"):
        fs.check_writable()


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(CacheDirectoryError, match="nosuch://x"):
        CacheFileSystem("nosuch://x")


def test_a_new_file_is_not_written_over_what_another_made(fs: CacheFileSystem, place: Place) -> None:
    fs.write_bytes("dir/new", b"mine", is_new=True)
    fs.write_bytes("dir/new", b"mine", is_new=True)  # as when the first answer of a store is lost on its way
    assert fs.read_bytes("dir/new") == b"mine"
    if place.kind == "local":
        return  # there, a fence and a lease see to it
    with pytest.raises(StepInUseError, match="was written by another run a moment ago"):
        fs.write_bytes("dir/new", b"theirs", is_new=True)
    assert fs.read_bytes("dir/new") == b"mine"


def test_nothing_is_written_where_a_commit_is_refused(fs: CacheFileSystem, place: Place) -> None:
    fs.write_bytes("one", b"1")

    @contextlib.contextmanager
    def refuse() -> Iterator[None]:
        raise StepInUseError("taken over")
        yield

    with pytest.raises(StepInUseError):
        fs.write_bytes("one", b"2", commit=refuse)
    with pytest.raises(StepInUseError):
        fs.link("one", "two", commit=refuse)
    assert place.files() == ["one"]
    assert fs.read_bytes("one") == b"1"
