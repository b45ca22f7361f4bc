"""The rows of responses in the database: how they're looked up, read through and replaced."""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Connection, update
from sqlalchemy.exc import DBAPIError

from distilabel_dagster.ledger.calls import StoredResponse
from distilabel_dagster.ledger.database import select_by_keys
from distilabel_dagster.ledger.database_errors import NO_TEXT, build_error, describe_url
from distilabel_dagster.ledger.response_encoding import COLUMNS, decode_row, decode_rows
from distilabel_dagster.ledger.schema import RESPONSES_TABLE
from distilabel_dagster.ledger.sqlite_file import any_text

_AS_IN_FILE: Final = tuple("CAST(response AS BLOB)" if name == "response" else name for name in COLUMNS)
"""The columns as SQLite is asked for them: text that is none is an answer that is damaged, not an error."""

_ROW_ID: Final = "SELECT rowid FROM responses WHERE key = ?"
_BY_ROW_ID: Final = f"SELECT {', '.join(_AS_IN_FILE)} FROM responses NOT INDEXED WHERE rowid = ?"  # noqa: S608 (names from the schema)


class StoredResponses(Mapping[bytes, StoredResponse]):
    """Responses by key, each read from its row when it's asked for; one that is damaged raises `DamagedFileError` then."""

    def __init__(self, rows: dict[bytes, tuple[Any, ...]], location: str) -> None:
        self._rows = rows
        self._location = location

    def __getitem__(self, key: bytes) -> StoredResponse:
        return decode_row(self._rows[key], self._location)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows


def select_rows(connection: Connection, keys: Iterable[bytes]) -> list[tuple[Any, ...]]:
    """Read the rows under some keys, in no particular order."""
    wanted = set(keys)
    if connection.dialect.name != "sqlite":
        return list(select_by_keys(connection, RESPONSES_TABLE, COLUMNS, wanted))
    try:
        rows = list(select_by_keys(connection, RESPONSES_TABLE, _AS_IN_FILE, wanted))
    except DBAPIError as error:
        if NO_TEXT not in str(error.orig):
            raise
        with any_text(connection):
            rows = list(select_by_keys(connection, RESPONSES_TABLE, _AS_IN_FILE, wanted))
    # A damaged index may give a row that nobody asked for.
    return [row for row in rows if row[0] in wanted]


def scan_rows(connection: Connection, *, has_checksum: bool = True) -> Iterator[tuple[Any, ...]]:
    """Read all rows, as they lie in the table.

    Args:
        connection: to the database.
        has_checksum: whether the table has that column, which it hasn't before schema 3.
    """
    is_file = connection.dialect.name == "sqlite"
    columns = (*(_AS_IN_FILE if is_file else COLUMNS)[:-1], "checksum" if has_checksum else "NULL")
    query = f"SELECT {', '.join(columns)} FROM responses{' NOT INDEXED' if is_file else ''}"  # noqa: S608 (names from the schema)
    streaming = connection.execution_options(stream_results=True)
    with any_text(connection) if is_file else contextlib.nullcontext():
        yield from map(tuple, streaming.exec_driver_sql(query))


def check_index(connection: Connection, damaged: Collection[bytes]) -> None:
    """Make sure of responses that don't look as they should that they are the ones that were asked for.

    A damaged index leads to another response, which is whole: it would be lost if it were replaced.

    Raises:
        DamagedFileError: one is another's.
    """
    if connection.dialect.name != "sqlite":
        return
    location = describe_url(connection.engine.url)
    for key in damaged:
        for (row_id,) in connection.exec_driver_sql(_ROW_ID, (key,)).all():
            with any_text(connection):
                rows = connection.exec_driver_sql(_BY_ROW_ID, (row_id,)).all()
            if decode_rows(map(tuple, rows), location)[0].keys() - {key}:
                reason = f"its index leads from {key.hex()} to the response of another call"
                raise build_error("damaged", location, "read", reason)


def replace_row(connection: Connection, row: tuple[Any, ...]) -> None:
    """Put a row in the place of the one that is there under its key."""
    # The key stays as the index has it: the one in the row may be damaged, and SQLite would look for that.
    values = dict(zip(COLUMNS[1:], row[1:], strict=True))
    connection.execute(update(RESPONSES_TABLE).where(RESPONSES_TABLE.c.key == row[0]).values(values))
