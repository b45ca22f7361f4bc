"""Stores that fail now and then, and stores that fail for good."""

import pytest

from tests.integration.object_stores.conftest import EXPECTED, Store, rows_of
from tests.integration.object_stores.store_proxy import StoreProxy

pytestmark = pytest.mark.soak  # not in `make test` until each of them has been seen to pass


def test_fair(store: Store, proxy: StoreProxy) -> None:
    assert rows_of(store.run()) == EXPECTED
    print(len(proxy.requests))


@pytest.mark.parametrize("fault", ["error", "slow_down", "drop", "lose_answer", "truncate", "delay"])
def test_requests_that_fail_now_and_then_are_made_again(fault: str, store: Store, proxy: StoreProxy) -> None:
    proxy.reset(shares={fault: 0.15}, seed=3)
    assert rows_of(store.run()) == EXPECTED
    assert proxy.count() > 3
    assert set(store.computed("mark").values()) == {1}
