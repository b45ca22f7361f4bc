"""AzureOpenAILLM and OpenAIEmbeddings against a real HTTP server on loopback."""

import base64
import struct
from typing import Any

import pytest
from pydantic import SecretStr

from distilabel_dagster.errors import ModelCallError, ModelError
from distilabel_dagster.models import AzureOpenAILLM, ChatType, OpenAIEmbeddings
from tests.integration.models.endpoint import Endpoint, Reply, answer_of, completion, failure

CHAT: ChatType = [{"role": "user", "content": "hi"}]


def make_azure(endpoint: Endpoint, **fields: Any) -> AzureOpenAILLM:
    return AzureOpenAILLM(model="mine", base_url=endpoint.host, api_version="2024-10-21", **fields)


@pytest.mark.parametrize(
    ("fields", "header", "value"),
    [
        ({"api_key": SecretStr("azure-key-1")}, "api-key", "azure-key-1"),
        ({"azure_ad_token": SecretStr("azure-token-1")}, "authorization", "Bearer azure-token-1"),
        (
            {"api_key": SecretStr("azure-key-1"), "azure_ad_token": SecretStr("azure-token-1")},
            "api-key",
            "azure-key-1",
        ),
    ],
)
def test_azure_is_called_by_deployment(
    endpoint: Endpoint, fields: dict[str, Any], header: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("AZURE_OPENAI_AD_TOKEN", raising=False)
    endpoint.reply = lambda request, _: completion("azure-key-1 azure-token-1")
    outputs = make_azure(endpoint, **fields).generate_outputs([CHAT])
    assert endpoint.paths == ["/openai/deployments/mine/chat/completions?api-version=2024-10-21"]
    assert endpoint.headers[0][header] == value
    assert endpoint.requests == [{"model": "mine", "messages": CHAT}]
    assert value.removeprefix("Bearer ") not in str(outputs)


def embed(text: str) -> list[float]:
    return [float(len(text)), 0.5]


def reply_with_embeddings(request: dict[str, Any], _: int) -> Reply:
    if any(text.startswith("long") for text in request["input"]):
        return failure(400, "This model's maximum context length is 8 tokens.")
    data = [
        {"index": index, "embedding": base64.b64encode(struct.pack("<2f", *embed(text))).decode()}
        for index, text in enumerate(request["input"])
    ]
    return answer_of({"data": data[::-1], "model": "e", "usage": {"prompt_tokens": 10}})


def make_embeddings(endpoint: Endpoint, **fields: Any) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        model="e", base_url=endpoint.url, api_key=SecretStr("sk-embeddings-key"), **fields
    )


def test_texts_are_embedded_in_batches(endpoint: Endpoint) -> None:
    endpoint.reply = reply_with_embeddings
    model = make_embeddings(endpoint, batch_size=2, dimensions=2)
    model.load()
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    assert model.encode(texts) == [embed(text) for text in texts]
    assert set(endpoint.paths) == {"/v1/embeddings"}
    assert endpoint.keys == {"Bearer sk-embeddings-key"}
    assert sorted(request["input"] for request in endpoint.requests) == [
        ["a", "bb"],
        ["ccc", "dddd"],
        ["eeeee"],
    ]
    assert {request["dimensions"] for request in endpoint.requests} == {2}
    statistics = [output["statistics"]["input_tokens"] for output in model.encode_outputs(texts)]
    assert statistics == [[3], [7], [4], [6], [10]]


def test_one_text_that_is_too_long_fails_alone(endpoint: Endpoint) -> None:
    endpoint.reply = reply_with_embeddings
    outputs = make_embeddings(endpoint).encode_outputs(["a", "long one", "ccc"])
    assert [output.get("embedding") for output in outputs] == [embed("a"), None, embed("ccc")]
    assert "finds the request too long" in str(outputs[1]["error"])


def test_passing_failures_are_tried_again(endpoint: Endpoint) -> None:
    endpoint.reply = lambda request, number: (
        failure(429) if number == 1 else reply_with_embeddings(request, number)
    )
    assert make_embeddings(endpoint).encode(["a"]) == [embed("a")]
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        (answer_of({"data": []}), "malformed", "it doesn't hold an embedding for each of 1 texts"),
        (failure(401, "no sk-embeddings-key"), "authentication", "refused the API key (HTTP 401)"),
    ],
)
def test_what_fails_is_told(endpoint: Endpoint, reply: Reply, kind: str, told: str) -> None:
    endpoint.reply = lambda request, _: reply
    with pytest.raises(ModelError) as raised:
        make_embeddings(endpoint, max_retries=0).encode(["a"])
    assert told in str(raised.value)
    assert "sk-embeddings-key" not in str(raised.value)
    if isinstance(raised.value, ModelCallError):
        assert raised.value.kind == kind
