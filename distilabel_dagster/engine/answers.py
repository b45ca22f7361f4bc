"""What came of calls, and the outputs that it makes."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from distilabel_dagster.engine.calls import Request
from distilabel_dagster.errors import ModelCallError, ModelOutputError, ModelUnavailableError
from distilabel_dagster.ledger.calls import StoredResponse
from distilabel_dagster.models.llm import LLM, fail, merge_outputs
from distilabel_dagster.models.model import Model, RemoteModel, is_count


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: a raw response, or why there's none."""

    response: dict[str, Any] | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """How a call came to its answer.

    Attributes:
        attempts: how many it took.
        latency_s: seconds that the last one took.
    """

    attempts: int
    latency_s: float


async def ask_once(model: RemoteModel, requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Make one attempt of a call, and tell what the model's own code does to itself from what the run does to it.

    Raises:
        ModelUnavailableError: the model's code wants the process to end.
        ModelCallError: it was cancelled from within; or the attempt failed.
        asyncio.CancelledError: the run has given the call up.
    """
    try:
        return await model.attempt(
            [request.content for request in requests], requests[0].count, requests[0].kwargs
        )
    except asyncio.CancelledError as error:
        cancelling = getattr(asyncio.current_task(), "cancelling", None)
        if cancelling is None or cancelling():
            raise
        raise _build_own_fault(ModelCallError, model, "cancelled itself", "timeout") from error
    except (SystemExit, KeyboardInterrupt) as error:
        raise _build_own_fault(ModelUnavailableError, model, f"raised {error!r}", "other") from error


def _build_own_fault(
    error_class: type[ModelCallError], model: RemoteModel, told: str, kind: str
) -> ModelCallError:
    return error_class(
        f"Model `{model.model_name}`: a call {told}. Mend its code: it may give an answer, or raise an exception.",
        model=model.model_name,
        endpoint=model.endpoint,
        kind=kind,
        status_code=None,
    )


def read_answer(model: Model, request: Request, outcomes: Mapping[bytes, Outcome]) -> Any:
    """Make the output of a request of what came of its calls."""
    outputs = []
    for key in request.keys:
        outcome = outcomes[key]
        if outcome.response is None:
            outputs.append(fail(outcome.error, request.count))
        else:
            try:
                outputs.append(_complete(model, outcome.response, request.count))
            except Exception as error:  # noqa: BLE001  (one answer that can't be read is that row's failure)
                outputs.append(fail(error, request.count))
    return merge_outputs(outputs)


def _complete(model: Model, response: dict[str, Any], count: int) -> Any:
    output = _read(model, response)
    if isinstance(model, LLM):
        output = model.complete_output(output, count)
    # Counts that can't be any would spoil the column for all rows of the batch; an endpoint may answer with anything.
    statistics = output.get("statistics") or {}
    known = {name: counts for name, counts in statistics.items() if _are_counts(counts)}
    return output if len(known) == len(statistics) else {**output, "statistics": known}


def _are_counts(counts: Any) -> bool:
    return isinstance(counts, list) and bool(counts) and all(map(is_count, counts))


def _read(model: Model, response: dict[str, Any]) -> Any:
    read: Callable[[dict[str, Any]], Any] | None = getattr(model, "read_response", None)
    return read(response) if read is not None else response


def as_json(model: Model, response: dict[str, Any]) -> dict[str, Any]:
    """Give a response as it will be when it's read from the ledger, so that a resume gives equal rows.

    Raises:
        ModelCallError: it isn't data.
        ModelOutputError: it's no dict.
    """
    if not isinstance(response, dict):
        raise ModelOutputError(
            f"Model `{model.model_name}` gave a {type(response).__name__} for a call, expected a dict.",
            model=model.model_name,
        )
    with contextlib.suppress(ValueError):  # the way for what is plain: a fifth of the time
        plain: dict[str, Any] = from_json(to_json(response, inf_nan_mode="constants"))
        return plain
    try:
        text = json.dumps(response, default=_as_plain, ensure_ascii=False)
        # An answer that was cut within an emoji ends with half of it, which no file can hold.
        made: dict[str, Any] = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (TypeError, ValueError) as error:
        raise ModelCallError(
            f"Model `{model.model_name}` gave something that can't be kept as JSON: {error}. Give strings, numbers, "
            "lists and dicts.",
            model=model.model_name,
            endpoint=model.endpoint,
            kind="other",
            status_code=None,
        ) from error
    return made


def _as_plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"it holds a {type(value).__name__}")


def _total(counts: Any) -> int | None:
    return sum(counts) if counts else None


def describe_response(
    model: Model,
    request: Request,
    key: bytes,
    response: dict[str, Any],
    *,
    course: Course,
    run_id: str,
) -> StoredResponse:
    """Say of a response what the ledger keeps beside it: tokens, cost, why it ended.

    Raises:
        ModelOutputError: it's none that the request could have; it isn't worth keeping.
    """
    output = _complete(model, response, request.count)
    statistics = output.get("statistics") or {}
    tokens = {name: _total(statistics.get(f"{name}_tokens")) for name in ("input", "output")}
    known = all(count is not None for count in tokens.values())
    cost = model.cost_usd(tokens["input"] or 0, tokens["output"] or 0) if known else None
    reasons = output.get("finish_reasons") or [None]
    return StoredResponse(
        key=key,
        response=response,
        model=model.model_name,
        endpoint=model.endpoint,
        finish_reason=None if reasons[0] is None else str(reasons[0]),
        input_tokens=tokens["input"],
        output_tokens=tokens["output"],
        cost_usd=cost,
        latency_s=course.latency_s,
        attempts=course.attempts,
        created_at=time.time(),
        run_id=run_id,
    )
