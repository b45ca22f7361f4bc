"""What calls cost: by the installed table, never by a guess, and never over the network."""

import socket
import sys
import threading
from typing import Any

import pytest

from distilabel_dagster.models.prices import _find_price, estimate_cost_usd, is_local

OPENAI = "https://api.openai.com/v1"


@pytest.fixture(autouse=True)
def forget_prices() -> None:
    _find_price.cache_clear()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a price was asked for over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_listed_model_has_its_price_and_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    read = estimate_cost_usd("gpt-4o-mini", OPENAI, 1_000_000, 0)
    written = estimate_cost_usd("gpt-4o-mini", OPENAI, 0, 1_000_000)
    assert read == pytest.approx(0.15)
    assert written == pytest.approx(0.6)
    assert estimate_cost_usd("gpt-4o-mini", OPENAI, 2_000_000, 1_000_000) == pytest.approx(0.9)
    assert estimate_cost_usd("gpt-4o-mini-2024-07-18", OPENAI, 1_000_000, 0) == pytest.approx(0.15)
    assert estimate_cost_usd("gpt-4o-mini", OPENAI, 0, 0) == 0
    assert set(threading.enumerate()) == before


def test_a_price_may_depend_on_the_size_of_a_request() -> None:
    google = "https://generativelanguage.googleapis.com/v1beta/openai"
    small = estimate_cost_usd("gemini-2.5-pro", google, 100_000, 0)
    large = estimate_cost_usd("gemini-2.5-pro", google, 400_000, 0)
    assert small is not None
    assert large is not None
    assert large > 4 * small


def test_embeddings_cost_what_is_read() -> None:
    assert estimate_cost_usd("text-embedding-3-small", OPENAI, 1_000_000, 0) == pytest.approx(0.02)
    assert estimate_cost_usd("text-embedding-3-small", OPENAI, 1_000_000, 1) is None


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("no-such-model", OPENAI),
        ("gpt-4o-mini-of-mine", OPENAI),
        ("ft:gpt-4o-2024-08-06:me::1", OPENAI),
        ("my-gpt-4o-mini", OPENAI),
        ("gpt-4o-mini", "https://llm.example.com/v1"),
        ("gpt-4o-mini", "http://localhost:8000/v1"),
        ("gpt-4o-mini", "http://10.1.2.3/v1"),
        ("tts-1", OPENAI),
    ],
)
def test_what_isnt_listed_by_its_very_name_has_no_price(model: str, base_url: str) -> None:
    assert estimate_cost_usd(model, base_url, 1000, 1000) is None


def test_without_the_extra_nothing_has_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert estimate_cost_usd("gpt-4o-mini", OPENAI, 1, 1) is None


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.0.7/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://gpu-box:8000/v1", True),
        ("http://box.local/v1", True),
        ("http://8.8.8.8/v1", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_local_endpoints_are_known(url: str, local: bool) -> None:
    assert is_local(url) is local
