"""The ledger's database: a SQLite file, or PostgreSQL by URL for teams and for caches on object stores.

Errors of the database leave this module as this package's own.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Insert,
    Pool,
    Table,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, NoSuchModuleError
from sqlalchemy.pool import NullPool, QueuePool

from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.database_errors import describe_url, explained, find_file, hide_password
from distilabel_dagster.ledger.hidden_answers import HiddenAnswers, find_hidden_answers
from distilabel_dagster.ledger.schema import (
    METADATA,
    SCHEMA_VERSION,
    bring_up_to_date,
    build_newer_error,
    list_names,
    read_version,
)
from distilabel_dagster.ledger.sqlite_file import (
    DURABLE,
    EXCLUSIVE,
    begin_transaction,
    check_columns,
    check_kinds,
    check_names,
    configure_connection,
    prepare_file,
    sync_name,
)

_BUSY_TIMEOUT: Final = "ledger_busy_timeout_s"
_MADE_FOR: Final = "ledger_made_for"
_ADVISORY_LOCK: Final = 0x64697374_6C656467
"""Number of PostgreSQL's lock for exclusive transactions: any number, the same for ever."""

_CHUNK: Final = 1_000
"""Keys in one statement. SQLite takes 32,766 parameters, and more at once isn't faster."""

_left_by_parent: Final[list[object]] = []
"""Connections that a fork found open: SQLite forbids to use, and even to close, them there."""


def open_database(url: str, *, busy_timeout_s: float = 30.0, keeps_connections: bool = False) -> Engine:
    """Open the ledger's database, make its tables where they're missing, and bring older ones up to date.

    A SQLite file is put in WAL mode, so that readers never wait; its directory is made. Safe to call from many
    processes at once, and again on the same database. The engine may be shared by threads and survives a fork.

    Answers that a damaged WAL hides from SQLite are brought back, with a warning; see `hidden_answers`, also for what isn't:
    the counters of what was used.

    Args:
        url: path of a SQLite file, or a SQLAlchemy URL of SQLite (a file) or PostgreSQL.
        busy_timeout_s: how long a transaction waits for another one before it gives up.
        keeps_connections: reuse connections instead of one for each transaction, which costs about as much as a
            small transaction itself; the caller disposes of the engine.

    Raises:
        CacheDirectoryError: the file can't be made or written.
        CacheFullError: no space is left.
        DamagedFileError: the file is no database, or not one of this package.
        CacheError: the URL can't be used, the server can't be reached, or a newer version made the tables.
    """
    parsed = parse_url(url)
    options: dict[str, Any] = {"connect_args": {}, "poolclass": NullPool}
    if keeps_connections:
        options |= {"poolclass": QueuePool, "pool_size": 2, "max_overflow": -1}
    hidden: HiddenAnswers | None = None
    if parsed.get_backend_name() == "sqlite":
        parsed = prepare_file(parsed)
        options["connect_args"] = {"timeout": busy_timeout_s}
        hidden = find_hidden_answers(find_file(parsed))  # before SQLite writes over them
    elif keeps_connections:
        options["pool_pre_ping"] = True
    engine = build_engine(parsed, execution_options={_BUSY_TIMEOUT: busy_timeout_s}, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", configure_connection)
        event.listen(engine, "begin", begin_transaction)
    if keeps_connections:
        _replace_stale_connections(engine)
    try:
        _prepare_schema(engine)
        if hidden is not None:
            _bring_back(engine, hidden)
    except BaseException:
        engine.dispose()
        raise
    return engine


def build_engine(url: URL, **options: Any) -> Engine:
    """Make an engine, without a connection to the database yet.

    Raises:
        CacheError: there's no driver for the URL.
    """
    try:
        return create_engine(url, hide_parameters=True, **options)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        missing = getattr(error, "name", None)
        package = "distilabel-dagster[postgresql]" if missing == "psycopg" else missing
        remedy = f"Install `{package}`, or name a driver that is installed" if missing else "Check the URL"
        raise CacheError(
            f"The ledger {describe_url(url)} can't be opened: {hide_password(str(error), url)}. {remedy} "
            "(`sqlite:///<path>`, `postgresql+psycopg://<user>@<host>/<database>`).",
            path=describe_url(url),
        ) from None


@contextlib.contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that only reads; it waits for nobody."""
    with explained(engine.url, "read"), engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def exclusive_transaction(engine: Engine, *, is_durable: bool = True) -> Iterator[Connection]:
    """Give a connection in a transaction that no other exclusive one, of any process, runs beside.

    What is read in it stays true until its end. Committed at the end of the block, undone by an exception. It
    survives the death of the process in any case.

    Args:
        engine: the database.
        is_durable: whether a commit waits until the disk has it, so that it survives a loss of power as well.
            Not for what has no meaning once every process is dead: signs of life, claims, rates.
    """
    place = describe_url(engine.url)
    with explained(engine.url, "written"), engine.connect() as plain:
        connection = plain.execution_options(**{EXCLUSIVE: True, DURABLE: is_durable})
        with connection.begin():
            if engine.dialect.name == "postgresql":
                _begin_postgresql(connection)
            reach("ledger.begun", place)
            yield connection
            reach("ledger.committing", place)
        reach("ledger.committed", place)


def find_version(connection: Connection) -> int | None:
    """Tell the version of the ledger that a database holds, None where it holds none yet; make sure that it's one.

    Raises:
        DamagedFileError: it's a database of something else, or there's in it what isn't to be.
        CacheError: a newer release made it.
    """
    is_file = connection.dialect.name == "sqlite"
    if is_file:
        check_kinds(connection)
    version = read_version(connection)
    if version is not None and version > SCHEMA_VERSION:
        raise build_newer_error(connection, version)
    if is_file:
        check_names(connection, list_names(), has_version=version is not None)
        if version == SCHEMA_VERSION:
            check_columns(connection, METADATA.tables)
    return version


def iter_chunks(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut keys into parts that fit into one statement; each key once, in the order in which an index has them."""
    ordered = sorted(set(keys))
    return (ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK))


