"""What can go wrong with a model, in our words: the one place where a provider's exceptions are translated."""

import datetime as dt
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from distilabel_dagster.errors import ModelCallError
from distilabel_dagster.models.retry_after import read_retry_after_s

_MAX_SAID = 500
_CUT_OFF = "it broke off in the middle"


@dataclass(frozen=True, slots=True)
class FailureKind:
    """One kind of failed call: what happened, what the user can do, and what becomes of the call and the run.

    Attributes:
        told: what happened, after the endpoint's name.
        remedy: what to do, as a sentence.
        quotes_provider: what the provider said is part of the message.
        is_retried: the same call may succeed in a moment.
        ends_run: each call would fail in this way, so that no further one is worth making.
    """

    told: str
    remedy: str
    quotes_provider: bool = True
    is_retried: bool = False
    ends_run: bool = False


FAILURE_KINDS: Final[dict[str, FailureKind]] = {
    "timeout": FailureKind(
        "gave no answer in time", "Raise `timeout_s`, or lower `max_concurrency`.", False, is_retried=True
    ),
    "connection": FailureKind(
        "can't be reached", "Check `base_url`, and that the server is up.", False, is_retried=True
    ),
    # What it says may quote a part of the key.
    "authentication": FailureKind(
        "refused the API key", "Set OPENAI_API_KEY, or pass `api_key=`.", False, ends_run=True
    ),
    "permission": FailureKind(
        "doesn't allow this key to use the model", "Use another key or model.", False, ends_run=True
    ),
    "not_found": FailureKind(
        "doesn't know the model or the path", "Check `model` and `base_url`.", ends_run=True
    ),
    "quota": FailureKind(
        "takes no more calls of this account",
        "Add credit or raise the account's limit.",
        ends_run=True,
    ),
    "rate_limit": FailureKind(
        "takes no more calls now",
        "Lower `max_concurrency`, set `requests_per_minute`, or check the account's limits.",
        is_retried=True,
    ),
    "context_length": FailureKind(
        "finds the request too long",
        "Shorten the prompt or `max_new_tokens`, or use a model that takes more.",
    ),
    "content_filter": FailureKind(
        "refused the request by its content filter", "Change the prompt, or leave the row out."
    ),
    "bad_request": FailureKind("refused the request", "Check the messages and `generation_kwargs`."),
    "server": FailureKind("failed", "Its own log may say why.", is_retried=True),
    "malformed": FailureKind(
        "answered with something that can't be read", "Check `base_url`.", is_retried=True
    ),
    "other": FailureKind("couldn't be called", "Check the settings of the model."),
}

_OPENAI_KINDS: Final[dict[str, str]] = {
    "APITimeoutError": "timeout",
    "APIConnectionError": "connection",
    "AuthenticationError": "authentication",
    "OAuthError": "authentication",
    "SubjectTokenProviderError": "authentication",
    "PermissionDeniedError": "permission",
    "NotFoundError": "not_found",
    "RateLimitError": "rate_limit",
    "BadRequestError": "bad_request",
    "UnprocessableEntityError": "bad_request",
    "ConflictError": "server",
    "InternalServerError": "server",
    "APIResponseValidationError": "malformed",
    "APIStatusError": "server",
    "APIError": "server",
    "LengthFinishReasonError": "malformed",
    "ContentFilterFinishReasonError": "content_filter",
    # Of parts of the SDK that calls of models don't use.
    "InvalidWebhookSignatureError": "other",
    "WebSocketConnectionClosedError": "other",
    "WebSocketQueueFullError": "other",
    "OpenAIError": "other",
}

_STATUS_KINDS: Final[dict[int, str]] = {
    401: "authentication",
    402: "quota",
    403: "permission",
    404: "not_found",
    405: "not_found",
    408: "timeout",
    409: "server",
    410: "not_found",
    425: "server",
    429: "rate_limit",
}
"""Kinds by HTTP status; others are `server` from 500 on, and `bad_request` below."""

_CODE_KINDS: Final[dict[str, str]] = {
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "context_length_exceeded": "context_length",
    "exceed_context_size_error": "context_length",
    "string_above_max_length": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "responsibleaipolicyviolation": "content_filter",
}
"""Kinds by what providers put into an error's `code` or `type`, in lower case."""

# How OpenAI, vLLM, SGLang, llama.cpp, llama-cpp-python, Ollama, TGI and several hosts say that a request is too long.
_TOO_LONG: Final = re.compile(
    r"(?:maximum|model'?s) (?:model |context )+(?:length|window)|exceeds? (?:the |its |model'?s )*(?:available |maximum )*"
    r"(?:context|maximum number of tokens)|prompt is too long|longer than the (?:maximum )?model|"
    r"tokens. must (?:be <=|have less than)|inputs. must have less than|reduce the length of the (?:messages|prompt|input)|"
    r"too large for model with",
    re.IGNORECASE,
)
_NO_QUOTA: Final = re.compile(
    r"exceeded your current quota|insufficient (?:credits|balance|funds)", re.IGNORECASE
)
_FILTERED: Final = re.compile(r"content management policy|content filter|flagged|moderation", re.IGNORECASE)
_MAY_BE_TOO_LONG: Final = frozenset({400, 413, 422, 500})
_MAY_BE_FILTERED: Final = frozenset({400, 403, 422})


