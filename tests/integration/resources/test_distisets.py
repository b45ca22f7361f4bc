"""Distisets of more rows than are held in memory."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.distiset import create_distiset, mapped_rows
from distilabel_dagster.errors import DamagedFileError
from tests.integration.resources.conftest import Disk

SIGNATURE = "a" * 40


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `datasets` keeps files, in this test; and little is held in memory."""
    import datasets.config

    directory = tmp_path / "hf"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", directory)
    monkeypatch.setattr(mapped_rows, "_IN_MEMORY_BYTES", 1000)
    return directory


def rows_of(part: int) -> list[dict[str, Any]]:
    """Fifty rows; those of the last parts have a column more."""
    more = {"late": [part]} if part > 6 else {}
    return [{"id": part * 50 + n, "text": f"text {n}" * 10, **more} for n in range(50)]


def write(cache_dir: Path, parts: int = 10) -> list[dict[str, Any]]:
    """Write a leaf's parts, not yet under one schema; give the rows as a Distiset has them."""
    store = StepStore(CacheFileSystem(cache_dir), "leaf", SIGNATURE, leaf_of=SIGNATURE)
    for part in range(parts):
        table = build_table(rows_of(part), "leaf")
        store.append([Batch(BatchRecord(part, 50, last_batch=part == parts - 1), table)])
    return [{"late": None, **row} for part in range(parts) for row in rows_of(part)]


def load(cache_dir: Path) -> Any:
    return create_distiset(cache_dir / SIGNATURE)["leaf"]["train"]


def test_rows_are_mapped_from_one_file(hf_cache: Path, tmp_path: Path) -> None:
    expected = write(tmp_path / "cache")
    train = load(tmp_path / "cache")
    (file,) = [each for each in hf_cache.rglob("*") if each.is_file()]
    assert [each["filename"] for each in train.cache_files] == [str(file)]
    assert train.to_list() == expected
    assert train.column_names == ["id", "text", "late"]
    again = load(tmp_path / "cache")
    assert again._fingerprint == train._fingerprint
    assert [each for each in hf_cache.rglob("*") if each.is_file()] == [file], "the same rows, the same file"
    assert pickle.loads(pickle.dumps(train))[499] == expected[499]


def test_the_same_rows_have_the_same_fingerprint_however_they_are_held(
    hf_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write(tmp_path / "cache")
    mapped = load(tmp_path / "cache")
    monkeypatch.setattr(mapped_rows, "_IN_MEMORY_BYTES", 10**9)
    held = load(tmp_path / "cache")
    assert held.cache_files == []
    assert (held._fingerprint, held.features) == (mapped._fingerprint, mapped.features)
    assert held.to_list() == expected


def test_without_space_for_the_file_rows_are_held_in_memory(
    hf_cache: Path,
    tmp_path: Path,
    make_disk: Callable[..., Disk],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import datasets.config

    disk = make_disk("size=16k")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", disk.path / "hf")
    expected = write(tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        train = load(tmp_path / "cache")
    assert train.to_list() == expected
    assert train.cache_files == []
    assert "No space left on device" in caplog.text
    assert "HF_DATASETS_CACHE" in caplog.text
    assert not [each for each in disk.path.rglob("*") if each.is_file()], (
        "half a file would take what is left"
    )


def test_a_directory_that_cannot_be_made_is_no_end_either(
    hf_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hf_cache.write_text("in the way")
    expected = write(tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path / "cache").to_list() == expected
    assert str(hf_cache) in caplog.text


def test_a_damaged_part_is_told_though_others_were_mapped(hf_cache: Path, tmp_path: Path) -> None:
    write(tmp_path / "cache")
    part = tmp_path / "cache" / SIGNATURE / "data" / "leaf" / "00009.parquet"
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(bytes(content))
    with pytest.raises(DamagedFileError, match=r"00009\.parquet"):
        load(tmp_path / "cache")
    assert not [each for each in hf_cache.rglob("*") if each.is_file()]
