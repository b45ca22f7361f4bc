"""A call of a model as the ledger keeps it: what was answered, for which step it was paid, and what failed before."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json, to_json

from distilabel_dagster.ledger.database_errors import build_error

_MESSAGE_CHARACTERS: Final = 2_000


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The answer to one call.

    Attributes:
        key: what the call is kept under, see `ledger.keys.compute_call_key`.
        response: what the model's class gave, JSON data without any secret.
        model: name of the model.
        endpoint: where it was called; empty for a model in this process.
        finish_reason: why the answer ended, where the model says so.
        input_tokens: None where it isn't known.
        output_tokens: None where it isn't known.
        cost_usd: None where the price isn't known.
        latency_s: duration of the attempt that was answered.
        attempts: how many there were, this one included.
        created_at: seconds since 1970.
        run_id: the run that paid.
    """

    key: bytes
    response: dict[str, Any]
    model: str
    endpoint: str
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    latency_s: float
    attempts: int
    created_at: float
    run_id: str


@dataclass(frozen=True, slots=True)
class StepInRun:
    """Whose counters a call goes to.

    Attributes:
        partition: signature of the pipeline.
        step_key: name and signature of the step, as in the cache.
        step: name of the step.
        model: name of the model.
        endpoint: where it's called.
    """

    partition: str
    step_key: str
    step: str
    model: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Paid:
    """A response that has arrived, and the step that paid for it."""

    response: StoredResponse
    step: StepInRun


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt of a call that gave no answer; never a result, so a later run tries again.

    Attributes:
        key: of the call.
        step: the step that made it.
        kind: what sort of failure, in the words of `models.provider_errors`.
        status_code: of HTTP, where there was one.
        message: what the provider said, without any secret; kept up to 2,000 characters.
        run_id: the run that tried.
        at: seconds since 1970.
    """

    key: bytes
    step: StepInRun
    kind: str
    status_code: int | None
    message: str
    run_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Begun:
    """What became of the keys that a step is about to need.

    Attributes:
        found: those with a response.
        claimed: those that the asking process has to call, and nobody else does.
        elsewhere: those that another live process calls at the moment.
    """

    found: dict[bytes, StoredResponse]
    claimed: frozenset[bytes]
    elsewhere: frozenset[bytes]


class StoredResponses(Mapping[bytes, StoredResponse]):
    """Responses by key, each read from its text when it's asked for."""

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


def encode_row(stored: StoredResponse) -> tuple[Any, ...]:
    """Make a row of the table of responses, in its order of columns.

    Raises:
        TypeError: the response isn't JSON data.
    """
    return (
        stored.key,
        stored.model,
        stored.endpoint,
        stored.finish_reason and clean_text(stored.finish_reason),
        stored.input_tokens,
        stored.output_tokens,
        stored.cost_usd,
        stored.latency_s,
        stored.attempts,
        stored.created_at,
        stored.run_id,
        _to_json(stored.response),
    )


def decode_row(row: tuple[Any, ...], location: str) -> StoredResponse:
    """Make a response of a row, the inverse of `encode_row`.

    Raises:
        DamagedFileError: its text isn't JSON.
    """
    key, *others, text = row
    try:
        response = _from_json(text)
    except ValueError as error:
        reason = f"the response under {bytes(key).hex()} is not JSON"
        raise build_error("damaged", location, "read", reason) from error
    return StoredResponse(bytes(key), response, *others)


def encode_failure(failed: FailedAttempt) -> dict[str, Any]:
    """Make a row of a failed attempt."""
    return {
        "key": failed.key,
        **encode_step(failed.step),
        "kind": failed.kind,
        "status_code": failed.status_code,
        "message": clean_text(failed.message[:_MESSAGE_CHARACTERS]),
        "run_id": failed.run_id,
        "at": failed.at,
    }


def encode_step(step: StepInRun) -> dict[str, str]:
    """Give a step's columns."""
    return {name: getattr(step, name) for name in StepInRun.__slots__}


def clean_text(text: str) -> str:
    """Replace what a database's text can't hold: null characters and halves of surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _to_json(response: dict[str, Any]) -> str:
    try:
        return to_json(response).decode()
    except ValueError:  # half of a surrogate pair: in a model's answer anything can happen
        return json.dumps(response)


def _from_json(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)
