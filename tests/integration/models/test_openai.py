"""OpenAILLM against a real HTTP server on loopback that counts its calls."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from distilabel_dagster.errors import ModelCallError, ModelUnavailableError
from distilabel_dagster.models import ChatType, GenerateOutput, OpenAILLM
from distilabel_dagster.models.provider_errors import FAILURE_KINDS
from distilabel_dagster.steps.tasks import TextGeneration
from tests.integration.models.endpoint import JSON, Endpoint, Reply, answer_of, completion, failure

KEY = "sk-loopback-secret"


def make_llm(endpoint: Endpoint, **fields: Any) -> OpenAILLM:
    return OpenAILLM(model="tiny", base_url=endpoint.url, api_key=SecretStr(KEY), **fields)


def chats(*texts: str) -> list[ChatType]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_answers_come_in_the_order_of_the_inputs_with_their_tokens(endpoint: Endpoint) -> None:
    def reply(request: dict[str, Any], number: int) -> Reply:
        text = request["messages"][-1]["content"]
        time.sleep(0.05 if text == "a" else 0)
        return completion(text.upper())

    endpoint.reply = reply
    llm = make_llm(endpoint, generation_kwargs={"temperature": 0.5, "max_new_tokens": 9})
    llm.load()
    outputs = llm.generate_outputs(chats("a", "b", "c"), **llm.get_generation_kwargs())
    llm.unload()
    assert [output["generations"] for output in outputs] == [["A"], ["B"], ["C"]]
    assert outputs[0]["statistics"] == {"input_tokens": [7], "output_tokens": [3]}
    assert len(endpoint.requests) == 3
    assert endpoint.keys == {f"Bearer {KEY}"}
    assert set(endpoint.paths) == {"/v1/chat/completions"}
    sent = next(request for request in endpoint.requests if request["messages"] == chats("a")[0])
    assert sent == {"model": "tiny", "messages": chats("a")[0], "temperature": 0.5, "max_tokens": 9}


def test_each_generation_is_a_call_of_its_own(endpoint: Endpoint) -> None:
    outputs = make_llm(endpoint).generate_outputs(chats("a", "b"), num_generations=3)
    assert [output["generations"] for output in outputs] == [["A"] * 3, ["B"] * 3]
    assert outputs[0]["statistics"] == {"input_tokens": [7] * 3, "output_tokens": [3] * 3}
    assert len(endpoint.requests) == 6


def test_no_more_calls_are_in_flight_than_allowed(endpoint: Endpoint) -> None:
    def reply(request: dict[str, Any], number: int) -> Reply:
        time.sleep(0.02)
        return completion("x")

    endpoint.reply = reply
    make_llm(endpoint, max_concurrency=3).generate_outputs(chats(*map(str, range(12))))
    assert endpoint.most_at_once == 3
    assert len(endpoint.requests) == 12


def test_the_model_can_be_used_again_and_again(endpoint: Endpoint) -> None:
    llm = make_llm(endpoint)
    assert [llm.generate_outputs(chats("a"))[0]["generations"] for _ in range(3)] == [["A"]] * 3
    assert llm._senders == {}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = lambda request, number: failure(status) if number < 3 else completion("at last")
    outputs = make_llm(endpoint, max_retries=2).generate_outputs(chats("a"))
    assert outputs[0]["generations"] == ["at last"]
    assert len(endpoint.requests) == 3


MALFORMED = "answered with something that can't be read"


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilabel_dagster.models.retries._FIRST_PAUSE_S", 0.001)


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize(
    ("reply", "calls", "told"),
    [
        (
            failure(400, f"bad temperature for {KEY}"),
            1,
            "refused the request (HTTP 400): bad temperature for ***.",
        ),
        (
            failure(400, "too long", "context_length_exceeded"),
            1,
            "finds the request too long (HTTP 400): too long.",
        ),
        (failure(400, "policy", "content_filter"), 1, "refused the request by its content filter (HTTP 400)"),
        (
            failure(429, "slow down"),
            3,
            "takes no more calls now (HTTP 429): slow down. Lower `max_concurrency`",
        ),
        (failure(500, "ouch"), 3, "failed (HTTP 500): ouch. Its own log"),
        ((200, {"content-type": "text/html"}, "<html>"), 3, f"{MALFORMED}: <html>. Check `base_url`."),
        ((200, JSON, '{"choices": [{'), 3, f"{MALFORMED}: Expecting property name"),
        ((200, {**JSON, "content-length": "99"}, iter([b'{"choices": ['])), 3, "it broke off in the middle"),
        ((200, JSON, '{"choices": []}'), 3, f"{MALFORMED}: no choice with an answer is in it"),
        ((200, JSON, "[1]"), 3, f"{MALFORMED}: JSON that is a list, not an object"),
        ((200, JSON, b"\xff\xfe{"), 3, MALFORMED),
        (answer_of({"error": {"message": "down", "code": 502}}), 3, "failed: down. Its own log"),
        (completion(None, error={"message": "torn", "code": 400}), 1, "refused the request: torn."),
        (completion(None, finish_reason="length"), 1, "gave no text (finish_reason: length)"),
        (
            completion(None, message={"role": "assistant", "content": None, "refusal": "No."}),
            1,
            "refused: No.",
        ),
    ],
    ids=[
        "400",
        "too long",
        "filtered",
        "429",
        "500",
        "html",
        "cut off JSON",
        "cut off body",
        "empty",
        "list",
        "bytes",
        "error with success",
        "error in choice",
        "length",
        "refusal",
    ],
)
def test_a_failed_call_is_the_failure_of_its_row_only(
    endpoint: Endpoint, reply: Reply, calls: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.reply = lambda request, _: (
        reply if request["messages"][-1]["content"] == "bad" else completion("good")
    )
    task = TextGeneration(name="ask", llm=make_llm(endpoint, max_retries=2), add_raw_input=False)
    rows = task.run_process([{"instruction": text} for text in ("one", "bad", "two")])
    assert [row["generation"] for row in rows] == ["good", None, "good"]
    error = task.row_error(rows[1]) or ""
    assert told in error
    assert [task.row_error(rows[0]), task.row_error(rows[2])] == [None, None]
    # "Too many calls" weighs less while others are answered.
    assert len([r for r in endpoint.requests if r["messages"][-1]["content"] == "bad"]) >= calls
    assert (calls == 1) == (len(endpoint.requests) == 3)
    assert KEY not in str(rows) + caplog.text


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        (
            failure(401, f"Incorrect API key provided: {KEY}"),
            "authentication",
            "refused the API key (HTTP 401). Set OPENAI_API_KEY",
        ),
        (failure(402, "pay"), "quota", "takes no more calls of this account (HTTP 402): pay."),
        (failure(403, "not yours"), "permission", "doesn't allow this key to use the model (HTTP 403)."),
        (
            failure(404, "no model `tiny`"),
            "not_found",
            "doesn't know the model or the path (HTTP 404): no model `tiny`.",
        ),
        (failure(429, "gone", "insufficient_quota"), "quota", "of this account (HTTP 429): gone."),
    ],
    ids=["401", "402", "403", "404", "quota"],
)
def test_a_failure_of_every_call_is_found_at_the_first(
    endpoint: Endpoint, reply: Reply, kind: str, told: str
) -> None:
    endpoint.reply = lambda request, _: reply
    error = call_fails(make_llm(endpoint))
    assert (error.kind, told in str(error), len(endpoint.requests)) == (kind, True, 1)
    assert FAILURE_KINDS[kind].ends_run
    assert KEY not in str(error)
    with pytest.raises(ModelUnavailableError, match="HTTP"):
        asyncio.run(call_through_retries(make_llm(endpoint)))


async def call_through_retries(llm: OpenAILLM) -> Any:
    from distilabel_dagster.models.limits import EndpointLimiter
    from distilabel_dagster.models.retries import call_with_retries

    try:
        return await call_with_retries(
            lambda: llm.acall(chats("a")[0]), EndpointLimiter(1), max_retries=llm.max_retries or 0
        )
    finally:
        await llm.aclose()


def call(llm: OpenAILLM, messages: Any = None, **options: Any) -> dict[str, Any]:
    """Make one attempt, and give the raw response."""

    async def once() -> dict[str, Any]:
        try:
            return await llm.acall(messages or chats("a")[0], 1, **options)
        finally:
            await llm.aclose()

    return asyncio.run(once())


def call_fails(llm: OpenAILLM, **options: Any) -> ModelCallError:
    with pytest.raises(ModelCallError) as raised:
        call(llm, **options)
    # What a traceback would show besides.
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    return raised.value


def test_an_attempt_is_one_request(endpoint: Endpoint) -> None:
    endpoint.reply = lambda request, _: failure(503, "busy", **{"retry-after-ms": "1500"})
    error = call_fails(make_llm(endpoint, max_retries=5))
    assert (error.kind, error.status_code, error.retry_after_s) == ("server", 503, 1.5)
    assert len(endpoint.requests) == 1


def test_the_raw_response_is_kept_whole_and_without_the_key(endpoint: Endpoint) -> None:
    message = {"role": "assistant", "content": f"hi {KEY}", "reasoning_content": "mm", "x": [f"{KEY}!"]}
    endpoint.reply = lambda request, _: answer_of(
        {"choices": [{"message": message, "finish_reason": "stop"}], "provider": "p", KEY: {"cost": 0.1}}
    )
    raw = call(make_llm(endpoint))
    assert raw == {
        "choices": [
            {
                "message": {**message, "content": "hi ***", "x": ["***!"]},
                "finish_reason": "stop",
            }
        ],
        "provider": "p",
        "***": {"cost": 0.1},
    }
    assert make_llm(endpoint).read_response(raw) == {
        "generations": ["hi ***"],
        "statistics": {},
        "finish_reasons": ["stop"],
    }


@pytest.mark.parametrize("key", ["EMPTY", "ollama", "lm-studio"])
def test_a_placeholder_for_a_key_may_be_said(endpoint: Endpoint, key: str) -> None:
    endpoint.reply = lambda request, _: completion(f"The word is {key}.")
    raw = call(OpenAILLM(model="tiny", base_url=endpoint.url, api_key=SecretStr(key)))
    assert raw["choices"][0]["message"]["content"] == f"The word is {key}."


def test_headers_and_secrets_of_a_request_come_back_to_nobody(endpoint: Endpoint) -> None:
    secrets = ["Bearer gateway-token-1", "gateway-token-1", "plain-proxy-key", "hf_nested_token"]
    endpoint.reply = lambda request, number: (
        completion(" ".join(secrets)) if number == 1 else failure(400, " ".join(secrets))
    )
    llm = make_llm(
        endpoint,
        default_headers={
            "Authorization": "Bearer gateway-token-1",
            "X-Proxy-Key": "plain-proxy-key",
            "X-Title": "hf",
        },
    )
    options = {"extra_body": {"upstream": {"hf_token": "hf_nested_token"}}}
    raw = call(llm, **options)
    error = call_fails(llm, **options)
    assert endpoint.requests[0]["upstream"] == {"hf_token": "hf_nested_token"}
    assert endpoint.headers[0]["authorization"] == "Bearer gateway-token-1"
    assert endpoint.headers[0]["x-title"] == "hf"
    assert raw["choices"][0]["message"]["content"] == "*** *** *** ***"
    assert not any(secret in str(error) for secret in secrets)
    written = str(llm.dump()) + str(llm.describe_provider(options)) + repr(llm)
    assert not any(secret in written for secret in secrets)


def test_json_under_another_content_type_is_read(endpoint: Endpoint) -> None:
    _, _, body = completion("hi")
    endpoint.reply = lambda request, _: (200, {"content-type": "text/plain"}, body)
    assert call(make_llm(endpoint))["choices"][0]["message"]["content"] == "hi"


def test_options_go_by_their_names(endpoint: Endpoint) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    call(
        make_llm(endpoint),
        max_new_tokens=5,
        stop=["\n"],
        logprobs=True,
        top_logprobs=2,
        tools=tools,
        tool_choice="auto",
        seed=None,
        extra_body={"top_k": 3},
    )
    assert endpoint.requests == [
        {
            "model": "tiny",
            "messages": chats("a")[0],
            "max_tokens": 5,
            "stop": ["\n"],
            "logprobs": True,
            "top_logprobs": 2,
            "tools": tools,
            "tool_choice": "auto",
            "top_k": 3,
        }
    ]


def test_images_are_passed_on(endpoint: Endpoint) -> None:
    endpoint.reply = lambda request, _: completion("a cat")
    messages: ChatType = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ],
        }
    ]
    assert make_llm(endpoint).generate_outputs([messages])[0]["generations"] == ["a cat"]
    assert endpoint.requests[0]["messages"] == messages


def test_texts_are_completed(endpoint: Endpoint) -> None:
    endpoint.reply = lambda request, _: answer_of(
        {
            "choices": [
                {
                    "text": " upon a time",
                    "finish_reason": "length",
                    "logprobs": {
                        "tokens": [" upon"],
                        "token_logprobs": [-0.5],
                        "top_logprobs": [{" upon": -0.5, " more": -1}],
                    },
                }
            ],
            "usage": {"prompt_tokens": 2, "completion_tokens": 3},
        }
    )
    messages: ChatType = [{"role": "system", "content": "A tale."}, {"role": "user", "content": "Once"}]
    llm = make_llm(endpoint, api="completion", generation_kwargs={"logprobs": True, "max_new_tokens": 3})
    outputs = llm.generate_outputs([messages], **llm.get_generation_kwargs())
    assert endpoint.paths == ["/v1/completions"]
    assert endpoint.requests == [
        {"model": "tiny", "prompt": "A tale.\n\nOnce", "max_tokens": 3, "logprobs": 1}
    ]
    assert outputs == [
        {
            "generations": [" upon a time"],
            "statistics": {"input_tokens": [2], "output_tokens": [3]},
            "finish_reasons": ["length"],
            "logprobs": [[[{"token": " upon", "logprob": -0.5}, {"token": " more", "logprob": -1.0}]]],
        }
    ]


class City(BaseModel):
    """A city."""

    name: str
    founded: int | None = None


def test_a_schema_goes_along(endpoint: Endpoint) -> None:
    whole = make_llm(endpoint, structured_output={"schema": City})
    whole.generate_outputs(chats("a"))
    make_llm(endpoint).generate_outputs([(chats("b")[0], {"schema": City.model_json_schema()})])
    # The one of a question comes before the model's own.
    whole.generate_outputs([(chats("c")[0], {"schema": {"type": "array"}, "name": "several"})])
    sent = [request["response_format"] for request in endpoint.requests]
    assert (
        sent[0]
        == sent[1]
        == {
            "type": "json_schema",
            "json_schema": {
                "name": "City",
                "strict": True,
                "schema": {
                    "type": "object",
                    "description": "A city.",
                    "properties": {
                        "name": {"type": "string"},
                        "founded": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    },
                    "required": ["name", "founded"],
                    "additionalProperties": False,
                },
            },
        }
    )
    assert sent[2]["json_schema"] == {"name": "several", "strict": False, "schema": {"type": "array"}}


def drip(pause_s: float) -> Iterator[bytes]:
    for _ in range(int(20 / pause_s)):
        time.sleep(pause_s)
        yield b" "


def hang(until: threading.Event) -> Iterator[bytes]:
    until.wait(20)
    yield b"{}"


@pytest.mark.parametrize("way", ["says nothing", "says nothing after its headers", "drips"])
def test_an_attempt_ends_at_its_time(endpoint: Endpoint, way: str) -> None:
    over = threading.Event()

    def reply(request: dict[str, Any], number: int) -> Reply:
        if way == "says nothing":
            over.wait(20)
        return 200, {**JSON, "content-length": "1000"}, drip(0.02) if way == "drips" else hang(over)

    endpoint.reply = reply
    begun_at = time.monotonic()
    error = call_fails(make_llm(endpoint, timeout_s=0.3))
    over.set()
    assert error.kind == "timeout"
    assert time.monotonic() - begun_at < 5


def test_a_broken_connection_is_no_timeout(endpoint: Endpoint) -> None:
    endpoint.reply = lambda request, _: (0, {}, b"")
    error = call_fails(make_llm(endpoint))
    assert (error.kind, FAILURE_KINDS[error.kind].is_retried) == ("connection", True)


def test_connections_are_used_again(endpoint: Endpoint) -> None:
    make_llm(endpoint, max_concurrency=2).generate_outputs(chats(*map(str, range(20))))
    assert len(endpoint.requests) == 20
    assert len(endpoint.connections) <= 2


def test_a_call_that_is_cancelled_leaves_the_model_usable(endpoint: Endpoint) -> None:
    arrived, over = threading.Event(), threading.Event()

    def reply(request: dict[str, Any], number: int) -> Reply:
        if number == 1:
            arrived.set()
            over.wait(20)
        return completion(f"answer {number}")

    endpoint.reply = reply
    llm = make_llm(endpoint)

    async def cancel_one() -> dict[str, Any]:
        first = asyncio.ensure_future(llm.acall(chats("a")[0]))
        await asyncio.to_thread(arrived.wait)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        try:
            return await llm.acall(chats("b")[0])
        finally:
            await llm.aclose()

    raw = asyncio.run(cancel_one())
    over.set()
    assert raw["choices"][0]["message"]["content"] == "answer 2"


class Doubled(OpenAILLM):
    """Says what came back twice."""

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:  # type: ignore[override]  # noqa: A002 (distilabel's name)
        output = await super().agenerate(input, num_generations, **kwargs)
        return {**output, "generations": [f"{text} {text}" for text in output["generations"]]}


class Counted(OpenAILLM):
    """Puts a header of its own before each answer."""

    async def acall(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        raw = await super().acall(input, num_generations, **kwargs)
        raw["choices"][0]["message"]["content"] += "!"
        return raw


def test_a_subclass_may_call_in_its_own_way(endpoint: Endpoint) -> None:
    settings = {"model": "tiny", "base_url": endpoint.url, "api_key": SecretStr(KEY)}
    doubled = Doubled(**settings)
    counted = Counted(**settings)
    assert doubled.generate_outputs(chats("a"))[0]["generations"] == ["A A"]
    assert counted.generate_outputs(chats("b"))[0]["generations"] == ["B!"]
    assert asyncio.run(_generate(counted))["generations"] == ["C!"]
    assert len(endpoint.requests) == 3


async def _generate(llm: OpenAILLM) -> GenerateOutput:
    try:
        return await llm.agenerate(chats("c")[0])
    finally:
        await llm.aclose()


def test_a_slow_endpoint_is_a_timeout(endpoint: Endpoint) -> None:
    def reply(request: dict[str, Any], number: int) -> Reply:
        time.sleep(0.5)
        return completion("late")

    endpoint.reply = reply
    outputs = make_llm(endpoint, timeout_s=0.1, max_retries=0).generate_outputs(chats("a"))
    assert outputs[0]["generations"] == [None]
    assert "gave no answer in time. Raise `timeout_s`" in str(outputs[0]["errors"])


def test_an_endpoint_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        error = call_fails(OpenAILLM(model="tiny", base_url=url))
    assert error.kind == "connection"
    assert str(error) == f"Model `tiny`: {url} can't be reached. Check `base_url`, and that the server is up."
