"""What can go wrong with a model, in our words: the one place where a provider's exceptions are translated."""

import json
from dataclasses import dataclass
from typing import Any, Final

from distilabel_dagster.errors import ModelCallError

_MAX_SAID = 500


@dataclass(frozen=True, slots=True)
class FailureKind:
    """One kind of failed call: what happened, and what the user can do."""

    told: str
    remedy: str
    quotes_provider: bool = True


FAILURE_KINDS: Final[dict[str, FailureKind]] = {
    "timeout": FailureKind("gave no answer in time", "Raise `timeout`, or lower `max_concurrency`.", False),
    "connection": FailureKind("can't be reached", "Check `base_url`, and that the server is up.", False),
    # What it says may quote a part of the key.
    "authentication": FailureKind("refused the API key", "Set OPENAI_API_KEY, or pass `api_key=`.", False),
    "permission": FailureKind("doesn't allow this key to use the model", "Use another key or model.", False),
    "not_found": FailureKind("doesn't know the model or the path", "Check `model` and `base_url`."),
    "rate_limit": FailureKind(
        "takes no more calls now", "Lower `max_concurrency`, or check the account's quota."
    ),
    "bad_request": FailureKind("refused the request", "Check the messages' length and `generation_kwargs`."),
    "server": FailureKind("failed", "Run again: what was answered stays."),
    "malformed": FailureKind("answered with something that isn't a chat completion", "Check `base_url`."),
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
    "ContentFilterFinishReasonError": "bad_request",
    # Of parts of the SDK that chat completions don't use.
    "InvalidWebhookSignatureError": "other",
    "WebSocketConnectionClosedError": "other",
    "WebSocketQueueFullError": "other",
    "OpenAIError": "other",
}


def classify_openai_error(error: BaseException) -> str | None:
    """Give the kind of an exception of the `openai` SDK, a key of `FAILURE_KINDS`; None for any other exception."""
    for cls in type(error).__mro__:
        if cls.__module__.partition(".")[0] == "openai" and cls.__name__ in _OPENAI_KINDS:
            return _OPENAI_KINDS[cls.__name__]
    # The SDK lets a body that is cut off through as the JSON module's own error.
    return "malformed" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else None


def build_call_error(
    kind: str,
    *,
    endpoint: str,
    model: str,
    said: str = "",
    status_code: int | None = None,
    secret: str | None = None,
) -> ModelCallError:
    """Make the error of a failed call; `secret` is struck from what the provider said."""
    failure = FAILURE_KINDS[kind]
    quote = said if failure.quotes_provider else ""
    if secret:
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
    )


def translate_openai_error(
    error: Exception, *, endpoint: str, model: str, secret: str | None
) -> ModelCallError | None:
    """Make our error of one of the `openai` SDK; None for an exception that isn't of it."""
    kind = classify_openai_error(error)
    if kind is None:
        return None
    status: Any = getattr(error, "status_code", None)
    return build_call_error(
        kind,
        endpoint=endpoint,
        model=model,
        said=_provider_message(error),
        status_code=status if isinstance(status, int) and kind != "malformed" else None,
        secret=secret,
    )


def _provider_message(error: Exception) -> str:
    """What the provider said, without the SDK's wrapping."""
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return str(getattr(error, "message", error))
