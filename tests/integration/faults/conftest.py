from pathlib import Path

import pytest

from tests.integration.faults.steps import CALLS, Add, All


@pytest.fixture(autouse=True)
def forget() -> None:
    CALLS.clear()
    All.calls, Add.dies_at = 0, None


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
