import datetime as dt
import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.errors import ColumnTypeError, DamagedFileError, DistisetError

WritePart = Callable[[CacheFileSystem, str, pa.Table], None]


def numbers(first: int, rows: int) -> pa.Table:
    return pa.table({"number": list(range(first, first + rows))})


@pytest.mark.parametrize("below", ["", "/data"])
def test_config_of_each_leaf_from_the_data_directory_or_the_one_above(
    pipeline_dir: CacheFileSystem, write_part: WritePart, below: str
) -> None:
    write_part(pipeline_dir, "data/generate/00001.parquet", pa.table({"text": ["a"]}))
    write_part(pipeline_dir, "data/judge/00001.parquet", pa.table({"score": [1, 2]}))
    pipeline_dir.write_bytes("pipeline.yaml", b"pipeline: {}\n")
    pipeline_dir.write_bytes("pipeline.log", b"said\n")
    distiset = create_distiset(pipeline_dir.url + below)
    assert {config: list(splits) for config, splits in distiset.items()} == {
        "generate": ["train"],
        "judge": ["train"],
    }
    assert distiset["judge"]["train"].to_list() == [{"score": 1}, {"score": 2}]
    assert str(distiset.pipeline_path) == pipeline_dir.full_path("pipeline.yaml")
    assert str(distiset.log_filename_path) == pipeline_dir.full_path("pipeline.log")


def test_files_of_the_pipeline_are_known_only_where_they_are(
    pipeline_dir: CacheFileSystem, write_part: WritePart
) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", numbers(0, 1))
    distiset = create_distiset(pipeline_dir.full_path("data"))
    assert distiset.pipeline_path is None
    assert distiset.log_filename_path is None


def test_files_of_the_pipeline_can_be_named(tmp_path: Path, write_part: WritePart) -> None:
    fs = CacheFileSystem(tmp_path)
    write_part(fs, "data/leaf/00001.parquet", numbers(0, 1))
    fs.write_bytes("elsewhere.yaml", b"pipeline: {}\n")
    assert (
        create_distiset(tmp_path, pipeline_path=tmp_path / "elsewhere.yaml").pipeline_path
        == tmp_path / "elsewhere.yaml"
    )
    with pytest.raises(DistisetError, match=r"nowhere\.yaml doesn't exist"):
        create_distiset(tmp_path, pipeline_path=tmp_path / "nowhere.yaml")


def test_home_is_expanded(tmp_path: Path, write_part: WritePart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_part(CacheFileSystem("~/cache"), "data/leaf/00001.parquet", numbers(0, 1))
    assert create_distiset(Path("~/cache/data")).pipeline_path is None
    assert (tmp_path / "cache").exists()


def test_parts_come_in_the_order_of_their_numbers(
    pipeline_dir: CacheFileSystem, write_part: WritePart
) -> None:
    for number in range(1, 13):
        write_part(pipeline_dir, f"data/leaf/{number:05d}.parquet", numbers(number * 10, 10))
    distiset = create_distiset(pipeline_dir.url)
    assert list(distiset["leaf"]["train"]["number"]) == list(range(10, 130))


def test_whole_name_of_the_directory_is_the_config(
    pipeline_dir: CacheFileSystem, write_part: WritePart
) -> None:
    write_part(pipeline_dir, "data/leaf.v1/00001.parquet", numbers(0, 1))
    write_part(pipeline_dir, "data/leaf.v2/00001.parquet", numbers(0, 2))
    distiset = create_distiset(pipeline_dir.url)
    assert {config: splits["train"].num_rows for config, splits in distiset.items()} == {
        "leaf.v1": 1,
        "leaf.v2": 2,
    }


@pytest.mark.parametrize("below", ["", "/data"])
def test_leaf_called_data_is_not_taken_for_the_directory(
    pipeline_dir: CacheFileSystem, write_part: WritePart, below: str
) -> None:
    write_part(pipeline_dir, "data/data/00001.parquet", numbers(0, 3))
    assert create_distiset(pipeline_dir.url + below)["data"]["train"].num_rows == 3


def test_columns_that_come_later_are_kept(pipeline_dir: CacheFileSystem, write_part: WritePart) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", pa.table({"b": ["x"], "note": pa.nulls(1), "n": [1]}))
    write_part(pipeline_dir, "data/leaf/00002.parquet", pa.table({"n": [0.5], "a": [b"y"], "note": ["late"]}))
    train = create_distiset(pipeline_dir.url)["leaf"]["train"]
    assert train.column_names == ["b", "note", "n", "a"]
    assert train.to_list() == [
        {"b": "x", "note": None, "n": 1.0, "a": None},
        {"b": None, "note": "late", "n": 0.5, "a": b"y"},
    ]


def test_fields_that_come_later_are_kept(pipeline_dir: CacheFileSystem, write_part: WritePart) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", pa.table({"s": [{"x": 1}], "l": [[{"k": None}]]}))
    write_part(
        pipeline_dir, "data/leaf/00002.parquet", pa.table({"s": [{"y": "b"}], "l": [[{"k": 1.5, "m": "c"}]]})
    )
    assert create_distiset(pipeline_dir.url)["leaf"]["train"].to_list() == [
        {"s": {"x": 1, "y": None}, "l": [{"k": None, "m": None}]},
        {"s": {"x": None, "y": "b"}, "l": [{"k": 1.5, "m": "c"}]},
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array(["text"]), pa.array([b"bytes"])),
        (pa.array([{"k": "text"}]), pa.array([{"k": b"bytes"}])),
        (pa.array(["text"]), pa.array([1])),
        (pa.array([2**53 + 1]), pa.array([0.5])),
    ],
)
def test_types_without_a_common_one_are_an_error(
    pipeline_dir: CacheFileSystem, write_part: WritePart, first: pa.Array, second: pa.Array
) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", pa.table({"answer": first}))
    write_part(pipeline_dir, "data/leaf/00002.parquet", pa.table({"answer": second}))
    with pytest.raises(ColumnTypeError, match=r"`leaf`.*`answer`"):
        create_distiset(pipeline_dir.url)


