"""Simulated models, forgotten after each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engine.llm_runs import SERVERS, LedgerBench, Server


@pytest.fixture
def server() -> Iterator[Server]:
    SERVERS["main"] = Server()
    yield SERVERS["main"]
    SERVERS.clear()


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., LedgerBench]:
    """Make a bench on the test's one ledger, with a cache of its own."""

    def make(declare: Callable[[], Any], **options: Any) -> LedgerBench:
        return LedgerBench(declare, path=tmp_path / "ledger.sqlite", **options)

    return make
