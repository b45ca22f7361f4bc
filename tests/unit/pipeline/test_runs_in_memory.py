"""`dataset=`, `dry_run` and what a run leaves of the declaration; no file is written here."""

import datetime as dt
import threading
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from distilabel_dagster.errors import PipelineDefinitionError, StepProcessError
from distilabel_dagster.mixins.runtime_parameters import RuntimeParameter
from distilabel_dagster.pipeline import Pipeline, sample_n_steps
from distilabel_dagster.steps import (
    CombineOutputs,
    GlobalStep,
    LoadDataFromDicts,
    Step,
    StepInput,
    StepOutput,
)


class Note(Step):
    """Keeps what it got."""

    batches: ClassVar[list[list[dict[str, Any]]]] = []

    def process(self, inputs: StepInput) -> Any:
        self.batches.append([dict(row) for row in inputs])
        if any(row.get("id") == "bad" for row in inputs):
            raise ValueError("bad row")
        yield inputs


class All(GlobalStep):
    def process(self, inputs: StepInput) -> Any:
        yield inputs


@pytest.fixture(autouse=True)
def forget() -> None:
    Note.batches = []


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "never_made"
    monkeypatch.setenv("DISTILABEL_CACHE_DIR", str(cache))
    return cache


def build(rows: int | None = None, **options: Any) -> Pipeline:
    with Pipeline("in_memory", **options) as pipeline:
        note = Note(name="note", input_batch_size=4)
        note >> All(name="all")
        if rows is not None:
            (
                LoadDataFromDicts(name="load", data=[{"id": number} for number in range(rows)], batch_size=7)
                >> note
            )
    return pipeline


def test_a_dry_run_takes_one_batch_and_touches_no_cache(no_cache: Path, tmp_path: Path) -> None:
    MemoryFileSystem.store.clear()
    pipeline = build(20, ledger_url=f"sqlite:///{tmp_path}/ledger.sqlite")
    before = (
        pipeline.dump(),
        pipeline.signature,
        pipeline.cache_dir,
        pipeline.storage_options,
        pipeline.ledger_url,
    )
    distiset = pipeline.dry_run()
    assert distiset["all"]["train"].to_list() == [{"id": 0}]
    assert Note.batches == [[{"id": 0}]]
    assert not no_cache.exists()
    assert not (tmp_path / "ledger.sqlite").exists()
    assert not MemoryFileSystem.store
    after = (
        pipeline.dump(),
        pipeline.signature,
        pipeline.cache_dir,
        pipeline.storage_options,
        pipeline.ledger_url,
    )
    assert after == before
    assert pipeline.dry_run(batch_size=5)["all"]["train"]["id"] == [0, 1, 2, 3, 4]


def test_a_dry_run_that_fails_says_why_and_leaves_nothing(no_cache: Path) -> None:
    MemoryFileSystem.store.clear()
    pipeline = build()
    with pytest.raises(StepProcessError, match=r"Step `note` failed on batch 0.*bad row"):
        pipeline.dry_run(dataset=[{"id": "bad"}])
    assert not MemoryFileSystem.store
    assert not no_cache.exists()
    assert list(pipeline.dag.steps) == ["note", "all"]


def test_a_dry_run_of_routed_steps(no_cache: Path) -> None:
    with Pipeline("routed") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"id": number} for number in range(9)], batch_size=6)
        branches = [Note(name=name, input_batch_size=3) for name in ("x", "y")]
        load >> sample_n_steps(1) >> branches >> CombineOutputs(name="join", input_batch_size=2)
    for batch_size in (1, 4):
        rows = pipeline.dry_run(batch_size=batch_size)["join"]["train"]
        assert rows["id"] == list(range(batch_size))
    assert [pipeline.dag.steps[name].input_batch_size for name in ("x", "y", "join")] == [3, 3, 2]  # type: ignore[attr-defined]  # ordinary steps


