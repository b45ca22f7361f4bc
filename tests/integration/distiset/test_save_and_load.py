import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import Distiset, create_distiset
from distilabel_dagster.errors import DistisetError

WritePart = Callable[[CacheFileSystem, str, pa.Table], None]


@pytest.fixture
def distiset(pipeline_dir: CacheFileSystem, write_part: WritePart) -> Distiset:
    table = pa.table(
        {"text": ["a", "b", "c"], "raw": [b"1", None, b"3"], "nested": [{"k": [1]}, None, {"k": []}]}
    )
    write_part(pipeline_dir, "data/generate/00001.parquet", table)
    write_part(pipeline_dir, "data/judge/00001.parquet", pa.table({"score": [0.5, None]}))
    write_part(pipeline_dir, "data/filtered/00001.parquet", pa.table({"text": pa.array([], pa.string())}))
    pipeline_dir.write_bytes("pipeline.yaml", b"pipeline: {}\n")
    pipeline_dir.write_bytes("pipeline.log", b"said\n")
    return create_distiset(pipeline_dir.url)


@pytest.fixture
def place(pipeline_dir: CacheFileSystem) -> CacheFileSystem:
    """Somewhere else in the same store."""
    return CacheFileSystem(f"{pipeline_dir.url}_saved")


def contents(distiset: Distiset) -> dict[str, dict[str, Any]]:
    return {
        config: {split: (rows.features, rows.to_list()) for split, rows in splits.items()}
        for config, splits in distiset.items()
    }


def test_round_trip_keeps_everything(distiset: Distiset, place: CacheFileSystem) -> None:
    distiset.save_to_disk(place.url)
    loaded = Distiset.load_from_disk(place.url)
    assert contents(loaded) == contents(distiset)
    assert str(loaded.pipeline_path) == place.full_path("distiset_configs/pipeline.yaml")
    assert str(loaded.log_filename_path) == place.full_path("distiset_configs/pipeline.log")
    assert place.read_bytes("distiset_configs/pipeline.yaml") == b"pipeline: {}\n"
    assert place.read_bytes("distiset_configs/pipeline.log") == b"said\n"
    assert "Rows: 3 in `train`" in place.read_bytes("distiset_configs/README.md").decode()


def test_loaded_distiset_can_be_saved_elsewhere_with_its_files(
    distiset: Distiset, place: CacheFileSystem
) -> None:
    distiset.save_to_disk(place.url)
    again = CacheFileSystem(f"{place.url}_again")
    Distiset.load_from_disk(place.url).save_to_disk(again.url)
    assert again.read_bytes("distiset_configs/pipeline.yaml") == b"pipeline: {}\n"
    assert contents(Distiset.load_from_disk(again.url)) == contents(distiset)


def test_splits_survive(distiset: Distiset, place: CacheFileSystem) -> None:
    del distiset["filtered"]
    distiset.train_test_split(0.5, seed=1).save_to_disk(place.url)
    assert contents(Distiset.load_from_disk(place.url)) == contents(distiset)


def test_files_can_be_left_out(distiset: Distiset, place: CacheFileSystem) -> None:
    distiset.save_to_disk(place.url, save_card=False, save_pipeline_config=False, save_pipeline_log=False)
    assert not place.exists("distiset_configs")
    assert Distiset.load_from_disk(place.url).pipeline_path is None


def test_saving_again_replaces_what_was_saved(distiset: Distiset, place: CacheFileSystem) -> None:
    distiset.save_to_disk(place.url, num_shards=2)
    distiset["judge"] = DatasetDict({"train": Dataset.from_dict({"score": [1.0]})})
    distiset.pipeline_path = None
    distiset.save_to_disk(place.url)
    loaded = Distiset.load_from_disk(place.url)
    assert contents(loaded) == contents(distiset)
    assert loaded.pipeline_path is None


def test_another_distiset_is_not_mixed_in(distiset: Distiset, place: CacheFileSystem) -> None:
    distiset.save_to_disk(place.url)
    with pytest.raises(
        DistisetError, match="holds another Distiset, with the configs `filtered`, `generate`"
    ):
        Distiset({"judge": distiset["judge"]}).save_to_disk(place.url)


def test_rows_are_not_written_over_themselves(distiset: Distiset, tmp_path: Path) -> None:
    distiset.save_to_disk(tmp_path / "saved")
    loaded = Distiset.load_from_disk(tmp_path / "saved")
    with pytest.raises(DistisetError, match="can't overwrite itself"):
        loaded.save_to_disk(tmp_path / "saved")
    assert contents(Distiset.load_from_disk(tmp_path / "saved")) == contents(distiset)


@pytest.mark.parametrize("options", [{"num_shards": 2}, {"max_shard_size": "1KB"}])
def test_files_can_be_sharded(distiset: Distiset, tmp_path: Path, options: dict[str, Any]) -> None:
    distiset["generate"] = DatasetDict({"train": Dataset.from_dict({"text": ["x" * 100] * 50})})
    distiset.save_to_disk(tmp_path, **options)
    assert len(list((tmp_path / "generate" / "train").glob("*.arrow"))) > 1
    assert contents(Distiset.load_from_disk(tmp_path)) == contents(distiset)


def test_store_can_be_copied_to_a_directory(distiset: Distiset, tmp_path: Path) -> None:
    place = CacheFileSystem("memory://test-download/saved")
    distiset.save_to_disk(place.url)
    loaded = Distiset.load_from_disk(place.url, download_dir=tmp_path / "copy")
    assert contents(loaded) == contents(distiset)
    assert loaded.pipeline_path == tmp_path / "copy" / "distiset_configs" / "pipeline.yaml"
    assert all(str(tmp_path) in file["filename"] for file in loaded["judge"]["train"].cache_files)


def test_home_is_expanded(distiset: Distiset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    distiset.save_to_disk("~/saved")
    assert (tmp_path / "saved" / "judge").is_dir()
    assert contents(Distiset.load_from_disk("~/saved")) == contents(distiset)


def test_files_of_the_pipeline_that_are_gone_are_said_before_writing(
    distiset: Distiset, place: CacheFileSystem, pipeline_dir: CacheFileSystem
) -> None:
    pipeline_dir.remove("pipeline.log")
    with pytest.raises(DistisetError, match=r"pipeline\.log of this Distiset, isn't there any more"):
        distiset.save_to_disk(place.url)
    assert not place.exists("")


def test_nothing_to_load_is_an_error(place: CacheFileSystem) -> None:
    place.write_bytes("notes.txt", b"mine")
    with pytest.raises(DistisetError, match=r"holds no Distiset: .*found `notes\.txt`"):
        Distiset.load_from_disk(place.url)
    with pytest.raises(DistisetError, match=r"holds no Distiset: .*found nothing"):
        Distiset.load_from_disk(f"{place.url}/nowhere")


def test_damaged_config_is_an_error_that_names_it(distiset: Distiset, place: CacheFileSystem) -> None:
    distiset.save_to_disk(place.url)
    place.write_bytes("judge/train/state.json", b"{")
    with pytest.raises(DistisetError, match="Config `judge` can't be read from"):
        Distiset.load_from_disk(place.url)


def test_what_is_no_config_is_named(
    distiset: Distiset, place: CacheFileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    distiset.save_to_disk(place.url)
    place.write_bytes("notes/mine.txt", b"mine")
    with caplog.at_level(logging.WARNING):
        assert list(Distiset.load_from_disk(place.url)) == ["filtered", "generate", "judge"]
    assert "`notes`" in caplog.text
