import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError

from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError, DamagedFileError
from distilabel_dagster.ledger.database import open_database
from distilabel_dagster.ledger.database_errors import describe_url, explained

FILE = make_url("sqlite:////cache/ledger.sqlite")


class ServerError(Exception):
    """What a PostgreSQL driver raises."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def explain(original: Exception, url: str = "sqlite:////cache/ledger.sqlite") -> CacheError:
    with pytest.raises(CacheError) as caught, explained(make_url(url), "written"):
        raise OperationalError("SELECT 1", {}, original)
    return caught.value


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        (ServerError("file is not a database"), DamagedFileError),
        (ServerError("database disk image is malformed"), DamagedFileError),
        (ServerError("no such table: leases"), DamagedFileError),
        (ServerError('relation "leases" does not exist', "42P01"), DamagedFileError),
        (ServerError("database or disk is full"), CacheFullError),
        (ServerError("could not extend file", "53100"), CacheFullError),
        (ServerError("attempt to write a readonly database"), CacheDirectoryError),
        (ServerError("unable to open database file"), CacheDirectoryError),
        (ServerError("database is locked"), CacheError),
        (ServerError("canceling statement due to lock timeout", "55P03"), CacheError),
        (ServerError("connection refused"), CacheError),
    ],
)
def test_errors_of_the_database_become_ours(original: Exception, expected: type[CacheError]) -> None:
    error = explain(original)
    assert type(error) is expected
    assert error.path == "/cache/ledger.sqlite"
    assert str(error).startswith(f"The ledger /cache/ledger.sqlite can't be written: {original}")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, CacheFullError),
        (errno.EDQUOT, CacheFullError),
        (errno.EFBIG, CacheFullError),
        (errno.EROFS, CacheDirectoryError),
        (errno.EACCES, CacheDirectoryError),
        (errno.EMFILE, CacheError),
        (errno.EIO, CacheError),
    ],
)
@pytest.mark.parametrize("said", ["disk I/O error", "unable to open database file"])
def test_the_system_is_asked_for_the_reason_that_the_database_keeps_to_itself(
    monkeypatch: pytest.MonkeyPatch, number: int, expected: type[CacheError], said: str
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    error = explain(ServerError(said))
    assert type(error) is expected
    assert f"{said} ({os.strerror(number)})" in str(error)
    assert ("ulimit -n" in str(error)) is (number == errno.EMFILE)


def test_input_output_error_on_a_full_disk_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    assert type(explain(ServerError("disk I/O error"), url)) is CacheFullError
    assert type(explain(ServerError("unable to open database file"), url)) is CacheDirectoryError
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 0, 9))
    assert type(explain(ServerError("disk I/O error"), url)) is CacheError
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_no_sqlite_writes_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"SQLite format 3\0\x10\0\x02\x02")
    url = f"sqlite:///{path}"
    assert type(explain(ServerError("attempt to write a readonly database"), url)) is CacheDirectoryError
    path.write_bytes(b"SQLite format 3\0\x10\0\x42\x02")
    assert type(explain(ServerError("attempt to write a readonly database"), url)) is DamagedFileError


def test_what_to_do_about_damage_depends_on_the_database() -> None:
    damaged = ServerError("no such table: leases")
    assert "cache verify --repair" in str(explain(damaged))
    told = str(explain(damaged, "postgresql+psycopg://ann@db/work"))
    assert "the database's own tools" in told
    assert "--repair" not in told


def test_what_the_driver_quotes_is_cut() -> None:
    error = explain(ServerError(f"Could not decode to UTF-8 column 'host' with text '{'x' * 10_000}'"))
    assert type(error) is DamagedFileError
    assert len(str(error)) < 1_500


def test_our_own_mistakes_are_not_disguised() -> None:
    with pytest.raises(KeyError), explained(FILE, "read"):
        raise KeyError("mistake")


def test_passwords_are_hidden() -> None:
    url = "postgresql+psycopg://ann:s3cret@db/work?password=0ther&sslmode=require"
    shown = describe_url(make_url(url))
    assert "s3cret" not in shown
    assert "0ther" not in shown
    assert "ann" in shown
    assert "sslmode=require" in shown
    error = explain(ServerError("connection with s3cret and 0ther refused"), url)
    assert "s3cret" not in str(error)
    assert "0ther" not in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(CacheError, match="in memory: no other process would see"):
        open_database(url)


def test_other_kinds_of_database_are_refused() -> None:
    with pytest.raises(CacheError, match=r"of the kind `mysql`; SQLite and PostgreSQL can be used") as caught:
        open_database("mysql://ann:s3cret@db/work")
    assert "s3cret" not in str(caught.value)


def test_a_url_that_is_none_is_not_repeated() -> None:
    with pytest.raises(CacheError, match="can't be read as one") as caught:
        open_database("postgresql://ann:s3cret@db:port/work")
    assert "s3cret" not in str(caught.value)


def test_a_missing_driver_is_named() -> None:
    with pytest.raises(CacheError, match=r"Can't load plugin.*Check the URL \(`sqlite:///<path>`"):
        open_database("postgresql+nodriver://ann:s3cret@db/work")


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_driver(*args: object, **kwargs: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr("distilabel_dagster.ledger.database.create_engine", import_driver)
    with pytest.raises(CacheError, match=r"Install `distilabel-dagster\[postgresql\]`, or name a driver"):
        open_database("postgresql+psycopg://ann@db/work")


def test_an_engine_is_described_by_its_file() -> None:
    assert describe_url(create_engine("sqlite:////a b/ledger.sqlite").url) == "/a b/ledger.sqlite"
