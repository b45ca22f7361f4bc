"""Memory doesn't grow with the dataset."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.resources import memory_run
from tests.integration.resources.conftest import PATIENCE_S, ROOT

LIMIT_MB = 600


def measure(tmp_path: Path, rows: int, *, batch_rows: int = 1000, way: str = "run") -> dict[str, Any]:
    cache_dir = tmp_path / f"{way}-{rows}"
    done = subprocess.run(
        [sys.executable, "-m", memory_run.__name__, str(cache_dir), str(rows), str(batch_rows), way],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S + rows / 500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["rows"] == rows
    assert told["last"]["id"] == rows - 1
    return told


@pytest.mark.parametrize("way", ["run", "sequential"])
def test_a_run_takes_less_memory_than_its_rows(way: str, tmp_path: Path) -> None:
    """60,000 rows of 1 KB in four steps are 240 MB, and 60 in the Distiset: not nearly all of them at any time."""
    told = measure(tmp_path, 60_000, way=way)
    assert told["arrow_mb"] < 160
    assert told["peak_mb"] - told["idle_mb"] < 300


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", ["run", "sequential"])
def test_a_million_rows(way: str, tmp_path: Path) -> None:
    few = measure(tmp_path, 100_000, way=way)
    many = measure(tmp_path, 1_000_000, way=way)
    assert many["peak_mb"] <= LIMIT_MB
    assert many["peak_mb"] - few["peak_mb"] < 100
    assert many["arrow_mb"] - few["arrow_mb"] < 50


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_small_batches(tmp_path: Path) -> None:
    few = measure(tmp_path, 20_000, batch_rows=50)
    many = measure(tmp_path, 200_000, batch_rows=50)
    assert many["peak_mb"] <= LIMIT_MB
    assert many["peak_mb"] - few["peak_mb"] < 250
