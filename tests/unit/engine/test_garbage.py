"""The garbage collector during runs, and as it was after them."""

import gc
from collections.abc import Iterator

import pytest

from distilabel_dagster.engine import garbage
from distilabel_dagster.engine.garbage import rare_collections
from tests.unit.engine.runs import BODIES, Bench, Rows, chain


@pytest.fixture(autouse=True)
def _collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process: a run that another test has left behind may go on in this one."""
    monkeypatch.setattr(garbage, "_collector", garbage._Collector())
    before = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield
    gc.enable()
    gc.set_threshold(*before)
    gc.unfreeze()


def test_it_is_as_before_when_the_last_block_ends() -> None:
    before = gc.get_threshold()
    with rare_collections():
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() == (10_000, 20, 20)
        with rare_collections():
            assert gc.get_freeze_count() > 10_000  # some are freed meanwhile
        assert gc.get_threshold() == (10_000, 20, 20)
        assert gc.get_freeze_count() > 10_000  # some are freed meanwhile
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_thresholds_are_not_lowered() -> None:
    gc.set_threshold(50_000, 5, 1_000)
    with rare_collections():
        assert gc.get_threshold() == (50_000, 20, 1_000)
    assert gc.get_threshold() == (50_000, 5, 1_000)


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with rare_collections():
        assert gc.get_freeze_count() == 0
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_what_others_have_frozen_stays_frozen() -> None:
    gc.freeze()
    with rare_collections():
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() > 10_000


def test_garbage_is_collected_in_a_block() -> None:
    class Node:
        pass

    with rare_collections():
        node = Node()
        node.me = node  # type: ignore[attr-defined]  # a circle
        del node
        assert gc.collect() >= 1


def test_a_run_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []

    def note(rows: Rows) -> Rows:
        frozen.append(gc.get_freeze_count())
        return rows

    monkeypatch.setitem(BODIES, "a", note)
    before = gc.get_threshold()
    Bench(chain("a")).run()
    assert min(frozen) > 10_000
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
