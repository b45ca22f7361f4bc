"""Rows that are only looked through are refused as those that are loaded, and their Distiset is one like any other."""

import copy
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import Distiset, committed
from distilabel_dagster.distiset.committed import CommittedDistiset, check_rows, is_plain_type
from distilabel_dagster.distiset.loading import load_dataset
from distilabel_dagster.errors import ColumnTypeError, DamagedFileError, DistisetError

PLAIN = [
    *(
        pa.int8(),
        pa.int64(),
        pa.uint8(),
        pa.uint64(),
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.bool_(),
        pa.null(),
    ),
    *(
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.date32(),
        pa.date64(),
        pa.duration("us"),
    ),
    *(pa.time32("s"), pa.time64("ns"), pa.timestamp("us"), pa.timestamp("ns", tz="UTC")),
    *(
        pa.list_(pa.int64()),
        pa.large_list(pa.string()),
        pa.list_(pa.float32(), 3),
        pa.struct([("a", pa.string())]),
    ),
    pa.list_(pa.struct([("role", pa.string()), ("parts", pa.list_(pa.struct([("text", pa.string())])))])),
]
OTHERS = [
    *(pa.map_(pa.string(), pa.int64()), pa.month_day_nano_interval(), pa.decimal128(5, 2), pa.string_view()),
    *(
        pa.dictionary(pa.int32(), pa.string()),
        pa.timestamp("us", tz="+01:00"),
        pa.list_(pa.map_(pa.string(), pa.int64())),
    ),
    *(pa.uuid(), pa.json_()),
]


@pytest.mark.parametrize("kind", PLAIN, ids=str)
def test_datasets_takes_plain_types_as_they_are(kind: pa.DataType) -> None:
    assert is_plain_type(kind)
    table = pa.table({"x": pa.nulls(2, kind)})
    assert datasets.Dataset(datasets.table.InMemoryTable(table)).data.schema.field("x").type == kind


@pytest.mark.parametrize("kind", OTHERS, ids=str)
def test_other_types_are_left_to_datasets(kind: pa.DataType) -> None:
    assert not is_plain_type(kind)


@pytest.fixture
def fs(tmp_path: Path) -> CacheFileSystem:
    return CacheFileSystem(tmp_path)


def write(fs: CacheFileSystem, *tables: pa.Table) -> None:
    for number, table in enumerate(tables, start=1):
        sink = io.BytesIO()
        pq.write_table(table, sink)
        fs.write_bytes(f"leaf/{number:05}.parquet", sink.getvalue())


def described(path: str, **features: Any) -> pa.Table:
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": None, "path": path}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            )
        }
    )
    info = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": info})


def test_rows_are_counted_without_loading_them(fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        fs,
        pa.table({"a": [1, 2], "distilabel_metadata": ["x", "y"]}),
        pa.table({"a": [3], "distilabel_metadata": ["z"]}),
    )
    monkeypatch.setattr(committed, "load_dataset", pytest.fail)
    rows = check_rows(fs, "leaf", "leaf")
    monkeypatch.undo()
    assert (rows.num_rows, rows.column_names) == (3, ("a", "distilabel_metadata"))
    for enable_metadata in (True, False):
        loaded = rows.load(enable_metadata=enable_metadata)
        assert loaded.num_rows == 3
        assert loaded.column_names == rows.name_columns(enable_metadata=enable_metadata)


def test_parts_with_different_columns_are_told_as_they_load(fs: CacheFileSystem) -> None:
    write(fs, pa.table({"a": [1]}), pa.table({"a": [2], "b": ["x"]}))
    rows = check_rows(fs, "leaf", "leaf")
    loaded = load_dataset(fs, "leaf", "leaf")
    assert (
        (rows.num_rows, list(rows.column_names)) == (loaded.num_rows, loaded.column_names) == (2, ["a", "b"])
    )


