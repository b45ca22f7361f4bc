"""Responses as rows of their table, each with a checksum: a row that isn't what was written is found out."""

import contextlib
import functools
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import isnan
from struct import Struct
from struct import error as StructError  # noqa: N812 (its only name is that of every local variable for an error)
from typing import Any, Final

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, update
from sqlalchemy.exc import DBAPIError

from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.ledger.calls import StoredResponse, clean_text
from distilabel_dagster.ledger.database import select_by_keys
from distilabel_dagster.ledger.database_errors import NO_TEXT, build_error, describe_url
from distilabel_dagster.ledger.schema import RESPONSES_TABLE
from distilabel_dagster.ledger.sqlite_file import any_text

COLUMNS: Final = tuple(RESPONSES_TABLE.columns.keys())
"""What `encode_row` gives, and `decode_row` takes, in that order."""

_AS_IN_FILE: Final = tuple("CAST(response AS BLOB)" if name == "response" else name for name in COLUMNS)
"""The columns as SQLite is asked for them: text that is none is an answer that is damaged, not an error."""

_ROW_ID: Final = "SELECT rowid FROM responses WHERE key = ?"
_BY_ROW_ID: Final = f"SELECT {', '.join(_AS_IN_FILE)} FROM responses NOT INDEXED WHERE rowid = ?"  # noqa: S608 (names from the schema)
_NUMBERS: Final = Struct("<qqddqd")
_NAN: Final = float("nan")
_NO_REASON: Final = "\0"
"""Of an answer without a finish reason; in one that has one there's no such character."""

_COUNT: Final = (int, type(None))
_AMOUNT: Final = (float, type(None))
_TEXT: Final = (str, type(None))


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


def encode_row(stored: StoredResponse) -> tuple[Any, ...]:
    """Make a row of the table, in its order of columns.

    Raises:
        TypeError: the response isn't JSON data.
    """
    text = _to_json(stored.response)
    cost_usd = stored.cost_usd
    row = (
        stored.key,
        stored.model,
        stored.endpoint,
        stored.finish_reason and clean_text(stored.finish_reason),
        stored.input_tokens,
        stored.output_tokens,
        # As databases give amounts back: SQLite knows no NaN, and no negative zero.
        None if cost_usd is None or isnan(cost_usd) else cost_usd + 0.0,
        stored.latency_s + 0.0,
        stored.attempts,
        stored.created_at + 0.0,
        stored.run_id,
    )
    return (*row, text.decode(), compute_checksum(row, text))


def decode_row(row: tuple[Any, ...], location: str) -> StoredResponse:
    """Make a response of a row, the inverse of `encode_row`.

    Raises:
        DamagedFileError: its checksum is that of other values, or it holds what can't be in it.
    """
    reason = "does not have the checksum that it was written with"
    (
        key,
        model,
        endpoint,
        finish,
        tokens_in,
        tokens_out,
        cost,
        latency,
        attempts,
        at,
        run_id,
        text,
        checksum,
    ) = row
    content = text.encode() if isinstance(text, str) else text
    # What isn't of these types can't come from here, whatever its checksum is.
    if not (
        isinstance(key, bytes)
        and isinstance(content, bytes)
        and isinstance(model, str)
        and isinstance(endpoint, str)
        and isinstance(run_id, str)
        and isinstance(finish, _TEXT)
        and isinstance(tokens_in, _COUNT)
        and isinstance(tokens_out, _COUNT)
        and isinstance(cost, _AMOUNT)
        and isinstance(latency, float)
        and isinstance(at, float)
        and isinstance(attempts, int)
    ):
        reason = "holds values of other types than were written"
    elif checksum is None or checksum == compute_checksum(row[:-2], content):
        response = _from_json(content)
        if isinstance(response, dict):
            return StoredResponse(key, response, *row[1:-2])
        reason = "is not a JSON object"
    shown = key.hex() if isinstance(key, bytes) else repr(key)[:80]
    raise build_error("damaged", location, "read", f"the response under {shown} {reason}")


def decode_rows(
    rows: Iterable[tuple[Any, ...]], location: str
) -> tuple[dict[bytes, StoredResponse], dict[bytes, DamagedFileError]]:
    """Make responses of rows: those that can be read, and of the others what is wrong, by key."""
    whole: dict[bytes, StoredResponse] = {}
    damaged: dict[bytes, DamagedFileError] = {}
    for row in rows:
        try:
            whole[row[0]] = decode_row(row, location)
        except DamagedFileError as error:
            damaged[row[0]] = error
    return whole, damaged


def compute_checksum(row: tuple[Any, ...], content: bytes) -> int:
    """Give the CRC-32 of all that a row holds: in the table's order of columns, the response apart.

    It's of the values, not of how a database keeps them, so that each database gives the same, and each release: what
    is hashed must stay as it is.
    """
    key, model, endpoint, finish, tokens_in, tokens_out, cost, latency, attempts, at, run_id = row
    try:
        numbers = _NUMBERS.pack(
            -1 if tokens_in is None else tokens_in,
            -1 if tokens_out is None else tokens_out,
            _NAN if cost is None else cost,
            latency,
            attempts,
            at,
        )
    except StructError:  # beyond what a database takes
        return -1
    return zlib.crc32(content, zlib.crc32(key + numbers, _sum_texts(model, endpoint, run_id, finish)))


@functools.lru_cache(maxsize=256)  # the same for most calls of a run
def _sum_texts(model: str, endpoint: str, run_id: str, finish_reason: str | None) -> int:
    texts = (model, endpoint, run_id, _NO_REASON if finish_reason is None else finish_reason)
    return zlib.crc32("\n".join(texts).encode("utf-8", "surrogatepass"))


def _to_json(response: dict[str, Any]) -> bytes:
    try:
        return to_json(response)
    except ValueError:  # half of a surrogate pair: in a model's answer anything can happen
        return json.dumps(response).encode()


def _from_json(content: bytes) -> Any:
    """Read JSON; None where it isn't any."""
    try:
        return from_json(content)
    except ValueError:
        pass
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