def classify_openai_error(error: BaseException) -> str | None:
    """Give the kind of an exception of the `openai` SDK, a key of `FAILURE_KINDS`; None for any other exception."""
    for cls in type(error).__mro__:
        if cls.__module__.partition(".")[0] == "openai" and cls.__name__ in _OPENAI_KINDS:
            status = getattr(error, "status_code", None)
            if isinstance(status, int) and _OPENAI_KINDS[cls.__name__] != "malformed":
                body = getattr(error, "body", None)
                return classify_status(status, body, _provider_message(error), _headers_of(error))
            return _classify_cause(error, _OPENAI_KINDS[cls.__name__])
    # The SDK lets a body that is cut off through as the JSON module's own error.
    return "malformed" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else None


def classify_status(status: int, body: Any, said: str, headers: Mapping[str, str]) -> str:
    """Give the kind of a failed response.

    Args:
        status: the HTTP status.
        body: the error object that the response holds; anything else where it holds none.
        said: the provider's message.
        headers: of the response.
    """
    kind = _STATUS_KINDS.get(status, "server" if status >= 500 else "bad_request")
    given = [body.get(key) for key in ("code", "type")] if isinstance(body, Mapping) else []
    for code in given:
        if isinstance(code, str) and code.lower() in _CODE_KINDS:
            return _CODE_KINDS[code.lower()]
    if status in _MAY_BE_TOO_LONG and _TOO_LONG.search(said):
        return "context_length"
    if status in _MAY_BE_FILTERED and _FILTERED.search(said):
        return "content_filter"
    # One host says it of a limit per minute as well, but then together with when to come back.
    if status == 429 and _NO_QUOTA.search(said) and _read_retry_after(headers, said) is None:
        return "quota"
    return kind


def _classify_cause(error: BaseException, kind: str) -> str:
    """Tell apart what the SDK's transport calls a time-out, or a broken connection, alike."""
    causes = set()
    cause: BaseException | None = error
    while cause is not None:
        causes |= {cls.__name__ for cls in type(cause).__mro__}
        cause = cause.__cause__
    if kind == "connection" and "ClientPayloadError" in causes:
        return "malformed"
    if kind == "timeout" and "ClientConnectionError" in causes and not {"TimeoutError"} & causes:
        return "connection"
    return kind


def build_call_error(
    kind: str,
    *,
    endpoint: str,
    model: str,
    said: str = "",
    status_code: int | None = None,
    secrets: Collection[str] = (),
    retry_after_s: float | None = None,
) -> ModelCallError:
    """Make the error of a failed call; `secrets` are struck from what the provider said."""
    failure = FAILURE_KINDS[kind]
    quote = said if failure.quotes_provider else ""
    for secret in sorted(secrets, key=len, reverse=True):
        quote = quote.replace(secret, "***")
    quote = quote if len(quote) <= _MAX_SAID else f"{quote[:_MAX_SAID]}…"
    status = f" (HTTP {status_code})" if status_code is not None else ""
    told = f"{failure.told}{status}{': ' + quote.rstrip('.') if quote else ''}"
    return ModelCallError(
        f"Model `{model}`: {endpoint} {told}. {failure.remedy}",
        endpoint=endpoint,
        model=model,
        kind=kind,
        status_code=status_code,
        retry_after_s=retry_after_s,
    )


def translate_openai_error(
    error: Exception, *, endpoint: str, model: str, secrets: Collection[str] = ()
) -> ModelCallError | None:
    """Make our error of one of the `openai` SDK; None for an exception that isn't of it."""
    kind = classify_openai_error(error)
    if kind is None:
        return None
    status: Any = getattr(error, "status_code", None)
    said = _provider_message(error)
    return build_call_error(
        kind,
        endpoint=endpoint,
        model=model,
        said=said if isinstance(status, int) or isinstance(error, ValueError) else _CUT_OFF,
        status_code=status if isinstance(status, int) and kind != "malformed" else None,
        secrets=secrets,
        retry_after_s=_read_retry_after(_headers_of(error), said) if isinstance(status, int) else None,
    )


def read_error_body(body: Any) -> str | None:
    """Give what an error object says; None where it says nothing that is known."""
    if isinstance(body, str):
        return body.strip() or None
    if isinstance(body, Mapping):
        for key in ("message", "detail", "error"):
            if isinstance(body.get(key), str):
                return str(body[key])
    return None


def _provider_message(error: BaseException) -> str:
    """What the provider said, without the SDK's wrapping."""
    said = read_error_body(getattr(error, "body", None))
    return said if said is not None else str(getattr(error, "message", error))


def _headers_of(error: BaseException) -> Mapping[str, str]:
    return getattr(getattr(error, "response", None), "headers", None) or {}


def _read_retry_after(headers: Mapping[str, str], said: str) -> float | None:
    return read_retry_after_s(headers, said, dt.datetime.now(dt.timezone.utc))
