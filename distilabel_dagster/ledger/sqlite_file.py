"""A ledger in a SQLite file: how it's made and opened, and what may be in it, for it may come from anybody."""

import contextlib
import os
import sqlite3
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Column, Connection, Table
from sqlalchemy.dialects import sqlite

from distilabel_dagster.base.directories import make_directory, sync_directory
from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.database_errors import (
    LOCKED,
    build_error,
    classify_errno,
    describe_url,
    find_file,
)

EXCLUSIVE: Final = "ledger_exclusive"
DURABLE: Final = "ledger_durable"
REPAIRED_SUFFIX: Final = ".repaired"
"""Of a file that a repair has made, in the moment before it takes its place."""

_LONGEST_VALUE_BYTES: Final = 256 * 2**20
_MOST_STEPS: Final = 100_000_000
"""Of SQLite's machine in one statement: what needs thousands of them in a good file goes round in circles in a bad one."""

_HARDENING: Final = (
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA mmap_size=0",
    "PRAGMA ignore_check_constraints=ON",
)
_SETTINGS: Final = (
    "PRAGMA synchronous=FULL",
    "PRAGMA fullfsync=ON",  # macOS: to the disk itself, not only to its cache
    # Keys are random, so a batch of rows writes to about as many pages of the index: room for them in memory, and a
    # file that takes each page only after it was written several times.
    "PRAGMA cache_size=-32768",
    "PRAGMA wal_autocheckpoint=8000",
)
_OBJECTS: Final = "SELECT type, name, substr(sql, 1, 40) FROM sqlite_master LIMIT 1000"
_OWN_TABLES: Final = frozenset({"sqlite_sequence", "sqlite_stat1", "sqlite_stat4"})
_COLUMNS: Final = (
    "SELECT m.name, x.name, x.type, x.hidden, x.pk FROM sqlite_master m, pragma_table_xinfo(m.name) x "
    "WHERE m.type = 'table' LIMIT 1000"
)


def prepare_file(url: URL) -> URL:
    """Make the directory of a SQLite file; give the URL with an absolute path.

    Raises:
        CacheDirectoryError: it can't be made.
        CacheFullError: no space is left.
        CacheError: it's no file.
    """
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
    check_files(path)
    try:
        make_directory(str(path.parent))
    except OSError as error:
        raise build_error(classify_errno(error), str(path), "made", error.strerror or "") from error
    return url.set(database=str(path))


def check_files(path: Path) -> None:
    """Make sure that a ledger's file, and those beside it, may be opened, and that its answers are nowhere else.

    Raises:
        DamagedFileError: one of them is a directory or the like; or a repair was interrupted in the moment in which the
            new file takes the old one's place; or the file is gone or empty and its WAL isn't: SQLite would make a new
            one, and delete the WAL.
    """
    for each in (path, *list_beside(path)):
        if os.path.lexists(each) and not os.path.isfile(each):  # noqa: PTH113 (False where one may not look)
            reason = f"`{each.name}` isn't a file: a directory, a link to nowhere or the like is in its place"
            raise build_error("damaged", str(path), "used", reason)
    repaired = path.with_name(path.name + REPAIRED_SUFFIX)
    if os.path.exists(repaired):  # noqa: PTH110 (a plain string, as SQLite takes it)
        reason = f"a repair of it was interrupted, and `{repaired.name}` beside it holds its answers"
        raise build_error("damaged", str(path), "used", reason)
    wal = path.with_name(f"{path.name}-wal")
    if _count_bytes(wal) > 0 and _count_bytes(path) == 0:
        reason = f"it's empty or gone, and `{wal.name}` beside it isn't"
        raise build_error("damaged", str(path), "used", reason)


def list_beside(path: Path) -> list[Path]:
    """List the files that SQLite keeps beside one, as far as they may be there."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")]


def _count_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def sync_name(url: URL) -> None:
    """Have the disk keep the name of a file that was made a moment ago, and of a directory that others made for it."""
    directory = find_file(url).parent
    try:
        for each in (directory, directory.parent):
            sync_directory(str(each))
    except OSError as error:
        raise build_error(classify_errno(error), describe_url(url), "made", error.strerror or "") from error


def configure_connection(connection: sqlite3.Connection, _record: object) -> None:
    """Set a new connection up for writing."""
    connection.isolation_level = None  # `begin_transaction` says BEGIN, and which one
    harden(connection)
    for statement in _SETTINGS:
        connection.execute(statement)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        # Only the first change to WAL needs the file for itself; whoever finds it idle makes it.
        if not any(fragment in str(error) for fragment in LOCKED):
            raise


def harden(connection: sqlite3.Connection, most_steps: int = 0) -> None:
    """Set a connection up for a file that may be damaged, or made to do harm.

    Nothing in its schema is run that could reach beyond it, no statement goes on for ever, and no value takes more
    memory than there is.

    Args:
        connection: fresh.
        most_steps: of SQLite's machine, for one statement; those that are enough for a look-up in any case.
    """
    connection.set_progress_handler(_give_up, max(_MOST_STEPS, most_steps))
    if sys.version_info >= (3, 11):
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)
    for statement in _HARDENING:
        connection.execute(statement)


@contextlib.contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Read text that is none as something that no checksum agrees with, for a block: else it's an error."""
    driver: Any = connection.connection.dbapi_connection
    before, driver.text_factory = driver.text_factory, _decode
    try:
        yield
    finally:
        driver.text_factory = before


