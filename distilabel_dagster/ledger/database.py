"""The ledger's database: a SQLite file, or PostgreSQL by URL for teams and for caches on object stores.

All tables stand here, beside the version of their schema. Errors of the database leave this module as this
package's own, with passwords hidden.
"""

import contextlib
import errno
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from distilabel_dagster.base.serializable import is_secret_name
from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError, DamagedFileError

SCHEMA_VERSION: Final = 1
METADATA: Final = MetaData()

SCHEMA_VERSION_TABLE: Final = Table(
    "schema_version",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

LEASES_TABLE: Final = Table(
    "leases",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("token", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_start", Text, nullable=False),
    Column("since", Float(53), nullable=False),
    Column("heartbeat", Float(53), nullable=False),
)

_EXCLUSIVE: Final = "ledger_exclusive"
_BUSY_TIMEOUT: Final = "ledger_busy_timeout_s"
_ADVISORY_LOCK: Final = 0x64697374_6C656467
"""Number of PostgreSQL's lock for exclusive transactions: any number, the same for ever."""

_DAMAGED: Final = (
    "file is not a database",
    "malformed",
    "unsupported file format",
    "no such table",
    "no such column",
)
_DAMAGED_STATES: Final = frozenset({"42P01", "42703"})
_FULL: Final = ("database or disk is full",)
_FULL_STATES: Final = frozenset({"53100"})
_REFUSED: Final = ("readonly database", "unable to open database file")
_LOCKED: Final = ("database is locked", "database table is locked")
_LOCKED_STATES: Final = frozenset({"55P03"})

_REMEDIES: Final[dict[str, tuple[type[CacheError], str]]] = {
    "damaged": (
        DamagedFileError,
        (
            "Put back a copy of it, or move it away (with the files `-wal` and `-shm` beside it) and start the run "
            "again, which makes a new one; committed rows are in files of their own and stay."
        ),
    ),
    "full": (
        CacheFullError,
        (
            "Rows committed before are safe. Free some space (or raise the quota) and start the same run again: it "
            "goes on from there."
        ),
    ),
    "refused": (
        CacheDirectoryError,
        "Check the path and its permissions, or give another directory by `cache_dir=` or DISTILABEL_CACHE_DIR.",
    ),
    "locked": (
        CacheError,
        (
            "Another process has kept it for longer than one waits. Look for one that is stopped or hangs in the "
            "middle of writing, and start the run again."
        ),
    ),
    "other": (CacheError, "Check that the disk or the server can be reached, and start the run again."),
}


def open_database(url: str, *, busy_timeout_s: float = 30.0) -> Engine:
    """Open the ledger's database and make its tables where they're missing.

    A SQLite file is put in WAL mode, so that readers never wait; its directory is made. Each transaction has a
    connection of its own, so the engine may be shared by threads and survives a fork. Safe to call from many
    processes at once, and again on the same database.

    Args:
        url: path of a SQLite file, or a SQLAlchemy URL of SQLite (a file) or PostgreSQL.
        busy_timeout_s: how long a transaction waits for another one before it gives up.

    Raises:
        CacheDirectoryError: the file can't be made or written.
        CacheFullError: no space is left.
        DamagedFileError: the file is no database, or not one of this package.
        CacheError: the URL can't be used, the server can't be reached, or a newer version made the tables.
    """
    parsed = _parse_url(url)
    connect_args: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        parsed = _prepare_file(parsed)
        connect_args["timeout"] = busy_timeout_s
    try:
        engine = create_engine(
            parsed,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args=connect_args,
            execution_options={_BUSY_TIMEOUT: busy_timeout_s},
        )
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        missing = getattr(error, "name", None)
        remedy = f"Install `{missing}`, or name a driver that is installed" if missing else "Check the URL"
        raise CacheError(
            f"The ledger {describe_url(parsed)} can't be opened: {_without_password(str(error), parsed)}. {remedy} "
            "(`sqlite:///<path>`, `postgresql+psycopg://<user>@<host>/<database>`).",
            path=describe_url(parsed),
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    _prepare_schema(engine)
    return engine


@contextlib.contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that only reads; it waits for nobody."""
    with _explained(engine.url, "read"), engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def exclusive_transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that no other exclusive one, of any process, runs beside.

    What is read in it stays true until its end. Committed at the end of the block, undone by an exception.
    """
    with _explained(engine.url, "written"), engine.connect() as plain:
        connection = plain.execution_options(**{_EXCLUSIVE: True})
        with connection.begin():
            if engine.dialect.name == "postgresql":
                timeout_ms = int(connection.get_execution_options()[_BUSY_TIMEOUT] * 1000)
                connection.execute(select(func.set_config("lock_timeout", f"{timeout_ms}ms", True)))
                connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            yield connection


def describe_url(url: URL) -> str:
    """Say where a database is: the path of a file, else the URL without its secrets."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    shown = {name: "***" if is_secret_name(name) else value for name, value in url.query.items()}
    return url.set(query=shown).render_as_string(hide_password=True)


def _parse_url(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser()))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text is not repeated: where the URL can't be taken apart, its password can't be hidden.
        raise CacheError(
            f"The ledger's URL, which begins with `{url.partition('://')[0]}://`, can't be read as one. Expected is "
            "`sqlite:///<path>` or `postgresql+psycopg://<user>:<password>@<host>/<database>`, with special "
            "characters in the password percent-encoded.",
            path=url.partition("://")[0],
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise CacheError(
            f"The ledger {describe_url(parsed)} is a database of the kind `{parsed.get_backend_name()}`; SQLite and "
            "PostgreSQL can be used. Give a path, `sqlite:///<path>` or `postgresql+psycopg://…`.",
            path=describe_url(parsed),
        )
    return parsed


def _prepare_file(url: URL) -> URL:
    """Make the directory of a SQLite file; give the URL with an absolute path."""
    database = url.database or ":memory:"
    if database == ":memory:" or "mode=memory" in database or url.query.get("mode") == "memory":
        raise CacheError(
            "The ledger can't be a SQLite database in memory: no other process would see who writes. Give the path "
            "of a file.",
            path=":memory:",
        )
    if database.startswith("file:"):
        return url
    path = Path(database).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise _build_error(
            "full" if is_full else "refused", str(path), "made", error.strerror or ""
        ) from error
    return url.set(database=str(path))


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # `_begin_sqlite` says BEGIN, and which one
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        # Only the first change to WAL needs the file for itself; whoever finds it idle makes it.
        if not any(fragment in str(error) for fragment in _LOCKED):
            raise


def _begin_sqlite(connection: Connection) -> None:
    is_exclusive = connection.get_execution_options().get(_EXCLUSIVE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_exclusive else "BEGIN")


def _prepare_schema(engine: Engine) -> None:
    with read_transaction(engine) as connection:
        if _read_version(connection) == SCHEMA_VERSION:
            return
    with exclusive_transaction(engine) as connection:
        version = _read_version(connection)
        if version is None:
            METADATA.create_all(connection)
            connection.execute(insert(SCHEMA_VERSION_TABLE).values(version=SCHEMA_VERSION))
        elif version > SCHEMA_VERSION:
            location = describe_url(engine.url)
            raise CacheError(
                f"The ledger {location} has schema version {version}, made by a newer release of this package; this "
                f"one knows version {SCHEMA_VERSION}. Upgrade `distilabel-dagster`, or use another cache directory.",
                path=location,
            )


def _read_version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(SCHEMA_VERSION_TABLE.name):
        return None
    return connection.execute(select(func.max(SCHEMA_VERSION_TABLE.c.version))).scalar()


@contextlib.contextmanager
def _explained(url: URL, action: str) -> Iterator[None]:
    """Turn errors of the database and of its driver into this package's."""
    try:
        yield
    except DBAPIError as error:
        text = " ".join(str(error.orig).split())
        shown = _without_password(text, url)
        explained = _build_error(_classify(text, error.orig, url), describe_url(url), action, shown)
        # A traceback would show a cause that names the password.
        raise explained from (error if shown == text else None)


def _classify(text: str, original: object, url: URL) -> str:
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    kinds = {
        "damaged": (_DAMAGED, _DAMAGED_STATES),
        "full": (_FULL, _FULL_STATES),
        "refused": (_REFUSED, frozenset[str]()),
        "locked": (_LOCKED, _LOCKED_STATES),
    }
    for kind, (fragments, states) in kinds.items():
        if state in states or any(fragment in text for fragment in fragments):
            return kind
    if "disk I/O error" in text and _is_disk_full(url):
        return "full"
    return "other"


def _is_disk_full(url: URL) -> bool:
    """Ask the disk: SQLite itself calls it an I/O error where the file beside the WAL can't grow."""
    try:
        return shutil.disk_usage(Path(url.database or ".").parent).free == 0
    except OSError:
        return False


def _build_error(kind: str, location: str, action: str, reason: str) -> CacheError:
    error_class, remedy = _REMEDIES[kind]
    return error_class(
        f"The ledger {location} can't be {action}: {reason.rstrip('.')}. {remedy}", path=location
    )


def _without_password(text: str, url: URL) -> str:
    secrets = [url.password, *(value for name, value in url.query.items() if is_secret_name(name))]
    for secret in secrets:
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return text