def _as_pandas(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows, index=range(10, 10 + len(rows)))


def _as_dataset(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


def _as_arrow(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows)


ROWS: list[dict[str, Any]] = [
    {
        "id": number,
        "text": None if number == 2 else f"t{number}",
        "at": dt.datetime.fromisoformat("2024-01-02"),
    }
    for number in range(6)
]


@pytest.mark.parametrize("convert", [list, _as_pandas, _as_dataset, _as_arrow])
def test_a_run_starts_from_a_dataset(convert: Any, tmp_path: Path) -> None:
    pipeline = build(cache_dir=tmp_path)
    first = pipeline.run(dataset=convert(ROWS), dataset_batch_size=2)
    assert first["all"]["train"].to_list() == ROWS
    assert list(pipeline.dag.steps) == ["note", "all"], "the dataset counts for one run"
    batches = list(Note.batches)
    assert pipeline.run(dataset=convert(ROWS))["all"]["train"].to_list() == ROWS
    assert Note.batches == batches, "equal rows resume, whatever the batch size"
    assert pipeline.run(dataset=ROWS[:3])["all"]["train"].num_rows == 3


def test_equal_rows_are_one_pipeline_whatever_they_come_in(tmp_path: Path) -> None:
    pipeline = build(cache_dir=tmp_path)
    for convert in (list, _as_pandas, _as_dataset, _as_arrow):
        pipeline.run(dataset=convert(ROWS))
    assert len(list(tmp_path.glob("*/pipeline.yaml"))) == 1


def test_a_dataset_beside_a_generator_is_refused(no_cache: Path) -> None:
    pipeline = build(3)
    for call in (pipeline.run, pipeline.dry_run):
        with pytest.raises(
            PipelineDefinitionError, match=r"has the generator step `load`, so it can't start from"
        ):
            call(dataset=[{"id": 1}])
    assert Note.batches == []
    assert not no_cache.exists()


def test_what_is_no_dataset_is_told(no_cache: Path) -> None:
    from datasets import Dataset, DatasetDict

    several = DatasetDict({"train": Dataset.from_list([{"id": 1}])})
    for dataset in ({"id": [1]}, "rows.csv", 3, several):
        with pytest.raises(PipelineDefinitionError, match=type(dataset).__name__):
            build().run(dataset=dataset)
    assert not no_cache.exists()


def test_without_rows_a_run_is_refused_before_any_work(no_cache: Path) -> None:
    with pytest.raises(PipelineDefinitionError, match=r"Step `note` has no predecessor.*run\(dataset="):
        build().run()
    assert not no_cache.exists()


def test_parameters_of_a_run_are_put_back(tmp_path: Path) -> None:
    pipeline = build(6, cache_dir=tmp_path)
    before = pipeline.dump()
    pipeline.run(parameters={"note": {"input_batch_size": 3}})
    assert [len(batch) for batch in Note.batches] == [3, 3]
    assert pipeline.dump() == before


def test_runs_of_one_pipeline_in_two_threads_take_turns() -> None:
    """Each run's parameters are set on the steps, so rows of one would get the other's."""
    with Pipeline("turns", cache_dir=f"memory://{uuid.uuid4().hex}") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"id": number} for number in range(1, 9)])
        load >> Multiplies(name="work", input_batch_size=2)
    found: dict[int, list[int]] = {}

    def run(factor: int) -> None:
        distiset = pipeline.run(parameters={"work": {"factor": factor}})
        found[factor] = [row["made"] // row["id"] for row in distiset["work"]["train"]]

    threads = [threading.Thread(target=run, args=(factor,)) for factor in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {2: [2] * 8, 3: [3] * 8}


class Multiplies(Step):
    factor: RuntimeParameter[int] = 1

    @property
    def outputs(self) -> list[str]:
        return ["made"]

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(0.02)
        yield [{**row, "made": row["id"] * self.factor} for row in inputs]
