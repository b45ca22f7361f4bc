"""A call of a model as the ledger keeps it: what was answered, for which step it was paid, and what failed before.

What is made for each call is a named tuple: a frozen dataclass takes five times as long to make.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

_MESSAGE_CHARACTERS: Final = 2_000


class StoredResponse(NamedTuple):
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


class StepInRun(NamedTuple):
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


class Paid(NamedTuple):
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
        damaged: those of the claimed that have a response which can't be used: bits of it are others than were written.
    """

    found: dict[bytes, StoredResponse]
    claimed: frozenset[bytes]
    elsewhere: frozenset[bytes]
    damaged: frozenset[bytes] = frozenset()


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
    return step._asdict()


def clean_text(text: str) -> str:
    """Replace what a database's text can't hold: null characters and halves of surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
