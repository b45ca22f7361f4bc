"""Listings that tell of yesterday: what was written lately isn't in them, and what was removed still is."""

from tests.integration.object_stores import pipelines
from tests.integration.object_stores.conftest import EXPECTED, Store, count_parts, rows_of
from tests.integration.object_stores.store_proxy import StoreProxy

ALWAYS_S = 3600.0


def test_a_run_whose_store_lists_nothing_of_it(store: Store, proxy: StoreProxy) -> None:
    proxy.reset(stale_s=ALWAYS_S)
    assert rows_of(store.run()) == EXPECTED
    assert rows_of(store.run()) == EXPECTED
    assert set(store.computed("mark").values()) == {1}


def test_a_killed_run_goes_on_from_what_no_listing_shows(store: Store, proxy: StoreProxy) -> None:
    proxy.reset(stale_s=ALWAYS_S)
    process = store.start(BATCH_S="0.3")
    store.wait_for(process, lambda: count_parts(store, "left") >= 2)
    store.kill(process)
    done = store.committed()
    before = store.computed("mark")
    assert 0 < len(done["left"]) < pipelines.ROWS
    assert rows_of(store.run()) == EXPECTED
    again = store.computed("mark") - before
    assert not again.keys() & {row["id"] for row in done["mark"]}, "committed rows were computed again"


def test_a_run_anew_is_not_misled_by_what_it_removed(store: Store, proxy: StoreProxy) -> None:
    assert rows_of(store.run()) == EXPECTED
    proxy.reset(stale_s=ALWAYS_S)
    assert rows_of(store.run(use_cache=False)) == EXPECTED
    assert rows_of(store.run()) == EXPECTED
    assert set(store.computed("mark").values()) == {2}
    assert not [name for name in store.objects() if "set-aside" in name]


def test_parts_that_are_listed_and_gone_are_computed_again(store: Store, proxy: StoreProxy) -> None:
    """Someone has removed all that a step has made."""
    assert rows_of(store.run()) == EXPECTED
    proxy.reset(stale_s=ALWAYS_S)
    fs = store.files()
    for name in store.objects():
        if name.startswith("steps_data/left_"):
            fs.remove(name)
    assert rows_of(store.run()) == EXPECTED
    assert set(store.computed("left").values()) == {2}
    assert set(store.computed("mark").values()) == {1}


def test_what_grew_is_read_at_its_own_size(store: Store, proxy: StoreProxy) -> None:
    """A listing has the size that a file had before it was written anew."""
    fs = store.files()
    fs.write_bytes("part", b"short")
    proxy.reset(stale_s=ALWAYS_S)
    fs.write_bytes("part", b"a longer one than before")
    assert fs.list_names("") == ["part"]
    with fs.open_input("part") as opened:
        assert opened.read() == b"a longer one than before"
