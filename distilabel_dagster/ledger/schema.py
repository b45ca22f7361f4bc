"""The ledger's tables, the version of their schema, and the way from each earlier version to this one."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)

from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.database_errors import build_error, describe_url

SCHEMA_VERSION: Final = 3
FIRST_WITH_CALLS: Final = 2
METADATA: Final = MetaData()

_ROW_ID: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the type is called INTEGER."""

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
    # Of the holder's machine, at the heartbeat; NULL where a release before schema 3 gave it.
    Column("uptime", Float(53)),
)

# The response comes after what is read without the pages that a long one goes on to. Keys are random, so rows lie in
# the order in which they came, and only the key's index is written all over. The checksum comes last, where a
# migration can put it too; rows from before schema 3 have none.
RESPONSES_TABLE: Final = Table(
    "responses",
    METADATA,
    Column("key", LargeBinary, primary_key=True),
    Column("model", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("finish_reason", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cost_usd", Float(53)),
    Column("latency_s", Float(53), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("run_id", Text, nullable=False),
    Column("response", Text, nullable=False),
    Column("checksum", BigInteger),
)

# Holds what is asked for at the moment and a dead process's rest, so it stays small.
CLAIMS_TABLE: Final = Table(
    "claims",
    METADATA,
    Column("key", LargeBinary, primary_key=True),
    Column("owner", Text, nullable=False),
    sqlite_with_rowid=False,
)

USAGE_TABLE: Final = Table(
    "usage",
    METADATA,
    Column("partition", Text, primary_key=True),
    Column("step_key", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("step", Text, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("calls_reused", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("calls_without_tokens", BigInteger, nullable=False),
    Column("cost_usd", Float(53), nullable=False),
    Column("calls_without_price", BigInteger, nullable=False),
    Index("usage_by_step_key", "step_key"),
    Index("usage_by_model", "model", "endpoint", "step"),
    sqlite_with_rowid=False,
)

FAILURES_TABLE: Final = Table(
    "failures",
    METADATA,
    Column("partition", Text, primary_key=True),
    Column("step_key", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("step", Text, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Index("failures_by_step_key", "step_key"),
    sqlite_with_rowid=False,
)

FAILED_ATTEMPTS_TABLE: Final = Table(
    "failed_attempts",
    METADATA,
    Column("id", _ROW_ID, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("partition", Text, nullable=False),
    Column("step_key", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status_code", Integer),
    Column("message", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    Index("failed_attempts_by_step", "partition", "step_key", "id"),
)

RATE_LIMITS_TABLE: Final = Table(
    "rate_limits",
    METADATA,
    Column("limit_key", Text, primary_key=True),
    Column("free_at", Float(53), nullable=False),
    sqlite_with_rowid=False,
)


def read_version(connection: Connection) -> int | None:
    """Tell the version of the tables that are there; None where there are none.

    Raises:
        DamagedFileError: the table that says it holds something else.
    """
    if not inspect(connection).has_table(SCHEMA_VERSION_TABLE.name):
        return None
    found = connection.execute(select(SCHEMA_VERSION_TABLE.c.version).limit(2)).scalars().all()
    if len(found) == 1 and type(found[0]) is int and found[0] >= 1:
        return found[0]
    shown = ", ".join(repr(each)[:40] for each in found) or "no row"
    reason = f"its table `schema_version` holds {shown}, where one whole number from 1 is expected"
    raise build_error("damaged", describe_url(connection.engine.url), "read", reason)


def list_names() -> list[str]:
    """List the names of all tables and indexes."""
    return [
        *METADATA.tables,
        *(str(index.name) for table in METADATA.tables.values() for index in table.indexes),
    ]


def build_newer_error(connection: Connection, version: int) -> CacheError:
    """Build the error of a ledger that a newer release made."""
    location = describe_url(connection.engine.url)
    what = (
        f"has schema version {version}, made by a newer release of this package; this one knows version "
        f"{SCHEMA_VERSION}"
    )
    remedy = "Upgrade `distilabel-dagster`, or use another cache directory."
    return CacheError(f"The ledger {location} {what}. {remedy}", path=location, what=what, remedy=remedy)


def bring_up_to_date(connection: Connection, version: int | None) -> None:
    """Make the tables, or bring those of an earlier version to this one with their rows kept.

    All in the transaction of the caller, who makes sure that no other process does the same. Takes no longer for many
    rows than for few.
    """
    if version is None:
        METADATA.create_all(connection)
        connection.execute(insert(SCHEMA_VERSION_TABLE).values(version=SCHEMA_VERSION))
        return
    for earlier in range(version, SCHEMA_VERSION):
        _MIGRATIONS[earlier](connection)
    connection.execute(update(SCHEMA_VERSION_TABLE).values(version=SCHEMA_VERSION))


def _add_calls(connection: Connection) -> None:
    """From 1, which had the leases only."""
    tables = [
        RESPONSES_TABLE,
        CLAIMS_TABLE,
        USAGE_TABLE,
        FAILURES_TABLE,
        FAILED_ATTEMPTS_TABLE,
        RATE_LIMITS_TABLE,
    ]
    METADATA.create_all(connection, tables=tables)


def _add_checksum_and_uptime(connection: Connection) -> None:
    """From 2; what came from 1 a moment ago has the checksum already."""
    for column in (RESPONSES_TABLE.c.checksum, LEASES_TABLE.c.uptime):
        table = column.table.name
        if column.name not in {each["name"] for each in inspect(connection).get_columns(table)}:
            kind = column.type.compile(connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column.name} {kind}")


_MIGRATIONS: Final[dict[int, Callable[[Connection], None]]] = {1: _add_calls, 2: _add_checksum_and_uptime}