def test_type_that_datasets_do_not_know_is_an_error(
    pipeline_dir: CacheFileSystem, write_part: WritePart
) -> None:
    pairs = pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))
    write_part(pipeline_dir, "data/leaf/00001.parquet", pa.table({"fine": [1], "pairs": pairs, "last": [2]}))
    with pytest.raises(ColumnTypeError, match="Step `leaf`: column `pairs`"):
        create_distiset(pipeline_dir.url)


def test_values_survive(pipeline_dir: CacheFileSystem, write_part: WritePart) -> None:
    row = {
        "bytes": b"\x00\xff",
        "when": dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone.utc),
        "nested": [[1, 2], [], None],
        "none": None,
        "flag": True,
    }
    write_part(pipeline_dir, "data/leaf/00001.parquet", pa.Table.from_pylist([row]))
    assert create_distiset(pipeline_dir.url)["leaf"]["train"][0] == row


def test_metadata_column_goes_unless_it_is_asked_for(
    pipeline_dir: CacheFileSystem, write_part: WritePart
) -> None:
    table = pa.table({"a": [1], "distilabel_metadata": [{"x": "raw"}]})
    write_part(pipeline_dir, "data/first/00001.parquet", table)
    write_part(
        pipeline_dir, "data/second/00001.parquet", table.append_column("distilabel_metadata.x", [["y"]])
    )
    without = create_distiset(pipeline_dir.url)
    assert without["first"]["train"].column_names == ["a"]
    assert without["second"]["train"].to_list() == [{"a": 1, "distilabel_metadata.x": "y"}]
    kept = create_distiset(pipeline_dir.url, enable_metadata=True)
    assert kept["first"]["train"].to_list() == [{"a": 1, "distilabel_metadata": {"x": "raw"}}]


def test_leaf_without_rows_is_a_dataset_without_rows(
    pipeline_dir: CacheFileSystem, write_part: WritePart
) -> None:
    write_part(pipeline_dir, "data/filtered/00001.parquet", numbers(0, 0))
    write_part(pipeline_dir, "data/nothing/00001.parquet", pa.table({}))
    distiset = create_distiset(pipeline_dir.url)
    assert distiset["filtered"]["train"].num_rows == 0
    assert distiset["filtered"]["train"].column_names == ["number"]
    assert distiset["nothing"]["train"].num_rows == 0


def test_what_parts_say_of_themselves_is_dropped_and_features_stay(
    pipeline_dir: CacheFileSystem, write_part: WritePart
) -> None:
    features = Features({"label": ClassLabel(names=["no", "yes"])})
    labelled = Dataset.from_dict({"label": [1]}, features=features).data.table
    ours = {**(labelled.schema.metadata or {}), b"made_by": b"{}"}
    write_part(pipeline_dir, "data/leaf/00001.parquet", labelled.replace_schema_metadata(ours))
    write_part(pipeline_dir, "data/leaf/00002.parquet", pa.table({"label": [0], "more": ["x"]}))
    train = create_distiset(pipeline_dir.url)["leaf"]["train"]
    assert train.features["label"] == features["label"]
    assert train.column_names == ["label", "more"]
    assert set(train.data.schema.metadata) == {b"huggingface"}


