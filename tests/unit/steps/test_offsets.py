"""Every generator step, started at any offset, gives the rows that are left, in any batch size."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.steps import (
    DataSampler,
    GeneratorStep,
    LoadDataFromDicts,
    LoadDataFromDisk,
    LoadDataFromFileSystem,
    LoadDataFromHub,
)
from distilabel_dagster.steps.generators.batching import iter_batches

ROWS = [{"n": n, "text": f"row {n}"} for n in range(13)]
PARTS = [ROWS[:4], [], ROWS[4:5], ROWS[5:]]


def write_files(extension: str, to_bytes: Callable[[list[dict[str, Any]]], bytes]) -> str:
    memory = fsspec.filesystem("memory")
    for number, part in enumerate(PARTS):
        memory.pipe(f"/offsets/{extension}/{number}.{extension}", to_bytes(part))
    return f"memory://offsets/{extension}"


def to_csv(rows: list[dict[str, Any]]) -> bytes:
    return b"n,text\n" + b"".join(f'{row["n"]},"{row["text"]}"\n'.encode() for row in rows)


def to_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    schema = pa.schema({"n": pa.int64(), "text": pa.string()})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, row_group_size=3)
    return bytes(sink.getvalue())


@pytest.fixture(scope="module")
def saved_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("saved") / "dataset")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(path)
    return path


class StreamedFromHub(LoadDataFromHub):
    """The dataset is in memory: only the network is left out."""

    def _load_dataset(self) -> Any:
        return datasets.Dataset.from_list(ROWS).to_iterable_dataset(num_shards=3)


GENERATORS: dict[str, Callable[..., GeneratorStep]] = {
    "dicts": lambda **fields: LoadDataFromDicts(data=ROWS, **fields),
    "sampler": lambda **fields: DataSampler(data=ROWS, samples=len(ROWS), **fields),
    "jsonl": lambda **fields: LoadDataFromFileSystem(
        data_files=write_files("jsonl", lambda rows: b"".join(json.dumps(r).encode() + b"\n" for r in rows)),
        **fields,
    ),
    "json": lambda **fields: LoadDataFromFileSystem(
        data_files=write_files("json", lambda rows: json.dumps(rows).encode()), **fields
    ),
    "csv": lambda **fields: LoadDataFromFileSystem(data_files=write_files("csv", to_csv), **fields),
    "parquet": lambda **fields: LoadDataFromFileSystem(
        data_files=write_files("parquet", to_parquet), **fields
    ),
    "first files": lambda **fields: LoadDataFromFileSystem(
        data_files=write_files("csv", to_csv), num_examples=7, **fields
    ),
    "hub": lambda **fields: StreamedFromHub(repo_id="owner/name", **fields),
}


def check(make: Callable[..., GeneratorStep], offset: int, batch_size: int) -> None:
    whole = make(batch_size=50)
    whole.load()
    expected = [row for rows, _ in whole.process() for row in rows]
    step = make(batch_size=batch_size)
    step.load()
    batches = list(step.process(offset=offset))
    assert [row for rows, _ in batches for row in rows] == expected[offset:]
    assert [last for _, last in batches] == [False] * (len(batches) - 1) + [True]
    assert all(len(rows) == batch_size for rows, last in batches if not last)
    assert len(batches[-1][0]) > 0 or len(batches) == 1


@pytest.mark.parametrize("name", GENERATORS)
@given(offset=st.integers(0, len(ROWS) + 2), batch_size=st.integers(1, len(ROWS) + 2))
def test_rows_from_the_offset_on(name: str, offset: int, batch_size: int) -> None:
    check(GENERATORS[name], offset, batch_size)


@given(offset=st.integers(0, len(ROWS) + 2), batch_size=st.integers(1, len(ROWS) + 2))
def test_rows_of_a_saved_dataset_from_the_offset_on(saved_dataset: str, offset: int, batch_size: int) -> None:
    check(lambda **fields: LoadDataFromDisk(dataset_path=saved_dataset, **fields), offset, batch_size)


def test_generators_give_the_rows_there_are() -> None:
    for name, make in GENERATORS.items():
        step = make(batch_size=50)
        step.load()
        rows = [row for batch, _ in step.process() for row in batch]
        if name == "sampler":
            assert len(rows) == len(ROWS)
        else:
            assert rows == (ROWS[:7] if name == "first files" else ROWS)


def test_batches_are_cut_lazily() -> None:
    taken = []

    def rows() -> Iterator[dict[str, Any]]:
        for n in range(100):
            taken.append(n)
            yield {"n": n}

    batches = iter_batches(rows(), 10)
    next(batches)
    assert len(taken) == 11
    assert len(next(iter_batches(rows(), None))[0]) == 50
