"""Requests in OpenAI's words: what options are called on the wire, and a conversation as plain text."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from distilabel_dagster.errors import suggest
from distilabel_dagster.models.structured_output import build_response_format

Api = Literal["chat", "completion"]
"""Which of the two APIs is spoken: of conversations, or of texts that are continued."""

PATHS: Final[dict[str, str]] = {"chat": "/chat/completions", "completion": "/completions"}
_WIRE_NAMES: Final[dict[str, str]] = {"max_new_tokens": "max_tokens"}
_OF_BOTH: Final = frozenset(
    {
        "max_new_tokens",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "stop",
        "seed",
        "logprobs",
        "top_logprobs",
        "response_format",
        "extra_body",
    }
)
_OF_CHAT: Final = frozenset({"max_completion_tokens", "reasoning_effort", "tools", "tool_choice"})
OPTIONS: Final = _OF_BOTH | _OF_CHAT
"""All options, by the names that `OpenAILLM.agenerate` has."""
_SET_BY_US: Final = frozenset({"messages", "model", "n", "prompt", "stream"})


def check_options(options: Iterable[str], api: Api, extra_body: Any = None) -> None:
    """Refuse options that a request can't have.

    Args:
        options: their names, as `OpenAILLM.agenerate` has them.
        api: which API the request is for.
        extra_body: further fields of the request.

    Raises:
        ValueError: the API knows no such option, or a further field is one that is set already.
    """
    known = _OF_BOTH | (_OF_CHAT if api == "chat" else frozenset())
    for name in options:
        if name in _OF_CHAT and name not in known:
            raise ValueError(f'`{name}` is of the chat API. Leave it out, or set `api="chat"`')
        if name not in known:
            raise ValueError(f"there is no option `{name}`.{suggest(name, known)}")
    if extra_body is None:
        return
    if not isinstance(extra_body, Mapping):
        raise ValueError(f"`extra_body` is a dict of further fields, found a {type(extra_body).__name__}")  # noqa: TRY004 (a validator's error, which pydantic takes as a ValueError)
    taken = sorted(_SET_BY_US.intersection(extra_body))
    if taken:
        raise ValueError(
            f"`extra_body` may not set {', '.join(f'`{name}`' for name in taken)}: "
            "each generation is a whole answer of a call of its own"
        )


def build_parameters(
    options: Mapping[str, Any], api: Api, structured_output: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Make the fields of a request, but for the model and the conversation; options that are None are left out.

    Args:
        options: by the names that `OpenAILLM.agenerate` has.
        api: which API the request is for.
        structured_output: the structure of the answer, which stands in for a `response_format` among the options.

    Raises:
        ValueError: an option is unknown, or the structure isn't one.
    """
    given = {name: value for name, value in options.items() if value is not None}
    extra = given.get("extra_body")
    check_options(given, api, extra)
    parameters = {_WIRE_NAMES.get(name, name): value for name, value in given.items() if name != "extra_body"}
    if structured_output is not None:
        parameters["response_format"] = build_response_format(structured_output)
    if api == "completion":
        _count_logprobs(parameters)
    return {**parameters, **(extra or {})}


def _count_logprobs(parameters: dict[str, Any]) -> None:
    """Of texts, `logprobs` is the number of alternatives."""
    count = parameters.pop("top_logprobs", None)
    if parameters.pop("logprobs", False):
        parameters["logprobs"] = count or 1


def render_prompt(messages: Iterable[Mapping[str, Any]]) -> str:
    """Give a conversation as plain text: what is said in it, in order, with an empty line between two messages.

    Nothing is added, roles neither: what a model that continues texts should see of them, the prompt says itself.

    Raises:
        ValueError: a message holds something else than text.
    """
    return "\n\n".join(_text_of(message.get("content")) for message in messages)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError('texts are all that `api="completion"` can send, and a message holds something else')
    return "".join(map(str, texts))
