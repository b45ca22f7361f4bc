"""The ledger for those who only look: nothing is made, brought up to date or locked."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Engine, func, select
from sqlalchemy.pool import NullPool

from distilabel_dagster.ledger.database import build_engine, find_version, parse_url, read_transaction
from distilabel_dagster.ledger.database_errors import find_file
from distilabel_dagster.ledger.schema import FIRST_WITH_CALLS, RESPONSES_TABLE
from distilabel_dagster.ledger.sqlite_file import check_files, harden
from distilabel_dagster.ledger.usage import Usage, add_up, read_usage

_STEPS_PER_BYTE: Final = 4
"""Of SQLite's machine, for a statement that reads all of a file: a tenth of that is usual."""


def look_up_usage(url: str, step_keys: Iterable[str]) -> dict[str, Usage]:
    """Read what the calls of some steps came to, in all runs: step key -> its counters; only steps with some.

    Args:
        url: as for `open_database`.
        step_keys: names of the steps' directories.

    Raises:
        CacheError: the database can't be read, or a newer release made it.
    """
    with open_for_reading(url) as engine:
        if engine is None or not _has_calls(engine):
            return {}
        found = {key: list(read_usage(engine, step_key=key).values()) for key in step_keys}
    return {key: add_up(usages) for key, usages in found.items() if usages}


def count_responses(url: str) -> int:
    """Count the answers that a ledger keeps; 0 where there's none yet.

    Args:
        url: as for `open_database`.

    Raises:
        CacheError: the database can't be read, or a newer release made it.
    """
    with open_for_reading(url) as engine:
        if engine is None or not _has_calls(engine):
            return 0
        with read_transaction(engine) as connection:
            return connection.execute(select(func.count()).select_from(RESPONSES_TABLE)).scalar_one()


@contextlib.contextmanager
def open_for_reading(url: str) -> Iterator[Engine | None]:
    """Give a database that can only be read; None where there's no file.

    Raises:
        CacheError: it can't be read.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = find_file(parsed)
        check_files(path)
        if _is_missing(path):
            yield None
            return
        engine = build_engine(
            URL.create("sqlite", database=str(path)), poolclass=NullPool, creator=lambda: _connect(path)
        )
    else:
        engine = build_engine(parsed, poolclass=NullPool, execution_options={"postgresql_readonly": True})
    try:
        yield engine
    finally:
        engine.dispose()


def _is_missing(path: Path) -> bool:
    """Tell whether there's no file; where one may not look, that's for the database to say."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _connect(path: Path) -> sqlite3.Connection:
    """Connect for reading only.

    Where nobody else has the file open, and none was killed while it had, all is in the file itself. SQLite is told so,
    for otherwise it would put two files beside it, also to read.
    """
    is_at_rest = not os.path.exists(f"{path}-wal")  # noqa: PTH110 (a plain string, as SQLite takes it)
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro{'&immutable=1' if is_at_rest else ''}", uri=True)
    try:
        harden(connection, os.path.getsize(path) * _STEPS_PER_BYTE)  # noqa: PTH202 (a plain string, as SQLite takes it)
    except BaseException:
        connection.close()
        raise
    return connection


def _has_calls(engine: Engine) -> bool:
    with read_transaction(engine) as connection:
        version = find_version(connection)
    return version is not None and version >= FIRST_WITH_CALLS
