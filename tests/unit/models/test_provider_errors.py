"""Every exception of the provider's library has a meaning of ours."""

import importlib
import json
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from distilabel_dagster.models.provider_errors import (
    _OPENAI_KINDS,
    FAILURE_KINDS,
    build_call_error,
    classify_openai_error,
    classify_status,
    translate_openai_error,
)

EXCEPTIONS = sorted(
    {
        value.__name__: value
        for module in (openai, importlib.import_module("openai._exceptions"))
        for value in list(vars(module).values())
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__.startswith("openai")
    }.items()
)


@pytest.mark.parametrize("name", [name for name, _ in EXCEPTIONS if not name.startswith("_")])
def test_each_exception_is_mapped_by_name(name: str) -> None:
    assert _OPENAI_KINDS[name] in FAILURE_KINDS


def test_others_are_not() -> None:
    assert classify_openai_error(KeyError("x")) is None
    assert classify_openai_error(json.JSONDecodeError("cut off", "{", 1)) == "malformed"
    assert translate_openai_error(KeyError("x"), endpoint="e", model="m", secrets=()) is None


def test_messages_name_endpoint_and_model_quote_the_provider_and_hide_the_key() -> None:
    response: Any = SimpleNamespace(status_code=400, headers={}, request=None)
    error = openai.BadRequestError("wrapped", response=response, body={"message": "sk-1 asked too much."})
    ours = translate_openai_error(error, endpoint="http://e/v1", model="m", secrets=["sk-1"])
    assert ours is not None
    assert str(ours) == (
        "Model `m`: http://e/v1 refused the request (HTTP 400): *** asked too much. Check the messages and "
        "`generation_kwargs`."
    )
    assert (ours.kind, ours.status_code, ours.model, ours.endpoint) == (
        "bad_request",
        400,
        "m",
        "http://e/v1",
    )


def test_what_a_provider_says_of_a_key_is_never_quoted() -> None:
    error = build_call_error(
        "authentication", endpoint="e", model="m", said="wrong key: sk-1…9", status_code=401
    )
    assert "sk-1" not in str(error)
    assert "Set OPENAI_API_KEY" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "bad_request"),
        (401, "authentication"),
        (402, "quota"),
        (403, "permission"),
        (404, "not_found"),
        (405, "not_found"),
        (408, "timeout"),
        (409, "server"),
        (410, "not_found"),
        (418, "bad_request"),
        (425, "server"),
        (429, "rate_limit"),
        (500, "server"),
        (529, "server"),
    ],
)
def test_each_status_has_its_kind(status: int, kind: str) -> None:
    assert classify_status(status, None, "", {}) == kind
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    error = openai.APIStatusError("x", response=response, body=None)
    assert classify_openai_error(error) == kind


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens"),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        (400, "The input (123 tokens) is longer than the model's context length (100 tokens)."),
        (400, "This endpoint's maximum context length is 8192 tokens."),
        (400, "request (1234 tokens) exceeds the available context size (512 tokens), try increasing it"),
        (500, "the request exceeds the available context size. try increasing the context size"),
        (400, "Requested tokens (600) exceed context window of 512"),
        (400, "input length exceeds the context length"),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000"),
        (422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"),
        (400, "prompt is too long: 200001 tokens > 200000 maximum"),
        (400, "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
        (400, "Please reduce the length of the messages or completion."),
        (400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"),
    ],
)
def test_a_request_that_is_too_long_is_known_by_what_servers_say(status: int, said: str) -> None:
    assert classify_status(status, {"message": said}, said, {}) == "context_length"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": "context_length_exceeded"}, "context_length"),
        (400, {"type": "exceed_context_size_error", "code": 400}, "context_length"),
        (400, {"message": "max_tokens must be positive"}, "bad_request"),
        (400, {"message": "Unknown parameter: context"}, "bad_request"),
        (400, {"code": "content_filter"}, "content_filter"),
        (403, {"message": "Your input was flagged"}, "content_filter"),
        (403, {"message": "Country not supported"}, "permission"),
        (429, {"code": "insufficient_quota"}, "quota"),
        (429, {"message": "You exceeded your current quota, please check your plan"}, "quota"),
        (429, {"message": "You exceeded your current quota. Please retry in 34.07s."}, "rate_limit"),
        (429, {"message": "Too many requests"}, "rate_limit"),
        (500, {"message": "context canceled"}, "server"),
    ],
)
def test_what_a_status_means_depends_on_the_error(status: int, body: dict[str, Any], kind: str) -> None:
    assert classify_status(status, body, body.get("message", ""), {}) == kind


def test_a_quota_that_comes_back_is_a_limit() -> None:
    said = "exceeded your current quota"
    assert classify_status(429, None, said, {"retry-after": "20"}) == "rate_limit"


def test_what_passes_is_tried_again_and_what_doesnt_ends_the_run_or_the_row() -> None:
    retried = {name for name, kind in FAILURE_KINDS.items() if kind.is_retried}
    ending = {name for name, kind in FAILURE_KINDS.items() if kind.ends_run}
    assert retried == {"timeout", "connection", "rate_limit", "server", "malformed"}
    assert ending == {"authentication", "permission", "not_found", "quota"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "m"}, "m"),
        ({"error": "e", "error_type": "validation"}, "e"),
        ({"detail": "Not Found"}, "Not Found"),
        (" text ", "text"),
        ({"detail": [{"loc": []}]}, "wrapped"),
        (None, "wrapped"),
    ],
)
def test_the_provider_is_quoted_in_whatever_form_it_speaks(body: Any, said: str) -> None:
    response: Any = SimpleNamespace(status_code=422, headers={"retry-after": "3"}, request=None)
    error = openai.UnprocessableEntityError("wrapped", response=response, body=body)
    ours = translate_openai_error(error, endpoint="e", model="m", secrets=())
    assert ours is not None
    assert f"(HTTP 422): {said}." in str(ours)
    assert ours.retry_after_s == 3


def caused(error: Exception, *names: str) -> Exception:
    """Give the error with causes of classes with these names."""
    last: BaseException = error
    for name in names:
        last.__cause__ = type(name, (Exception,), {})()
        last = last.__cause__
    return error


def test_broken_connections_are_told_from_slow_answers() -> None:
    request: Any = None
    timeout = openai.APITimeoutError(request)
    broken = openai.APIConnectionError(request=request)
    assert classify_openai_error(caused(timeout, "ConnectTimeout", "ClientConnectionError")) == "connection"
    assert (
        classify_openai_error(caused(openai.APITimeoutError(request), "ReadTimeout", "TimeoutError"))
        == "timeout"
    )
    assert classify_openai_error(caused(broken, "ReadError", "ClientPayloadError")) == "malformed"
    assert classify_openai_error(openai.APIConnectionError(request=request)) == "connection"
