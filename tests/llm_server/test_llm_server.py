"""The server that other tests rely on does what they rely on."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.llm_server import Call, LLMServer, count_most_at_once, measure_ideal_s, measure_quiet_s
from tests.llm_server.answers import embed, fill_schema
from tests.llm_server.failures import choose_failure
from tests.llm_server.settings import Settings


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMServer]:
    with LLMServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(process: LLMServer) -> LLMServer:
    process.reset()
    return process


def ask(server: LLMServer, what: str = "chat/completions", timeout_s: float = 10, **body: Any) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout_s)
    try:
        connection.request("POST", f"/v1/{what}", json.dumps(body), {"authorization": "Bearer sk-1"})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def say(server: LLMServer, text: str, **more: Any) -> str:
    messages = [{"role": "user", "content": text}]
    status, _, body = ask(server, model="tiny", messages=messages, **more)
    assert status == 200, body
    return str(json.loads(body)["choices"][0]["message"]["content"])


def test_answers_are_made_of_the_request_and_if_wanted_of_how_often_it_came(server: LLMServer) -> None:
    assert say(server, "a") == say(server, "a") != say(server, "b")
    answered = ask(server, messages=[{"role": "user", "content": "c"}])
    assert json.loads(answered[2])["id"] == server.calls()[-1].answer_id
    assert say(server, "a", temperature=1) != say(server, "a")
    server.reset(answer="sample")
    assert [say(server, "a").split()[-2:] for _ in range(2)] == [["sample", "1"], ["sample", "2"]]
    server.reset(answer="upper")
    assert say(server, "a b") == "A B"
    schema = {"type": "object", "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}}}
    said = say(server, "a", response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert 1 <= json.loads(said)["score"] <= 5


def test_other_endpoints_answer_as_well(server: LLMServer) -> None:
    assert json.loads(ask(server, "completions", prompt="a")[2])["choices"][0]["text"].startswith("answer ")
    vectors = json.loads(ask(server, "embeddings", input=["a", "b"], dimensions=3)[2])["data"]
    assert [each["embedding"] for each in vectors] == [embed("a", 3), embed("b", 3)]
    assert ask(server, "nothing")[0] == 404


def test_schema_is_filled_through_references_and_lists() -> None:
    schema = {
        "$defs": {"mood": {"enum": ["good", "bad"]}},
        "type": "object",
        "properties": {
            "moods": {"type": "array", "items": {"$ref": "#/$defs/mood"}, "minItems": 3},
            "why": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    }
    filled = fill_schema(schema, "seed")
    assert len(filled["moods"]) == 3
    assert set(filled["moods"]) <= {"good", "bad"}
    assert isinstance(filled["why"], str)
    assert filled == fill_schema(schema, "seed") != fill_schema(schema, "another seed")


def test_log_tells_what_is_on_the_wire_and_what_was_answered(server: LLMServer) -> None:
    server.configure(marked={"never": "hang"})
    server.configure(logged_headers=["host", "x-none"])
    say(server, "a")
    with pytest.raises(TimeoutError):
        ask(server, timeout_s=0.3, messages=[{"role": "user", "content": "never"}])
    server.wait_until_idle()
    answered, hung = server.calls()
    assert (answered.outcome, answered.text, answered.key, answered.occurrence) == (
        "answered",
        "a",
        "sk-1",
        1,
    )
    assert answered.headers == {"host": f"127.0.0.1:{server.port}", "x-none": None}
    assert (hung.outcome, hung.failure) == ("dropped", "hang")
    assert hung.ended_at is not None
    assert 0.2 < hung.ended_at - hung.at < 2
    middle = (hung.at + hung.ended_at) / 2
    assert [call.was_on_wire(middle) for call in (answered, hung)] == [False, True]


def test_failures_come_in_their_forms(server: LLMServer) -> None:
    kinds = ["rate_limit", "unauthorized", "context_length", "truncated", "cut_off", "reset", "html"]
    server.configure(marked={f"<{kind}>": kind for kind in kinds}, retry_after_s=0.25)

    def fail(kind: str) -> Any:
        return ask(server, messages=[{"role": "user", "content": f"<{kind}>"}])

    assert fail("rate_limit")[:2][0] == 429
    assert {name.lower(): value for name, value in fail("rate_limit")[1].items()}["retry-after"] == "0.25"
    server.configure(retry_after_unit="ms")
    assert {name.lower(): value for name, value in fail("rate_limit")[1].items()}["retry-after-ms"] == "250"
    assert b"Incorrect API key provided: sk-1." in fail("unauthorized")[2]
    assert fail("context_length")[0] == 400
    with pytest.raises(json.JSONDecodeError):
        json.loads(fail("truncated")[2])
    assert fail("html")[2].startswith(b"<html>")
    with pytest.raises(http.client.IncompleteRead):
        fail("cut_off")
    with pytest.raises(http.client.RemoteDisconnected):
        fail("reset")
    assert [call.failure for call in server.calls()][-2:] == ["cut_off", "reset"]


def test_shares_of_failures_are_kept_and_drawn_the_same_each_time() -> None:
    settings = Settings(failures={"rate_limit": 0.1, "server_error": 0.05, "hang": 0.02})
    drawn = [choose_failure(number, b"", settings) for number in range(1, 5001)]
    shares = {kind: count / 5000 for kind, count in Counter(drawn).items()}
    assert shares["rate_limit"] == pytest.approx(0.1, abs=0.015)
    assert shares["server_error"] == pytest.approx(0.05, abs=0.01)
    assert shares["hang"] == pytest.approx(0.02, abs=0.01)
    assert drawn == [choose_failure(number, b"", settings) for number in range(1, 5001)]
    broken = Settings(broken_after=2)
    assert [choose_failure(number, b"", broken) for number in (1, 2, 3)] == [None, None, "server_error"]


def test_most_at_once_and_latency_are_as_set(server: LLMServer) -> None:
    server.configure(latency_s=0.2)
    threads = [threading.Thread(target=say, args=(server, f"t{number}")) for number in range(5)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun >= 0.2
    assert server.state() == {"arrived": 5, "ended": 5, "in_flight": 0, "most_at_once": 5}
    assert count_most_at_once(server.calls()) == 5


def test_unknown_settings_are_refused(server: LLMServer) -> None:
    with pytest.raises(ValueError, match="latency"):
        server.configure(latency=1)
    with pytest.raises(ValueError, match="sulk"):
        server.configure(failures={"sulk": 0.5})


def test_figures_of_a_log() -> None:
    def call(
        at: float, ended_at: float | None, retry_after_s: float | None = None, outcome: str = "answered"
    ) -> Call:
        return Call(1, "/", at, "", {}, {}, ended_at, outcome, retry_after_s=retry_after_s)

    calls = [call(0, 1), call(0, 2), call(1.5, None), call(2, 2.5, 1.0), call(2, 3, 1.0), call(9, 9.5, 0.5)]
    assert count_most_at_once(calls) == 3
    assert measure_quiet_s(calls) == 2.0  # from 2.5 to 4, and from 9.5 to 10
    # Of the fifth call, half a second was quiet already.
    assert measure_ideal_s(calls, 2) == (1 + 2 + 0.5 + 0.5 + 0.5) / 2 + 2.0
    # A caller that gave up had one slot again before the server saw that.
    assert count_most_at_once([call(0, 1.01, outcome="dropped"), call(1, 2)]) == 1


def test_stopped_server_refuses_and_comes_back_at_the_same_place(tmp_path: Path) -> None:
    with LLMServer(tmp_path) as server:
        url = server.url
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(server)
        server.start()
        assert server.url == url
        assert say(server, "a").startswith("answer")
