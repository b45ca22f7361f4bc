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
    func,
    insert,
    inspect,
    select,
    update,
)

SCHEMA_VERSION: Final = 2
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
)

# The response comes last: what stands before it is read without the pages that a long one goes on to. Keys are
# random, so rows lie in the order in which they came, and only the key's index is written all over.
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
    """Tell the version of the tables that are there; None where there are none."""
    if not inspect(connection).has_table(SCHEMA_VERSION_TABLE.name):
        return None
    return connection.execute(select(func.max(SCHEMA_VERSION_TABLE.c.version))).scalar()


def bring_up_to_date(connection: Connection, version: int | None) -> None:
    """Make the tables, or bring those of an earlier version to this one with their rows kept.

    All in the transaction of the caller, who makes sure that no other process does the same.
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
    METADATA.create_all(connection, tables=tables, checkfirst=False)


_MIGRATIONS: Final[dict[int, Callable[[Connection], None]]] = {1: _add_calls}