def break_a_part(fs: CacheFileSystem) -> None:
    write(fs, pa.table({"a": [1]}), pa.table({"a": [2]}))
    content = fs.read_bytes("leaf/00002.parquet")
    fs.write_bytes("leaf/00002.parquet", content[: len(content) // 2])


def leave_a_part_out(fs: CacheFileSystem) -> None:
    write(fs, pa.table({"a": [1]}), pa.table({"a": [2]}), pa.table({"a": [3]}))
    fs.remove("leaf/00002.parquet")


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (break_a_part, DamagedFileError),
        (leave_a_part_out, DistisetError),
        (lambda fs: write(fs, described("/etc/passwd", image={"_type": "Image"})), DistisetError),
        (
            lambda fs: write(fs, pa.table({"a": pa.nulls(1, pa.map_(pa.string(), pa.int64()))})),
            ColumnTypeError,
        ),
        (lambda fs: write(fs, pa.table({"a": ["x"]}), pa.table({"a": [{"b": 1}]})), ColumnTypeError),
    ],
    ids=["damaged", "missing", "files elsewhere", "unknown type", "no common type"],
)
def test_what_cannot_be_loaded_is_refused_in_the_same_words(
    prepare: Callable[[CacheFileSystem], None], error: type[Exception], fs: CacheFileSystem
) -> None:
    prepare(fs)
    told = []
    for read in (load_dataset, check_rows):
        with pytest.raises(error) as raised:
            read(fs, "leaf", "leaf")
        told.append((type(raised.value), str(raised.value)))
    assert told[0] == told[1]


LOOKS: dict[str, Callable[[Distiset], Any]] = {
    "item": lambda distiset: distiset["leaf"]["train"].to_list(),
    "default": lambda distiset: distiset["default"]["train"].to_list(),
    "get": lambda distiset: distiset.get("leaf")["train"].to_list(),
    "contains": lambda distiset: ("leaf" in distiset, "default" in distiset, "other" in distiset),
    "length": lambda distiset: (len(distiset), bool(distiset)),
    "iteration": list,
    "items": lambda distiset: [(name, splits["train"].to_list()) for name, splits in distiset.items()],
    "as a dict": lambda distiset: {name: list(splits) for name, splits in dict(distiset).items()},
    "unpacked": lambda distiset: list({**distiset}),
    "text": repr,
    "pickled": lambda distiset: pickle.loads(pickle.dumps(distiset))["leaf"]["train"].to_list(),
    "copied": lambda distiset: (
        type(copy.copy(distiset)).__name__ == "Distiset",
        list(copy.copy(distiset)),
    ),
    "split": lambda distiset: list(distiset.train_test_split(0.5)["leaf"]),
    "popped": lambda distiset: (distiset.pop("leaf")["train"].num_rows, len(distiset)),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_its_distiset_is_like_any_other_however_it_is_looked_at(
    look: Callable[[Distiset], Any], fs: CacheFileSystem
) -> None:
    write(fs, pa.table({"a": [1, 2], "distilabel_metadata": ["x", "y"]}))
    plain = Distiset({"leaf": datasets.DatasetDict({"train": load_dataset(fs, "leaf", "leaf", False)})})
    made = CommittedDistiset(
        {"leaf": check_rows(fs, "leaf", "leaf")}, enable_metadata=False, pipeline_path="pipeline.yaml"
    )
    assert made.pipeline_path == "pipeline.yaml"
    assert look(made) == look(plain)


def test_a_distiset_that_could_not_be_read_is_read_at_the_next_look(fs: CacheFileSystem) -> None:
    write(fs, pa.table({"a": [1]}))
    made = CommittedDistiset({"leaf": check_rows(fs, "leaf", "leaf")}, enable_metadata=False)
    content = fs.read_bytes("leaf/00001.parquet")
    fs.write_bytes("leaf/00001.parquet", content[:20])
    with pytest.raises(DamagedFileError):
        made["leaf"]
    fs.write_bytes("leaf/00001.parquet", content)
    assert made["leaf"]["train"].to_list() == [{"a": 1}]
