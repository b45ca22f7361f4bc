"""OpenAILLM against a real HTTP server on loopback that counts its calls."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from distilabel_dagster.models import ChatType, OpenAILLM
from distilabel_dagster.steps.tasks import TextGeneration

KEY = "sk-loopback-secret"
Reply = tuple[int, dict[str, str], str | bytes]


def completion(text: str | None, **choice: Any) -> Reply:
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return 200, {"content-type": "application/json"}, json.dumps(body)


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "type": "x", "code": None}})
    return status, {"content-type": "application/json", "retry-after-ms": "1", **headers}, body


class Endpoint:
    """A server that keeps what it was asked and replies as `reply` says: request, number of the call -> reply."""

    def __init__(self) -> None:
        self.reply: Callable[[dict[str, Any], int], Reply] = lambda request, _: completion(
            request["messages"][-1]["content"].upper()
        )
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == "/v1/chat/completions"
                with endpoint._lock:
                    endpoint.requests.append(request)
                    endpoint.keys.append(self.headers["authorization"])
                    number = len(endpoint.requests)
                    endpoint._at_once += 1
                    endpoint.most_at_once = max(endpoint.most_at_once, endpoint._at_once)
                status, headers, body = endpoint.reply(request, number)
                with endpoint._lock:
                    endpoint._at_once -= 1
                content = body.encode() if isinstance(body, str) else body
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = Endpoint()
    yield served
    served.server.shutdown()
    served.server.server_close()


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
    assert set(endpoint.keys) == {f"Bearer {KEY}"}
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
    assert llm._clients == {}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = lambda request, number: failure(status) if number < 3 else completion("at last")
    outputs = make_llm(endpoint, max_retries=2).generate_outputs(chats("a"))
    assert outputs[0]["generations"] == ["at last"]
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("reply", "calls", "told"),
    [
        (
            failure(401, f"Incorrect API key provided: {KEY}"),
            1,
            "refused the API key (HTTP 401). Set OPENAI_API_KEY",
        ),
        (
            failure(404, "no model `tiny`"),
            1,
            "doesn't know the model or the path (HTTP 404): no model `tiny`.",
        ),
        (failure(400, f"too long for {KEY}"), 1, "refused the request (HTTP 400): too long for ***."),
        (
            failure(429, "slow down"),
            3,
            "takes no more calls now (HTTP 429): slow down. Lower `max_concurrency`",
        ),
        (failure(500, "ouch"), 3, "failed (HTTP 500): ouch. Run again"),
        (
            (200, {"content-type": "text/html"}, "<html>"),
            1,
            "answered with something that isn't a chat completion",
        ),
        ((200, {"content-type": "application/json"}, '{"choices": [{'), 1, "isn't a chat completion"),
        ((200, {"content-type": "application/json"}, '{"choices": []}'), 1, "isn't a chat completion"),
        ((200, {"content-type": "application/json"}, b"\xff\xfe{"), 1, "isn't a chat completion"),
        (completion(None, finish_reason="length"), 1, "gave no text (finish_reason: length)"),
        (
            completion(None, message={"role": "assistant", "content": None, "refusal": "No."}),
            1,
            "refused: No.",
        ),
    ],
    ids=["401", "404", "400", "429", "500", "html", "cut off", "empty", "no text", "length", "refusal"],
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
    assert len([r for r in endpoint.requests if r["messages"][-1]["content"] == "bad"]) == calls
    assert KEY not in str(rows) + caplog.text


def test_a_slow_endpoint_is_a_timeout(endpoint: Endpoint) -> None:
    def reply(request: dict[str, Any], number: int) -> Reply:
        time.sleep(0.5)
        return completion("late")

    endpoint.reply = reply
    outputs = make_llm(endpoint, timeout=0.1, max_retries=0).generate_outputs(chats("a"))
    assert outputs[0]["generations"] == [None]
    assert "gave no answer in time. Raise `timeout`" in str(outputs[0]["errors"])


def test_an_endpoint_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        outputs = OpenAILLM(model="tiny", base_url=url, max_retries=0).generate_outputs(chats("a"))
    assert outputs[0]["errors"] == [
        f"Model `tiny`: {url} can't be reached. Check `base_url`, and that the server is up."
    ]