def select_by_keys(
    connection: Connection, table: Table, columns: Iterable[str], keys: Iterable[bytes]
) -> Iterator[tuple[Any, ...]]:
    """Read columns of the rows with some keys (in the column `key`), in no particular order.

    Statement and rows are the driver's own: for 100,000 rows SQLAlchemy's way takes twice as long.
    """
    listed = ", ".join(columns)
    for chunk in iter_chunks(keys):
        matching, values = _match_keys(connection, chunk)
        query = f"SELECT {listed} FROM {table.name} WHERE {matching}"  # noqa: S608 (names from the schema)
        yield from _fetch_all(connection, query, values)


def _fetch_all(connection: Connection, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Execute a query, and give its rows as the driver's tuples; errors are as SQLAlchemy tells them."""
    result = connection.exec_driver_sql(query, values)
    try:
        rows: list[tuple[Any, ...]] = list(result.cursor.fetchall())
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError(query, None, error) from error
    finally:
        result.close()
    return rows


def delete_by_keys(
    connection: Connection, table: Table, keys: Iterable[bytes], *, owner: str | None = None
) -> None:
    """Delete the rows with some keys; with an owner, those only that have it too. As fast as `select_by_keys`."""
    for chunk in iter_chunks(keys):
        matching, values = _match_keys(connection, chunk)
        if owner is not None:
            mark = "%s" if connection.dialect.name == "postgresql" else "?"
            matching, values = f"{matching} AND owner = {mark}", (*values, owner)
        connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE {matching}", values)  # noqa: S608 (names from the schema)


def _match_keys(connection: Connection, keys: list[bytes]) -> tuple[str, tuple[Any, ...]]:
    if connection.dialect.name == "postgresql":
        return "key = ANY(%s)", (keys,)
    return f"key IN ({', '.join('?' * len(keys))})", tuple(keys)


def insert_missing(connection: Connection, table: Table, rows: list[tuple[Any, ...]]) -> int:
    """Insert rows, in the table's order of columns; leave those alone whose key is there already. Give how many are new.

    The driver's own statement, as in `select_by_keys`.
    """
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    names, marks = ", ".join(table.columns.keys()), ", ".join(mark for _ in table.columns)
    statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT (key) DO NOTHING"  # noqa: S608 (names from the schema)
    return connection.exec_driver_sql(statement, rows).rowcount


def upsert(
    connection: Connection, table: Table, *, added: tuple[str, ...] = (), replaced: tuple[str, ...] = ()
) -> Insert:
    """Give an INSERT that, where the row is there already, adds to some of its columns and replaces others."""
    return _build_upsert(connection.dialect.name, table, added, replaced)


@functools.cache  # building a statement takes longer than executing it
def _build_upsert(dialect: str, table: Table, added: tuple[str, ...], replaced: tuple[str, ...]) -> Insert:
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # takes 30 ms to import, and few ledgers are one

        return _add_conflict(postgresql.insert(table), table, added, replaced)
    return _add_conflict(sqlite.insert(table), table, added, replaced)


def _add_conflict(statement: Any, table: Table, added: tuple[str, ...], replaced: tuple[str, ...]) -> Insert:
    sums = {name: table.c[name] + statement.excluded[name] for name in added}
    values = {name: statement.excluded[name] for name in replaced}
    key = list(table.primary_key.columns)
    made: Insert = statement.on_conflict_do_update(index_elements=key, set_={**sums, **values})
    return made


def parse_url(url: str) -> URL:
    """Read a path of a SQLite file, or a URL of SQLite or PostgreSQL.

    Raises:
        CacheError: it's neither.
    """
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


def _begin_postgresql(connection: Connection) -> None:
    options = connection.get_execution_options()
    settings = {"lock_timeout": f"{int(options[_BUSY_TIMEOUT] * 1000)}ms"}
    if not options[DURABLE]:
        settings["synchronous_commit"] = "off"
    connection.execute(select(*(func.set_config(name, value, True) for name, value in settings.items())))
    connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _replace_stale_connections(engine: Engine) -> None:
    """Let the pool give no connection made before a fork, or to a file that is another one or gone by now.

    SQLite itself goes on writing to a file that was moved away or deleted: what is paid for would be lost.
    """
    is_file = engine.dialect.name == "sqlite"
    path = (engine.url.database or "").removeprefix("file:").partition("?")[0]

    def describe() -> tuple[int, ...]:
        if not is_file:
            return (os.getpid(),)
        try:
            found = os.stat(path)  # noqa: PTH116 (a fifth of the time of Path.stat, at each transaction)
        except OSError:
            return (os.getpid(),)
        return (os.getpid(), found.st_dev, found.st_ino)

    def note(_connection: object, record: Any) -> None:
        record.info[_MADE_FOR] = describe()

    def check(connection: object, record: Any, proxy: Any) -> None:
        made_for = record.info[_MADE_FOR]
        if made_for == describe():
            return
        if made_for[0] != os.getpid():
            _left_by_parent.append(connection)
            record.dbapi_connection = proxy.dbapi_connection = None
        raise DisconnectionError

    pool: Pool = engine.pool
    event.listen(pool, "connect", note)
    event.listen(pool, "checkout", check)


def _prepare_schema(engine: Engine) -> None:
    with read_transaction(engine) as connection:
        if find_version(connection) == SCHEMA_VERSION:
            return
    with exclusive_transaction(engine) as connection:
        version = find_version(connection)
        if version != SCHEMA_VERSION:
            bring_up_to_date(connection, version)
            find_version(connection)
    if engine.dialect.name == "sqlite":
        sync_name(engine.url)


def _bring_back(engine: Engine, hidden: HiddenAnswers) -> None:
    try:
        with exclusive_transaction(engine) as connection:
            brought = hidden.insert(connection)
    except CacheError as error:  # it can be opened all the same
        hidden.tell_failure(error)
    else:
        hidden.finish(brought)
