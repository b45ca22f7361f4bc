import pytest

from distilabel_dagster.engine import freed_memory
from distilabel_dagster.engine.freed_memory import FreedMemory


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the C library was told."""
    told: list[int] = []
    monkeypatch.setattr(freed_memory, "_find_trim", lambda: told.append)
    return told


def test_memory_is_given_back_now_and_then(given_back: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(freed_memory.time, "monotonic", lambda: now[0])
    memory = FreedMemory()
    for seconds in (0.0, 1.9, 0.2, 1.0, 1.5):
        now[0] += seconds
        memory.give_back()
    assert len(given_back) == 2
    memory.give_back(at_once=True)
    assert given_back == [0, 0, 0]


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory.sys, "platform", "darwin")
    FreedMemory().give_back(at_once=True)
    assert freed_memory._find_trim() is None