def begin_transaction(connection: Connection) -> None:
    """Begin a transaction of the kind that its options say."""
    options = connection.get_execution_options()
    if not options.get(EXCLUSIVE, False):
        connection.exec_driver_sql("BEGIN")
        return
    # In WAL mode NORMAL leaves the waiting for the disk to the next durable commit, or to the checkpoint.
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options[DURABLE] else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def check_kinds(connection: Connection) -> None:
    """Make sure that a file holds plain tables and indexes only: views, triggers and the like run code of its maker's.

    And text as this package writes it: in another encoding what's written here would be read as something else.

    Raises:
        DamagedFileError: there's something else in it.
    """
    encoding = connection.exec_driver_sql("PRAGMA encoding").scalar()
    if encoding != "UTF-8":
        raise _build_strange_error(connection, f"its text is kept as {encoding}")
    for kind, name, sql in connection.exec_driver_sql(_OBJECTS).all():
        if kind not in ("table", "index") or "VIRTUAL" in str(sql).upper():
            raise _build_strange_error(connection, f"it holds a {kind} `{str(name)[:100]}`")


def check_names(connection: Connection, known: Collection[str], *, has_version: bool) -> None:
    """Make sure that a file holds tables and indexes of this package only.

    Args:
        connection: to the file.
        known: names of tables and indexes.
        has_version: whether it says that it's a ledger.

    Raises:
        DamagedFileError: it's a database of something else, or someone has put something into it.
    """
    for kind, name, _ in connection.exec_driver_sql(_OBJECTS).all():
        is_own = name in _OWN_TABLES or str(name).startswith("sqlite_autoindex_")
        if not is_own and name not in known:
            begin = "it holds" if has_version else "it's a database of something else, with"
            raise _build_strange_error(connection, f"{begin} the {kind} `{str(name)[:100]}`")


def check_columns(connection: Connection, tables: Mapping[str, Table]) -> None:
    """Make sure that the tables have the columns that they're to have.

    Raises:
        DamagedFileError: one hasn't.
    """
    found: dict[str, dict[str, tuple[Any, ...]]] = {name: {} for name in tables}
    for table, column, declared, hidden, place in connection.exec_driver_sql(_COLUMNS):
        found.setdefault(table, {})[column] = (_affinity(declared), hidden, bool(place))
    for name, table in tables.items():
        expected = {column.name: _describe_column(column) for column in table.columns}
        wrong = sorted(
            each for each in {*expected, *found[name]} if found[name].get(each) != expected.get(each)
        )
        if wrong:
            listed = ", ".join(f"`{each[:100]}`" for each in wrong[:5])
            reason = f"its table `{name}` isn't as this package makes it: see the columns {listed}"
            raise build_error("damaged", describe_url(connection.engine.url), "used", reason)


def _build_strange_error(connection: Connection, what: str) -> CacheError:
    location = describe_url(connection.engine.url)
    return build_error("damaged", location, "used", f"{what}, which no release of this package has made")


def _describe_column(column: "Column[Any]") -> tuple[Any, ...]:
    return _affinity(column.type.compile(sqlite.dialect())), 0, column.primary_key


def _affinity(declared: str) -> str:
    """What SQLite makes of values in a column, by its rules for the declared type."""
    kinds = {"INT": "integer", "CHAR": "text", "CLOB": "text", "TEXT": "text", "BLOB": "blob"}
    kinds |= {"REAL": "real", "FLOA": "real", "DOUB": "real"}
    upper = str(declared).upper()
    return next(
        (kind for fragment, kind in kinds.items() if fragment in upper), "numeric" if upper else "blob"
    )


def _decode(content: bytes) -> str:
    return str(content, "utf-8", "backslashreplace")


def _give_up() -> int:
    return 1
