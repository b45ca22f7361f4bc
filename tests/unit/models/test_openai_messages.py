"""Requests and responses in OpenAI's words."""

import json
from typing import Any

import pytest

from distilabel_dagster.models.openai_requests import build_parameters, render_prompt
from distilabel_dagster.models.openai_responses import find_choice, read_completion


def respond(message: Any = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}]}


def test_parameters_have_the_names_of_the_wire() -> None:
    given = {"max_new_tokens": 3, "temperature": None, "extra_body": {"top_k": 1}, "stop": "x"}
    assert build_parameters(given, "chat", None) == {"max_tokens": 3, "stop": "x", "top_k": 1}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"logprobs": True}, {"logprobs": 1}),
        ({"logprobs": True, "top_logprobs": 4}, {"logprobs": 4}),
        ({"logprobs": False, "top_logprobs": 4}, {}),
    ],
)
def test_for_texts_logprobs_is_a_number(given: dict[str, Any], sent: dict[str, Any]) -> None:
    assert build_parameters(given, "completion", None) == sent


def test_unknown_options_are_refused_also_in_a_call() -> None:
    with pytest.raises(ValueError, match=r"no option `temprature`. Did you mean `temperature`\?"):
        build_parameters({"temprature": 1}, "chat", None)


def test_a_structure_comes_before_a_response_format() -> None:
    given = {"response_format": {"type": "json_object"}}
    sent = build_parameters(given, "chat", {"schema": {"type": "array"}})
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "array"}


def test_a_conversation_as_text() -> None:
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    assert (
        render_prompt([{"role": "system", "content": "a"}, {"role": "user", "content": parts}]) == "a\n\nbc"
    )
    with pytest.raises(ValueError, match="texts are all"):
        render_prompt([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])
    with pytest.raises(ValueError, match="texts are all"):
        render_prompt([{"role": "assistant", "content": None}])


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"choices": None},
        {"choices": []},
        {"choices": ["x"]},
        {"choices": [{}]},
        {"choices": [{"message": "x"}]},
        {"choices": [{"text": None}]},
    ],
)
def test_what_is_no_answer_is_seen(response: dict[str, Any]) -> None:
    assert find_choice(response) is None


def test_an_answer_in_parts_is_its_text() -> None:
    parts = [
        {"type": "thinking", "thinking": "mm"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert read_completion(respond({"content": parts}), "m")["generations"] == ["ab"]
    assert read_completion(respond({"content": parts[:1]}), "m")["generations"] == [None]


def test_tool_calls_without_text_are_the_answer() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "größe", "arguments": '{"a": 1}'}}]
    output = read_completion(respond({"content": None, "tool_calls": calls}, finish_reason="tool_calls"), "m")
    (text,) = output["generations"]
    assert json.loads(text or "") == calls
    assert "größe" in str(text)
    assert output["finish_reasons"] == ["tool_calls"]
    assert "errors" not in output
    assert read_completion(respond({"content": "hi", "tool_calls": calls}), "m")["generations"] == ["hi"]
    assert read_completion(respond({"content": None, "tool_calls": []}), "m")["generations"] == [None]


@pytest.mark.parametrize(
    ("usage", "statistics"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, {"input_tokens": [1], "output_tokens": [2]}),
        ({"prompt_tokens": 1}, {"input_tokens": [1]}),
        ({"prompt_tokens": "1", "completion_tokens": None}, {}),
        (None, {}),
        ("x", {}),
    ],
)
def test_tokens_are_what_was_counted_and_never_made_up(usage: Any, statistics: dict[str, Any]) -> None:
    assert read_completion({**respond({"content": "a"}), "usage": usage}, "m")["statistics"] == statistics


def test_logprobs_begin_with_the_token_itself() -> None:
    content = [
        {
            "token": "b",
            "logprob": -2,
            "top_logprobs": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -2}],
        },
        {"token": "c", "logprob": None, "top_logprobs": []},
    ]
    output: Any = read_completion(respond({"content": "bc"}, logprobs={"content": content}), "m")
    assert output["logprobs"] == [
        [
            [{"token": "b", "logprob": -2.0}, {"token": "a", "logprob": -0.1}],
            [{"token": "c", "logprob": None}],
        ]
    ]
    assert "logprobs" not in read_completion(respond({"content": "x"}, logprobs=None), "m")


def test_half_a_character_is_replaced() -> None:
    message = json.loads('{"content": "ok \\ud83d\\ude00 half \\ud83d"}')
    (text,) = read_completion(respond(message), "m")["generations"]
    assert text == "ok 😀 half \ufffd"
