"""Requests after the first, which the SDK no longer prepares: sent alike, and failing alike."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distilabel_dagster.errors import ModelCallError
from distilabel_dagster.models import OpenAILLM
from distilabel_dagster.models.azure import AzureOpenAILLM
from tests.integration.models.endpoint import JSON, Endpoint, Reply, completion, failure

KEY = "sk-secret-0123456789"


def make_azure(endpoint: Endpoint) -> OpenAILLM:
    return AzureOpenAILLM(
        model="tiny", base_url=endpoint.host, api_version="2024-10-21", api_key=KEY, timeout_s=5
    )


def make_plain(endpoint: Endpoint) -> OpenAILLM:
    return OpenAILLM(
        model="tiny", base_url=endpoint.url, api_key=KEY, timeout_s=5, default_headers={"X-Team": "b"}
    )


MAKERS = pytest.mark.parametrize("make", [make_plain, make_azure])


def call(llm: OpenAILLM, texts: list[str]) -> list[Any]:
    """Ask one after the other over one connection; answers, or errors as (kind, status, message, retry after)."""

    async def ask(text: str) -> Any:
        try:
            answer = await llm.acall([{"role": "user", "content": text}])
        except ModelCallError as error:
            return error.kind, error.status_code, str(error), error.retry_after_s
        return answer["choices"][0]["message"]["content"]

    async def ask_all() -> list[Any]:
        try:
            return [await ask(text) for text in texts]
        finally:
            await llm.aclose()

    return asyncio.run(ask_all())


@MAKERS
def test_later_requests_are_sent_as_the_first(
    endpoint: Endpoint, make: Callable[[Endpoint], OpenAILLM]
) -> None:
    assert call(make(endpoint), ["eins", "zwei", "drei ü"]) == ["EINS", "ZWEI", "DREI Ü"]
    first, second, third = endpoint.headers
    assert len(endpoint.connections) == 1
    assert len(set(endpoint.paths)) == 1
    assert second == {**first, "content-length": second["content-length"]}
    assert third == {**first, "content-length": third["content-length"]}
    assert endpoint.requests[1] == {**endpoint.requests[0], "messages": endpoint.requests[1]["messages"]}


def broken_off() -> Iterator[bytes]:
    yield b'{"choices": ['


REPLIES: list[Callable[[], Reply]] = [
    lambda: failure(400, f"bad temperature for {KEY}"),
    lambda: failure(401, "wrong key"),
    lambda: failure(402, "pay"),
    lambda: failure(404, "no such model"),
    lambda: failure(409, "conflict"),
    lambda: failure(422, "no"),
    lambda: failure(429, "slow down", **{"retry-after": "3"}),
    lambda: failure(429, "gone", "insufficient_quota"),
    lambda: failure(500, "ouch"),
    lambda: (503, {"content-type": "text/html"}, "<html>busy</html>"),
    lambda: (500, JSON, ""),
    lambda: (500, JSON, "[1, 2]"),
    lambda: (304, {}, ""),
    lambda: (200, JSON, '{"choices": [{'),
    lambda: (200, JSON, b"\xff\xfe{"),
    lambda: (200, JSON, ""),
    lambda: (200, {"content-type": "text/html"}, "<html>"),
    lambda: (200, {**JSON, "content-length": "99"}, broken_off()),
    lambda: (0, {}, ""),
]


@MAKERS
@pytest.mark.parametrize("number", range(len(REPLIES)))
def test_later_requests_fail_as_the_first(
    endpoint: Endpoint, number: int, make: Callable[[Endpoint], OpenAILLM]
) -> None:
    endpoint.reply = lambda request, _: (
        REPLIES[number]() if request["messages"][-1]["content"] == "bad" else completion("good")
    )
    (first,) = call(make(endpoint), ["bad"])
    fine, later, again = call(make(endpoint), ["good", "bad", "good"])
    assert (fine, again) == ("good", "good")
    assert later == first
    assert isinstance(later, tuple)
    assert KEY not in str(later)


@MAKERS
def test_an_endpoint_that_is_gone_is_told_alike(make: Callable[[Endpoint], OpenAILLM]) -> None:
    endpoint = Endpoint()
    endpoint.reply = lambda request, _: (
        *completion("good")[:1],
        {**JSON, "connection": "close"},
        completion("good")[2],
    )
    llm = make(endpoint)

    async def ask() -> tuple[str, str]:
        try:
            await llm.acall([{"role": "user", "content": "a"}])
            await asyncio.to_thread(endpoint.close)
            with pytest.raises(ModelCallError) as later:
                await llm.acall([{"role": "user", "content": "a"}])
        finally:
            await llm.aclose()
        return later.value.kind, str(later.value)

    later = asyncio.run(ask())
    ((kind, _, message, _),) = call(llm, ["a"])
    assert later == (kind, message)
    assert kind == "connection"


@MAKERS
def test_a_redirect_is_followed_by_the_sdk(endpoint: Endpoint, make: Callable[[Endpoint], OpenAILLM]) -> None:
    """It knows to whom the key may be sent."""

    def reply(request: dict[str, Any], number: int) -> Reply:
        if number % 2:
            return 307, {"location": f"/elsewhere{endpoint.paths[-1]}"}, ""
        return completion("moved")

    endpoint.reply = reply
    assert call(make(endpoint), ["a"]) == ["moved"]
    asked = len(endpoint.requests)
    endpoint.reply = lambda request, number: (
        completion("first")
        if number == asked + 1
        else reply(request, int("elsewhere" not in endpoint.paths[-1]))
    )
    assert call(make(endpoint), ["a", "b"]) == ["first", "moved"]
