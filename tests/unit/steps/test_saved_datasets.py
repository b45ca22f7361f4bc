"""LoadDataFromDisk: datasets and Distisets that `save_to_disk` wrote."""

import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.batch import Rows
from distilabel_dagster.errors import PipelineDefinitionError, StepLoadError, StepProcessError
from distilabel_dagster.steps import LoadDataFromDisk

ROWS = [{"n": n, "deep": {"list": [n]}} for n in range(5)]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def save(path: Path, rows: list[dict[str, Any]] = ROWS, *splits: str) -> Path:
    dataset = datasets.Dataset.from_list(rows)
    saved = datasets.DatasetDict(dict.fromkeys(splits, dataset)) if splits else dataset
    saved.save_to_disk(str(path))
    return path


def read_all(path: Path, offset: int = 0, **fields: Any) -> list[dict[str, Any]]:
    step = LoadDataFromDisk(name="load", dataset_path=path, **fields)
    assert step.outputs == list(ROWS[0])
    step.load()
    rows = [row for batch, _ in step.process(offset=offset) for row in batch]
    step.unload()
    return rows


def test_dataset_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "saved")
    assert read_all(path) == ROWS
    assert read_all(path, offset=3, batch_size=1) == ROWS[3:]
    assert read_all(path, num_examples=3, offset=1) == ROWS[1:3]
    assert read_all(path, num_examples=99, keep_in_memory=True) == ROWS
    step = LoadDataFromDisk(name="load", dataset_path=path, batch_size=2)
    assert [(len(rows), last) for rows, last in step.process()] == [(2, False), (2, False), (1, True)]


def test_split_is_chosen(tmp_path: Path) -> None:
    assert read_all(save(tmp_path / "one", ROWS, "train")) == ROWS
    two = save(tmp_path / "two", ROWS, "train", "test")
    assert read_all(two, split="test") == ROWS
    with pytest.raises(PipelineDefinitionError, match=r"several splits.* `split`, one of: `test`, `train`"):
        read_all(two)
    with pytest.raises(PipelineDefinitionError, match=r"no split `dev`"):
        read_all(two, split="dev")


def test_configuration_of_a_distiset_is_chosen(tmp_path: Path) -> None:
    save(tmp_path / "leaf_a", ROWS, "train")
    (tmp_path / "distiset_configs").mkdir()
    (tmp_path / "artifacts").mkdir()
    assert read_all(tmp_path, is_distiset=True) == ROWS
    save(tmp_path / "leaf_b", ROWS[:2], "train")
    assert read_all(tmp_path, is_distiset=True, config="leaf_b", split="train") == ROWS[:2]
    for config in ("default", "leaf_c", None):
        with pytest.raises(PipelineDefinitionError, match=r"`config`, one of: `leaf_a`, `leaf_b`"):
            read_all(tmp_path, is_distiset=True, config=config)
    with pytest.raises(PipelineDefinitionError, match="pass `is_distiset=True`"):
        read_all(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    step = LoadDataFromDisk(name="load", dataset_path=tmp_path / "none")
    for act in (lambda: step.outputs, step.data_fingerprint, step.load):
        with pytest.raises(
            PipelineDefinitionError, match=r"Step `load` can't find .*none`: there is no such dir"
        ):
            act()
    assert LoadDataFromDisk(name="load").outputs == []
    assert LoadDataFromDisk(name="load").data_fingerprint() is None
    assert LoadDataFromDisk(name="load").missing_runtime_parameters() == ["dataset_path"]
    with pytest.raises(PipelineDefinitionError, match="no `dataset_path`"):
        LoadDataFromDisk(name="load").load()


def test_damaged_dataset_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "saved")
    next(path.glob("*.arrow")).write_bytes(b"torn")
    with pytest.raises(StepLoadError, match=r"Step `load` can't load the dataset in .*saved"):
        LoadDataFromDisk(name="load", dataset_path=path).load()


def test_changed_files_change_the_signature(tmp_path: Path) -> None:
    path = save(tmp_path / "saved")

    def signature() -> str:
        return compute_signature(describe_identity(LoadDataFromDisk(name="load", dataset_path=path)))

    before = signature()
    assert signature() == before
    os.utime(next(path.glob("*.arrow")), (1, 1))
    assert signature() != before


def test_values_stay_plain(tmp_path: Path) -> None:
    features = datasets.Features(
        {"label": datasets.ClassLabel(names=["no", "yes"]), "raw": datasets.Value("binary")}
    )
    rows = [{"label": 1, "raw": b"png"}]
    datasets.Dataset.from_list(rows, features=features).with_format("numpy").save_to_disk(
        str(tmp_path / "saved")
    )
    step = LoadDataFromDisk(dataset_path=tmp_path / "saved")
    assert list(step.process()) == [(rows, True)]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_what_stands_before_damage_is_given_either_way(tmp_path: Path, batch_size: int) -> None:
    texts = pa.array([b"fine"] * 7 + [b"\xff"] + [b"fine"] * 5).view(pa.string())
    datasets.Dataset(pa.table({"text": texts})).save_to_disk(str(tmp_path / "saved"))
    step = LoadDataFromDisk(name="load", dataset_path=tmp_path / "saved", batch_size=batch_size)
    given: list[list[tuple[Rows, bool]]] = [[], []]
    for found, way in zip(given, (step.process, step.process_tables), strict=True):
        with pytest.raises(StepProcessError, match=r"Step `load` can't go on reading the dataset .*utf-8"):
            found.extend((list(rows), last) for rows, last in way())
    assert given[0] == given[1]
    readable = 7 // batch_size  # batches, of which the last is held back for the row that follows
    assert sum(len(rows) for rows, _ in given[0]) == max(0, readable - 1) * batch_size


def test_a_dataset_comes_as_tables(tmp_path: Path) -> None:
    step = LoadDataFromDisk(dataset_path=save(tmp_path / "saved"), batch_size=2, num_examples=4)
    tables = list(step.process_tables(offset=1))
    assert [(type(table), len(table), last) for table, last in tables] == [
        (pa.Table, 2, False),
        (pa.Table, 1, True),
    ]
    assert [row for table, _ in tables for row in table.to_pylist()] == ROWS[1:4]
