"""Responses as rows of their table, each with a checksum: a row that isn't what was written is found out."""

import functools
import json
import zlib
from collections.abc import Iterable
from math import isnan
from struct import Struct
from struct import error as StructError  # noqa: N812 (its only name is that of every local variable for an error)
from typing import Any, Final

from pydantic_core import from_json, to_json

from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.ledger.calls import StoredResponse, clean_text
from distilabel_dagster.ledger.database_errors import build_error
from distilabel_dagster.ledger.schema import RESPONSES_TABLE

COLUMNS: Final = tuple(RESPONSES_TABLE.columns.keys())
"""What `encode_row` gives, and `decode_row` takes, in that order."""

_NUMBERS: Final = Struct("<qqddqd")
_NAN: Final = float("nan")
_NO_REASON: Final = "\0"
"""Of an answer without a finish reason; in one that has one there's no such character."""

_COUNT: Final = (int, type(None))
_AMOUNT: Final = (float, type(None))
_TEXT: Final = (str, type(None))


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
