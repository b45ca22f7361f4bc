"""Processes that may open few files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.resources import open_files, pipelines
from tests.integration.resources.conftest import PATIENCE_S, ROOT, Runs


def run_with_few(place: str, numbers: list[int]) -> list[dict[str, object]]:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("there's no /proc here that says which files are open")
    done = subprocess.run(
        [sys.executable, "-m", open_files.__name__, place, *map(str, numbers)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * len(numbers),
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(ends: list[dict[str, object]]) -> None:
    for end in ends:
        assert end["resumed"] == pipelines.ROWS, end
        if end["error"] is not None:
            assert end["module"] == "distilabel_dagster.errors", end
            assert "`ulimit -n`" in str(end["message"]), end


def test_a_local_cache_with_few_files(tmp_path: Path) -> None:
    ends = run_with_few(str(tmp_path), [0, 1, 3, 5, 12])
    check(ends)
    assert [end["error"] for end in ends][-1] is None
    assert ends[0]["error"] is not None


def test_too_few_files_for_an_event_loop() -> None:
    ends = run_with_few("memory://few", [1, 2, 8])
    check(ends)
    assert [end["error"] for end in ends] == ["CacheError", "CacheError", None]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_any_number_of_files(tmp_path: Path) -> None:
    check(run_with_few(str(tmp_path), list(range(30))))
    check(run_with_few("memory://few", list(range(1, 12))))


def test_files_run_out_in_the_middle(make_runs: Callable[[Path], Runs], tmp_path: Path) -> None:
    runs = make_runs(tmp_path / "cache")
    ended = runs.go("python", OPEN_FILES="4", BATCH_S="0.1")
    assert ended.code != 0
    assert ended.last_words.startswith("distilabel_dagster.errors.CacheError: ")
    assert "Too many open files" in ended.last_words
    assert "`ulimit -n`" in ended.last_words
    runs.resume()
    assert len(runs.rows()) == pipelines.ROWS


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("limit", range(8, 40, 2))
def test_replicas_with_few_files(limit: int, tmp_path: Path, make_runs: Callable[[Path], Runs]) -> None:
    runs = make_runs(tmp_path / "cache")
    ended = runs.go("python", REPLICAS="2", START_FILES=str(limit))
    if ended.code:
        assert ended.last_words.startswith("distilabel_dagster.errors.")
        assert "`ulimit -n`" in ended.last_words
    runs.resume()
    assert len(runs.rows()) == pipelines.ROWS
