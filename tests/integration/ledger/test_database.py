import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, insert, inspect, select, update

from distilabel_dagster.base import fault_points
from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError, DamagedFileError
from distilabel_dagster.ledger.database import exclusive_transaction, open_database, read_transaction
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.ledger.schema import LEASES_TABLE, METADATA, SCHEMA_VERSION, SCHEMA_VERSION_TABLE

ROW = {
    "key": "k",
    "token": "t",
    "host": "h",
    "pid": 1,
    "process_start": "2",
    "since": 0.5,
    "heartbeat": 1700000000.123456,
    "uptime": 12345.678901,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a b" / "100% ledger?#.sqlite"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_a_new_database_is_made_with_its_directory(path: Path) -> None:
    engine = open_database(str(path))
    assert path.is_file()
    assert set(inspect(engine).get_table_names()) == METADATA.tables.keys()
    with read_transaction(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
        assert connection.execute(select(SCHEMA_VERSION_TABLE)).scalars().all() == [SCHEMA_VERSION] == [3]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_the_names_of_a_new_database_and_of_its_directories_are_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def note(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    path = path.parent / "deeper" / "ledger.sqlite"
    open_database(str(path))
    above = [str(each) for each in path.parents]
    # Each directory before the next is made in it, and the last when the file is.
    assert synced == [above[2], above[1], above[0], above[1]]
    synced.clear()
    open_database(str(path))
    assert synced == []


def test_the_moments_of_a_transaction_are_named(path: Path) -> None:
    passed: list[tuple[str, str]] = []
    engine = open_database(str(path))
    fault_points.install(lambda point, about: passed.append((point, about)))
    try:
        with exclusive_transaction(engine) as connection:
            connection.execute(insert(LEASES_TABLE).values(ROW))
            assert passed == [("ledger.begun", str(path))]
        with contextlib.suppress(KeyError), exclusive_transaction(engine):
            raise KeyError
        held = Leases(engine).acquire(["b", "a"])
        held.release()
    finally:
        fault_points.install(None)
    whole = ["ledger.begun", "ledger.committing", "ledger.committed"]
    assert [point for point, _ in passed] == [
        *whole,
        "ledger.begun",
        *(*whole, "lease.acquired", "lease.releasing", *whole, "lease.released"),
    ]
    assert {about for point, about in passed if point.startswith("lease.")} == {"a, b"}


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = open_database("sqlite:///ledger.sqlite")
    monkeypatch.chdir("/")
    with read_transaction(engine) as connection:
        assert connection.execute(select(SCHEMA_VERSION_TABLE)).scalar() == SCHEMA_VERSION


def test_values_come_back_as_written(path: Path) -> None:
    with exclusive_transaction(open_database(str(path))) as connection:
        connection.execute(insert(LEASES_TABLE).values(ROW))
    with read_transaction(open_database(str(path))) as connection:
        assert dict(connection.execute(select(LEASES_TABLE)).one()._mapping) == ROW


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    engine = open_database(str(path))
    with contextlib.suppress(KeyError), exclusive_transaction(engine) as connection:
        connection.execute(insert(LEASES_TABLE).values(ROW))
        raise KeyError
    with read_transaction(engine) as connection:
        assert connection.execute(select(LEASES_TABLE)).all() == []


def test_many_open_a_new_database_at_once(path: Path) -> None:
    start = threading.Barrier(8)

    def open_and_write(number: int) -> None:
        start.wait()
        with exclusive_transaction(open_database(str(path))) as connection:
            connection.execute(insert(LEASES_TABLE).values({**ROW, "key": str(number)}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_write, range(8)))
    with read_transaction(open_database(str(path))) as connection:
        assert len(connection.execute(select(LEASES_TABLE)).all()) == 8
        assert connection.execute(select(SCHEMA_VERSION_TABLE)).scalars().all() == [SCHEMA_VERSION]


def test_a_newer_schema_is_refused(path: Path) -> None:
    with exclusive_transaction(open_database(str(path))) as connection:
        connection.execute(update(SCHEMA_VERSION_TABLE).values(version=SCHEMA_VERSION + 1))
    with pytest.raises(CacheError, match=r"schema version 4.*knows version 3\. Upgrade") as caught:
        open_database(str(path))
    assert caught.value.path == str(path)


@pytest.mark.parametrize("content", [b"no database at all, " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="move it away") as caught:
        open_database(str(path))
    assert caught.value.path == str(path)
    assert path.read_bytes() == content


def test_a_database_cut_short_is_damaged(path: Path) -> None:
    with exclusive_transaction(open_database(str(path))) as connection:
        connection.execute(insert(LEASES_TABLE), [{**ROW, "key": f"{i:04}" * 50} for i in range(500)])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DamagedFileError), read_transaction(open_database(str(path))) as connection:
        connection.execute(select(LEASES_TABLE)).all()


def test_tables_of_someone_else_are_damage(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE schema_version (major TEXT)")
    with pytest.raises(DamagedFileError, match=r"no such column: \S*version"):
        open_database(str(path))


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        CacheDirectoryError, match=r"can't be made: (File exists|Not a directory)\. Check the path"
    ):
        open_database(str(tmp_path / "file" / "ledger.sqlite"))


def test_a_directory_in_the_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="isn't a file: a directory"):
        open_database(str(tmp_path))


def test_a_database_that_may_only_be_read(path: Path) -> None:
    path = path.with_name("ledger.sqlite")
    open_database(str(path))
    engine = open_database(f"sqlite:///file:{path.as_posix()}?mode=ro&uri=true")
    with pytest.raises(CacheDirectoryError, match="readonly"), exclusive_transaction(engine) as connection:
        connection.execute(insert(LEASES_TABLE).values(ROW))


def test_a_full_disk(path: Path) -> None:
    engine = open_database(str(path))

    @event.listens_for(engine, "connect")
    def limit(connection: sqlite3.Connection, record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    with pytest.raises(CacheFullError, match="start the same run again"), exclusive_transaction(engine) as c:
        c.execute(insert(LEASES_TABLE), [{**ROW, "key": f"{i:04}" * 50} for i in range(500)])


def test_a_locked_database_is_waited_for_and_then_given_up(path: Path) -> None:
    engine = open_database(str(path), busy_timeout_s=0.1)
    with locked(path):
        with pytest.raises(CacheError, match=r"locked\. Another process has kept it"):
            exclusive_transaction(engine).__enter__()
        with read_transaction(engine) as connection:
            assert connection.execute(select(SCHEMA_VERSION_TABLE)).scalar() == SCHEMA_VERSION
    with exclusive_transaction(engine) as connection:
        connection.execute(insert(LEASES_TABLE).values(ROW))


def test_a_new_database_locked_by_another_is_an_error_of_ours(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CacheError, match="locked"):
            open_database(str(path), busy_timeout_s=0.05)
