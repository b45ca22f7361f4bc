"""Two runs that don't see each other, since their cache has no common ledger."""

import pytest

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.errors import StepInUseError
from tests.integration.object_stores.conftest import Store
from tests.integration.object_stores.store_proxy import Fault, StoreProxy


def make_batch(seq_no: int, text: str) -> Batch:
    return Batch(BatchRecord(seq_no, 1), build_table([{"text": text}], "step"))


def open_store(store: Store) -> StepStore:
    opened = StepStore(store.files(), "step", "a" * 40)
    opened.open(for_writing=True)
    return opened


def test_two_writers_cannot_both_make_a_part(store: Store) -> None:
    one, other = open_store(store), open_store(store)
    one.append([make_batch(0, "mine")])
    with pytest.raises(StepInUseError, match=r"00001\.parquet was written by another run.*ledger_url"):
        other.append([make_batch(0, "yours")])
    other.open()
    assert other.read_all().to_pylist() == [{"text": "mine"}]
    other.append([make_batch(1, "yours")])
    with pytest.raises(StepInUseError):
        one.append([make_batch(1, "mine")])


def test_a_part_whose_answer_was_lost_is_ones_own(store: Store, proxy: StoreProxy) -> None:
    """The driver sends it again, and the store says that it's there."""
    opened = open_store(store)
    lost: list[str] = []

    def lose_first(method: str, key: str) -> Fault | None:
        if method == "PUT" and not lost:
            lost.append(key)
            return "lose_answer"
        return None

    proxy.reset(always=lose_first)
    opened.append([make_batch(0, "mine")])
    assert lost
    assert opened.read_all().to_pylist() == [{"text": "mine"}]
