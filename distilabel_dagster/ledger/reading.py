"""The ledger for those who only look: nothing is made, brought up to date or locked."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import URL, Engine
from sqlalchemy.pool import NullPool

from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.database import build_engine, parse_url, read_transaction
from distilabel_dagster.ledger.database_errors import describe_url
from distilabel_dagster.ledger.schema import SCHEMA_VERSION, read_version
from distilabel_dagster.ledger.usage import Usage, add_up, read_usage

_FIRST_WITH_CALLS: Final = 2


def look_up_usage(url: str, step_keys: Iterable[str]) -> dict[str, Usage]:
    """Read what the calls of some steps came to, in all runs: step key -> its counters; only steps with some.

    Args:
        url: as for `open_database`.
        step_keys: names of the steps' directories.

    Raises:
        CacheError: the database can't be read, or a newer release made it.
    """
    with _open(url) as engine:
        if engine is None or not _has_calls(engine):
            return {}
        found = {key: list(read_usage(engine, step_key=key).values()) for key in step_keys}
    return {key: add_up(usages) for key, usages in found.items() if usages}


@contextlib.contextmanager
def _open(url: str) -> Iterator[Engine | None]:
    """Give a database that can only be read; None where there's no file."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = _find_file(parsed)
        if not path.is_file():
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


def _find_file(url: URL) -> Path:
    database = url.database or ""
    return Path(urlsplit(database).path if database.startswith("file:") else database).expanduser().absolute()


def _connect(path: Path) -> sqlite3.Connection:
    """Connect for reading only.

    Where nobody else has the file open, and none was killed while it had, all is in the file itself. SQLite is told so,
    for otherwise it would put two files beside it, also to read.
    """
    is_at_rest = not path.with_name(f"{path.name}-wal").exists()
    return sqlite3.connect(f"{path.as_uri()}?mode=ro{'&immutable=1' if is_at_rest else ''}", uri=True)


def _has_calls(engine: Engine) -> bool:
    with read_transaction(engine) as connection:
        version = read_version(connection)
    if version is not None and version > SCHEMA_VERSION:
        location = describe_url(engine.url)
        raise CacheError(
            f"The ledger {location} has schema version {version}, made by a newer release of this package; this one "
            f"knows version {SCHEMA_VERSION}. Upgrade `distilabel-dagster` to read it.",
            path=location,
        )
    return version is not None and version >= _FIRST_WITH_CALLS
