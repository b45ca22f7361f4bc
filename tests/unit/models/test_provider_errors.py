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
    assert translate_openai_error(KeyError("x"), endpoint="e", model="m", secret=None) is None


def test_messages_name_endpoint_and_model_quote_the_provider_and_hide_the_key() -> None:
    response: Any = SimpleNamespace(status_code=400, headers={}, request=None)
    error = openai.BadRequestError("wrapped", response=response, body={"message": "sk-1 asked too much."})
    ours = translate_openai_error(error, endpoint="http://e/v1", model="m", secret="sk-1")
    assert ours is not None
    assert str(ours) == (
        "Model `m`: http://e/v1 refused the request (HTTP 400): *** asked too much. Check the messages' length and "
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