def test_same_parts_have_the_same_fingerprint(pipeline_dir: CacheFileSystem, write_part: WritePart) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", numbers(0, 3))
    first, again = (create_distiset(pipeline_dir.url)["leaf"]["train"]._fingerprint for _ in range(2))
    write_part(pipeline_dir, "data/leaf/00001.parquet", numbers(1, 3))
    assert first == again != create_distiset(pipeline_dir.url)["leaf"]["train"]._fingerprint


def test_nothing_is_written(tmp_path: Path, write_part: WritePart) -> None:
    import datasets.config

    write_part(CacheFileSystem(tmp_path), "data/leaf/00001.parquet", numbers(0, 3))
    before = sorted(tmp_path.rglob("*"))
    train = create_distiset(tmp_path)["leaf"]["train"]
    assert train.cache_files == []
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path(datasets.config.HF_DATASETS_CACHE).exists()


def test_other_files_are_named_and_not_read(
    pipeline_dir: CacheFileSystem, write_part: WritePart, caplog: pytest.LogCaptureFixture
) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", numbers(0, 3))
    write_part(pipeline_dir, "data/leaf/extra.parquet", numbers(100, 3))
    write_part(pipeline_dir, "data/leaf/00002.parquet.set-aside", numbers(200, 3))
    pipeline_dir.write_bytes("data/notes.txt", b"mine")
    pipeline_dir.write_bytes("data/unfinished/thoughts.txt", b"mine")
    with caplog.at_level(logging.WARNING):
        distiset = create_distiset(pipeline_dir.url)
    assert {config: splits["train"].num_rows for config, splits in distiset.items()} == {"leaf": 3}
    assert all(
        name in caplog.text
        for name in ("`extra.parquet`", "`00002.parquet.set-aside`", "`notes.txt`", "`unfinished`")
    )


def test_hidden_files_are_passed_over_in_silence(
    pipeline_dir: CacheFileSystem, write_part: WritePart, caplog: pytest.LogCaptureFixture
) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", numbers(0, 3))
    pipeline_dir.write_bytes("data/leaf/.00002.parquet.123-4.tmp", b"half a")
    pipeline_dir.write_bytes("data/.hidden/00001.parquet", b"half a")
    with caplog.at_level(logging.WARNING):
        assert create_distiset(pipeline_dir.url)["leaf"]["train"].num_rows == 3
    assert caplog.text == ""


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not parquet at all, by any means", None])
def test_damaged_part_is_never_skipped(
    pipeline_dir: CacheFileSystem, write_part: WritePart, damage: bytes | None
) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", numbers(0, 3))
    write_part(pipeline_dir, "data/leaf/00002.parquet", numbers(3, 3))
    whole = pipeline_dir.read_bytes("data/leaf/00002.parquet")
    pipeline_dir.write_bytes("data/leaf/00002.parquet", whole[:-20] if damage is None else damage)
    with pytest.raises(
        DamagedFileError, match=r"data/leaf/00002\.parquet can't be read as Parquet"
    ) as caught:
        create_distiset(pipeline_dir.url)
    assert caught.value.path == pipeline_dir.full_path("data/leaf/00002.parquet")


def test_missing_part_is_an_error(pipeline_dir: CacheFileSystem, write_part: WritePart) -> None:
    write_part(pipeline_dir, "data/leaf/00001.parquet", numbers(0, 3))
    write_part(pipeline_dir, "data/leaf/00003.parquet", numbers(6, 3))
    with pytest.raises(DistisetError, match=r"expected 00002\.parquet, found 00003\.parquet next"):
        create_distiset(pipeline_dir.url)


def test_directory_that_is_not_there_is_an_error(pipeline_dir: CacheFileSystem) -> None:
    with pytest.raises(DistisetError, match="doesn't exist, so no Distiset can be made of it"):
        create_distiset(pipeline_dir.url)


def test_pipeline_without_rows_is_an_error(pipeline_dir: CacheFileSystem) -> None:
    pipeline_dir.write_bytes("pipeline.yaml", b"pipeline: {}\n")
    with pytest.raises(DistisetError, match=r"holds no rows of a leaf step: .*run the pipeline first"):
        create_distiset(pipeline_dir.url)


def test_directories_one_off_are_told_apart(pipeline_dir: CacheFileSystem, write_part: WritePart) -> None:
    signature = "73ca3f6b7a613fb9694db7631cc038d379f1f533"
    write_part(pipeline_dir, f"{signature}/data/leaf/00001.parquet", numbers(0, 3))
    with pytest.raises(DistisetError, match=f"cache of several pipelines: give .*/{signature}"):
        create_distiset(pipeline_dir.url)
    with pytest.raises(DistisetError, match="a leaf step's own directory: give the one above it"):
        create_distiset(pipeline_dir.full_path(f"{signature}/data/leaf"))
