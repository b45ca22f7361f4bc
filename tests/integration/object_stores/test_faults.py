"""Stores that fail now and then, and stores that fail for good."""

import signal
import time
from typing import Any

import pytest

from distilabel_dagster.errors import CacheDirectoryError, CacheError
from tests.integration.object_stores.conftest import EXPECTED, Store, count_parts, rows_of
from tests.integration.object_stores.store_proxy import Fault, StoreProxy

FAULTS: tuple[Fault, ...] = ("error", "slow_down", "drop", "lose_answer", "truncate", "delay")


def test_requests_that_fail_now_and_then_are_made_again(store: Store, proxy: StoreProxy) -> None:
    proxy.reset(shares=dict.fromkeys(FAULTS, 0.03), seed=3)
    assert rows_of(store.run()) == EXPECTED
    assert proxy.count() > 5
    assert set(store.computed("mark").values()) == {1}
    assert not [name for name in store.objects() if "set-aside" in name or "damaged" in name]


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_kind_of_fault(fault: Fault, store: Store, proxy: StoreProxy) -> None:
    proxy.reset(shares={fault: 0.15}, seed=3)
    assert rows_of(store.run()) == EXPECTED
    assert proxy.count(fault) > 3
    assert set(store.computed("mark").values()) == {1}


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_kills_amid_faults_and_old_listings(seed: int, store: Store, proxy: StoreProxy) -> None:
    """Three kills, then a run to the end; nothing committed is computed again, and the rows are right."""
    proxy.reset(shares=dict.fromkeys(FAULTS, 0.02), stale_s=3600.0, seed=seed)
    kills = 0
    for wanted in (1, 2, 4):  # as many parts as a run makes at least; the last run may end before
        done = store.committed().get("mark", [])
        before = store.computed("mark")
        process = store.start(BATCH_S="0.2")
        while process.poll() is None and count_parts(store, "right") < wanted:
            time.sleep(0.05)
        kills += process.poll() is None
        store.kill(process)
        again = store.computed("mark") - before
        assert not again.keys() & {row["id"] for row in done}
    assert kills
    assert rows_of(store.run()) == EXPECTED


def fail_at(store: Store, proxy: StoreProxy, method: str, fault: Fault, **options: Any) -> CacheError:
    """Run while one object can't be got at; give the error that the run ends with."""

    def find_fault(asked: str, key: str) -> Fault | None:
        return fault if asked == method and "/mark_" in key and key.endswith("00001.parquet") else None

    proxy.reset(always=find_fault)
    with pytest.raises(CacheError) as caught:
        store.run(**options)
    proxy.reset()
    return caught.value


@pytest.mark.parametrize(("method", "done"), [("PUT", "written"), ("GET", "read")])
def test_an_object_that_is_refused_is_named(method: str, done: str, store: Store, proxy: StoreProxy) -> None:
    if method == "GET":
        store.run()
    error = fail_at(store, proxy, method, "refuse")
    assert isinstance(error, CacheDirectoryError)
    assert str(error).startswith(f"{store.url}/steps_data/mark_")
    assert f"00001.parquet can't be {done}: " in str(error)
    assert rows_of(store.run()) == EXPECTED


def test_a_store_that_fails_for_good_ends_the_run(store: Store, proxy: StoreProxy) -> None:
    error = fail_at(store, proxy, "PUT", "drop")
    assert "00001.parquet can't be written: " in str(error)
    assert "start the same run again" in str(error)
    assert rows_of(store.run()) == EXPECTED


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_store_that_does_not_answer_ends_the_run(method: str, store: Store, proxy: StoreProxy) -> None:
    if method == "GET":
        store.run()
    quick = {"config_kwargs": {"read_timeout": 1, "connect_timeout": 1}}
    assert "00001.parquet can't be" in str(fail_at(store, proxy, method, "hang", **quick))


def test_a_killed_run_goes_on(store: Store) -> None:
    process = store.start(BATCH_S="0.3")
    store.wait_for(process, lambda: count_parts(store, "left") >= 1)
    store.kill(process)
    assert process.returncode == -signal.SIGKILL
    done = store.committed()
    before = store.computed("mark")
    assert rows_of(store.run()) == EXPECTED
    again = store.computed("mark") - before
    assert not again.keys() & {row["id"] for row in done["mark"]}


def test_a_log_that_cannot_be_added_to_is_left_out(
    store: Store, proxy: StoreProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the log needs what an object store lacks: it's read and written anew to be added to."""

    def find_fault(method: str, key: str) -> Fault | None:
        return "refuse" if method == "PUT" and key.endswith("pipeline.log") else None

    proxy.reset(always=find_fault)
    assert rows_of(store.run()) == EXPECTED
    assert "The log can't be written" in caplog.text
    assert not [name for name in store.objects() if name.endswith("pipeline.log")]


def test_nothing_is_removed_or_renamed_in_a_run(store: Store, proxy: StoreProxy) -> None:
    store.run()
    removed = {each.key.rpartition("/")[2] for each in proxy.requests if each.method == "DELETE"}
    assert all(name.startswith(".") for name in removed), "the probe for writing is all"
