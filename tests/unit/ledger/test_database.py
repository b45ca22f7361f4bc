import shutil

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
    assert str(error).startswith(f"The ledger /cache/ledger.sqlite can't be written: {original}. ")


def test_input_output_error_on_a_full_disk_is_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    assert type(explain(ServerError("disk I/O error"))) is CacheFullError
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 0, 9))
    assert type(explain(ServerError("disk I/O error"))) is CacheError


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
