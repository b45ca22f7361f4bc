from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.planning import pipelines


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture(autouse=True)
def nothing_asked_yet() -> Iterator[None]:
    pipelines.asked.clear()
    pipelines.fail_on.clear()
    yield
    pipelines.fail_on.clear()
