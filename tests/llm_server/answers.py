"""What the model says: pure functions of the request, and of how often it came."""

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from tests.llm_server.settings import Settings

_DIMENSIONS = 8


def answer_chat(request: dict[str, Any], occurrence: int, settings: Settings, key: str) -> dict[str, Any]:
    """Make a chat completion."""
    texts = [_text_of(message.get("content")) for message in request["messages"]]
    schema = (request.get("response_format") or {}).get("json_schema", {}).get("schema")
    choices = []
    for index in range(request.get("n") or 1):
        if schema is not None and settings.honours_schema:
            text = json.dumps(
                fill_schema(schema, digest_request(request, occurrence if _samples(settings) else 0))
            )
        else:
            text = _say(request, texts[-1], occurrence, settings, key)
        message = {"role": "assistant", "content": text}
        choice = {"index": index, "message": message, "finish_reason": "stop", "logprobs": None}
        if request.get("logprobs"):
            tokens = [
                {"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []} for word in text.split()
            ]
            choice["logprobs"] = {"content": tokens, "refusal": None}
        choices.append(choice)
    spoken = [choice["message"]["content"] for choice in choices]
    return _envelope("chat.completion", request, choices, texts, spoken)


def answer_completion(
    request: dict[str, Any], occurrence: int, settings: Settings, key: str
) -> dict[str, Any]:
    """Make a completion of a plain text."""
    prompt = (
        request["prompt"] if isinstance(request["prompt"], str) else " ".join(map(str, request["prompt"]))
    )
    text = _say(request, prompt, occurrence, settings, key)
    choices = [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}]
    return _envelope("text_completion", request, choices, [prompt], [text])


def answer_embeddings(
    request: dict[str, Any], occurrence: int, settings: Settings, key: str
) -> dict[str, Any]:
    """Make an embedding of each text: a function of the text alone."""
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    data = []
    for index, text in enumerate(texts):
        vector: list[float] | str = embed(str(text), request.get("dimensions") or _DIMENSIONS)
        if request.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()  # type: ignore[arg-type]  # still numbers here
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(_count_tokens(str(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": request.get("model"), "data": data, "usage": usage}


Answer = Callable[[dict[str, Any], int, Settings, str], dict[str, Any]]
ANSWERS: Mapping[str, Answer] = {
    "/v1/chat/completions": answer_chat,
    "/v1/completions": answer_completion,
    "/v1/embeddings": answer_embeddings,
}


def embed(text: str, dimensions: int = _DIMENSIONS) -> list[float]:
    """Give the vector of a text; its numbers are whole in 32 bits, so that they survive every way of writing them."""
    return [hashlib.sha256(f"{index} {text}".encode()).digest()[0] / 256 for index in range(dimensions)]


def fill_schema(schema: dict[str, Any], seed: str) -> Any:
    """Make a value that fits a JSON schema; another seed makes another one where the schema leaves a choice."""
    return _fill(schema, schema, seed)


def _fill(schema: dict[str, Any], root: dict[str, Any], seed: str) -> Any:
    number = int(hashlib.sha256(seed.encode()).hexdigest()[:6], 16)
    if "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return _fill(found, root, seed)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return _fill(schema[several][0], root, seed)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {
            name: _fill(each, root, f"{seed}.{name}") for name, each in schema.get("properties", {}).items()
        }
    if kind == "array":
        count = max(schema.get("minItems", 2), 1)
        return [_fill(schema.get("items", {"type": "string"}), root, f"{seed}[{i}]") for i in range(count)]
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        return low + number % (int(schema.get("maximum", low + 9) - low) + 1)
    return {"string": f"text {number:06x}", "boolean": number % 2 == 0, "null": None}[kind]


def _samples(settings: Settings) -> bool:
    return settings.answer == "sample"


def _say(request: dict[str, Any], last: str, occurrence: int, settings: Settings, key: str) -> str:
    if settings.answer == "upper":
        said = last.upper()
    else:
        said = f"answer {digest_request(request)}"
        if _samples(settings):
            said += f" sample {occurrence}"
    return f"{said} for {key}" if settings.echoes_key else said


def digest_request(request: dict[str, Any], occurrence: int = 0) -> str:
    """Give a short digest of a request; an answer's id is `call-` and the one of its request."""
    text = json.dumps(request, sort_keys=True)
    return hashlib.sha256(f"{occurrence} {text}".encode()).hexdigest()[:16]


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", part.get("type"))) for part in content)
    return str(content or "")


def _count_tokens(text: str) -> int:
    return len(text.split())


def _envelope(
    kind: str, request: dict[str, Any], choices: list[dict[str, Any]], asked: list[str], said: list[str]
) -> dict[str, Any]:
    prompt, completion = sum(map(_count_tokens, asked)), sum(map(_count_tokens, said))
    return {
        "id": f"call-{digest_request(request)}",
        "object": kind,
        "created": 0,
        "model": request.get("model"),
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }
