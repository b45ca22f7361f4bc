"""The contracts of embedding models, and how what an endpoint sends is taken apart."""

import base64
import struct
import threading
from typing import Any

import pytest
from pydantic import PrivateAttr

from distilabel_dagster.errors import (
    ModelError,
    ModelUnavailableError,
    PipelineDefinitionError,
)
from distilabel_dagster.models import AsyncEmbeddings, OpenAIEmbeddings
from distilabel_dagster.models.embeddings import _find_embeddings, split_tokens
from distilabel_dagster.models.provider_errors import build_call_error


class Lengths(AsyncEmbeddings):
    """Embeds a text as its length; `bad…` spoils a call, `down` all of them."""

    _calls: list[list[str]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "lengths"

    async def acall_batch(self, inputs: list[str]) -> list[dict[str, Any]]:
        self._calls.append(inputs)
        if "down" in inputs:
            raise build_call_error("authentication", endpoint="e", model="lengths", status_code=401)
        if any(text.startswith("bad") for text in inputs):
            raise build_call_error("context_length", endpoint="e", model="lengths", status_code=400)
        return [{"embedding": [float(len(text))]} for text in inputs]


def test_texts_go_together_and_come_back_in_order() -> None:
    model = Lengths(batch_size=3, max_concurrency=2)
    texts = ["x" * count for count in range(10)]
    assert model.encode(texts) == [[float(count)] for count in range(10)]
    assert sorted(map(len, model._calls)) == [1, 3, 3, 3]
    assert model.encode([]) == []


def test_a_text_that_is_refused_is_found_among_those_it_was_sent_with() -> None:
    model = Lengths(batch_size=8)
    texts = ["a", "b", "bad 1", "c", "d", "e", "bad 2", "f", "g"]
    outputs = model.encode_outputs(texts)
    assert [output.get("embedding") for output in outputs] == [
        None if text.startswith("bad") else [1.0] for text in texts
    ]
    assert "finds the request too long" in str(outputs[2]["error"])
    assert ["bad 1"] in model._calls
    assert model._refused == set()
    with pytest.raises(ModelError, match="finds the request too long"):
        model.encode(texts)


def test_what_fails_for_all_is_raised() -> None:
    with pytest.raises(ModelUnavailableError):
        Lengths().encode_outputs(["a", "down"])


def test_several_threads_may_ask() -> None:
    model = Lengths(batch_size=2)
    found: dict[int, list[list[float]]] = {}

    def ask(number: int) -> None:
        found[number] = model.encode(["x" * number] * 5)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [[float(number)]] * 5 for number in range(4)}


def test_tokens_are_shared_by_length_and_add_up() -> None:
    assert split_tokens(10, ["aaaa", "a"]) == [8, 2]
    assert split_tokens(7, ["", ""]) == [0, 0]
    texts = ["x" * count for count in (3, 1, 4, 1, 5, 9, 2, 6)]
    for tokens in range(40):
        shares = split_tokens(tokens, texts)
        assert sum(shares) == tokens
        assert min(shares) >= 0


def as_bytes(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ([{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}], [[1], [2]]),
        ([{"embedding": [1]}, {"embedding": as_bytes(0.5)}], [[1], as_bytes(0.5)]),
        ([{"embedding": [1]}], None),
        ([{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}], None),
        ([{"embedding": [1]}, {"embedding": []}], None),
        ([{"embedding": [1]}, {"embedding": ["x"]}], None),
        ([{"embedding": [1]}, {"embedding": "%%%"}], None),
        ([{"embedding": [1]}, {"embedding": "AAA="}], None),
        ([{"embedding": [1]}, {"embedding": None}], None),
        ("x", None),
        (None, None),
    ],
)
def test_an_embedding_for_each_text_or_nothing(data: Any, found: Any) -> None:
    assert _find_embeddings({"data": data}, 2) == found


def test_both_forms_are_read() -> None:
    model = OpenAIEmbeddings(model="m")
    assert model.read_response({"embedding": as_bytes(0.5, -2.0), "usage": {"prompt_tokens": 3}}) == {
        "embedding": [0.5, -2.0],
        "statistics": {"input_tokens": [3], "output_tokens": [0]},
    }
    assert model.read_response({"embedding": [1, 2]}) == {"embedding": [1.0, 2.0]}


def test_settings() -> None:
    model = OpenAIEmbeddings(model="text-embedding-3-small", dimensions=8, api_key="sk-secret-key")
    assert model.describe_provider({}) == {
        "provider": "openai",
        "base_url": "https://api.openai.com/v1",
        "api": "embeddings",
        "model": "text-embedding-3-small",
        "parameters": {"dimensions": 8},
    }
    assert model.questions_per_call == 32
    assert model.cost_usd(1_000_000, 0) == pytest.approx(0.02)
    assert "sk-secret-key" not in str(model.dump()) + repr(model)
    with pytest.raises(PipelineDefinitionError, match="no model is named"):
        OpenAIEmbeddings(model="")
    with pytest.raises(ModelError, match="Set OPENAI_API_KEY"):
        OpenAIEmbeddings(model="m").load()
