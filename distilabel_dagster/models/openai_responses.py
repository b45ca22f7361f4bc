"""Responses in OpenAI's words, of chat and text completions, as generations: from the wire or from the ledger.

An endpoint may answer with anything, so nothing is taken for granted that isn't looked at.
"""

import json
from collections.abc import Mapping
from typing import Any, TypedDict

from distilabel_dagster.models.llm import GenerateOutput
from distilabel_dagster.models.model import is_count


class Logprob(TypedDict):
    """How likely a token was, as the natural logarithm."""

    token: str
    logprob: float | None


def find_choice(response: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the first choice of a response; None where it holds none that can be read."""
    choices = response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return None
    has_answer = isinstance(choice.get("message"), dict) or isinstance(choice.get("text"), str)
    return choice if has_answer else None


def read_completion(response: Mapping[str, Any], model: str) -> GenerateOutput:
    """Make an output of a response: its first choice's text, tokens, reason of its end, and log probabilities.

    An answer of tool calls without text gives the calls as JSON text: the list under `tool_calls` of the message.

    Args:
        response: with a choice, see `find_choice`.
        model: how messages call the model.
    """
    choice = find_choice(response) or {}
    message = choice.get("message") or {}
    text = _text_of(message.get("content") if message else choice.get("text"))
    calls = message.get("tool_calls")
    if text is None and isinstance(calls, list) and calls:
        text = json.dumps(calls, ensure_ascii=False)
    reason = choice.get("finish_reason")
    output: dict[str, Any] = {
        "generations": [None if text is None else _without_surrogates(text)],
        "statistics": _read_usage(response.get("usage")),
        "finish_reasons": [None if reason is None else str(reason)],
    }
    if text is None:
        refusal = message.get("refusal")
        output["errors"] = [
            f"Model `{model}` refused: {refusal}"
            if refusal
            else f"Model `{model}` gave no text (finish_reason: {reason})."
        ]
    logprobs = _read_logprobs(choice.get("logprobs"))
    if logprobs is not None:
        output["logprobs"] = [logprobs]
    return output  # type: ignore[return-value]  # with a further key, as the contract allows


def _text_of(content: Any) -> str | None:
    """Give an answer's text; of an answer in parts, as some models that think aloud give it, the parts of text."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    told = [text for text in texts if isinstance(text, str)]
    return "".join(told) if told else None


def _without_surrogates(text: str) -> str:
    """Replace halves of characters, which a model cut short may leave in JSON, and no file can hold."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_usage(usage: Any) -> dict[str, list[int]]:
    if not isinstance(usage, Mapping):
        return {}
    names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    counts = {name: usage.get(theirs) for name, theirs in names.items()}
    return {name: [count] for name, count in counts.items() if is_count(count)}


def _read_logprobs(logprobs: Any) -> list[list[Logprob]] | None:
    """Give for each token the token itself, then the other likely ones; None where nothing of it was sent."""
    if not isinstance(logprobs, Mapping):
        return None
    if isinstance(logprobs.get("content"), list):
        return [_read_token(token) for token in logprobs["content"] if isinstance(token, Mapping)]
    if isinstance(logprobs.get("tokens"), list):
        return _read_text_logprobs(logprobs)
    return None


def _read_token(token: Mapping[str, Any]) -> list[Logprob]:
    chosen = _as_logprob(token.get("token"), token.get("logprob"))
    others = [
        _as_logprob(each.get("token"), each.get("logprob"))
        for each in token.get("top_logprobs") or []
        if isinstance(each, Mapping)
    ]
    return [chosen, *(each for each in others if each["token"] != chosen["token"])]


def _read_text_logprobs(logprobs: Mapping[str, Any]) -> list[list[Logprob]]:
    tokens = logprobs["tokens"]
    chosen = logprobs.get("token_logprobs") or [None] * len(tokens)
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    return [
        [
            _as_logprob(token, logprob),
            *(_as_logprob(name, value) for name, value in (top or {}).items() if name != token),
        ]
        for token, logprob, top in zip(tokens, chosen, tops, strict=False)
    ]


def _as_logprob(token: Any, logprob: Any) -> Logprob:
    return {
        "token": _without_surrogates(str(token)),
        "logprob": float(logprob) if isinstance(logprob, int | float) else None,
    }
