"""Runs on one machine exclude one another wherever their cache is; a cache in memory is its process's own."""

import logging
from pathlib import Path

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.errors import StepInUseError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.pipeline.execution import acquire_lease
from distilabel_dagster.steps import KeepColumns, LoadDataFromDicts
from tests.contract.conftest import Place

KEYS = ["steps_data/load_0"]


def build(place: Place) -> Pipeline:
    with Pipeline("shared", cache_dir=place.url, storage_options=place.storage_options) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"id": number} for number in range(6)], batch_size=2)
        load >> KeepColumns(name="keep", columns=["id"], input_batch_size=2)
    return pipeline


def test_one_writes_at_a_time(place: Place, fs: CacheFileSystem) -> None:
    held = acquire_lease(None, fs, KEYS)
    if place.kind == "memory":
        assert held is None
        return
    assert held is not None
    with held, pytest.raises(StepInUseError, match="That is this very process"):
        acquire_lease(None, place.open(), KEYS)
    again = acquire_lease(None, place.open(), KEYS)
    assert again is not None
    again.release()


def test_a_run_says_who_writes_and_works_after_that(place: Place, fs: CacheFileSystem) -> None:
    keys = [store.path for store in build(place).open_cache().stores.values()]
    held = acquire_lease(None, fs, keys)
    if held is not None:
        with held, pytest.raises(StepInUseError):
            build(place).run()
    assert build(place).run()["default"]["train"].num_rows == 6


def test_without_a_place_for_the_ledger_a_store_is_written_with_a_warning(
    s3_options: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "home").write_text("no directory")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    fs = CacheFileSystem("s3://pipelines/without-a-home", s3_options)
    with caplog.at_level(logging.WARNING, "distilabel_dagster"):
        assert acquire_lease(None, fs, KEYS) is None
    assert "let it be the only one" in caplog.text
