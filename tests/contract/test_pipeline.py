"""A whole pipeline on each kind of store: run, stopped and run again."""

import re
from pathlib import Path

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.engine.events import RunFinished, RunStarted, StepFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts, Step, StepInput, step
from tests.contract.conftest import Place

CALLS: list[str] = []


@step(inputs=["id"], outputs=["text"])
def write(inputs: StepInput):
    CALLS.extend(f"write {row['id']}" for row in inputs)
    yield [{**row, "text": f"t{row['id']}"} for row in inputs]


@step(inputs=["text"], outputs=["long"])
def lengthen(inputs: StepInput):
    CALLS.extend(f"lengthen {row['id']}" for row in inputs)
    yield [{**row, "long": row["text"] * 2} for row in inputs if row["id"] != 4]


def build(place: Place, rows: int = 10) -> Pipeline:
    with Pipeline("everywhere", cache_dir=place.url, storage_options=place.storage_options) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"id": number} for number in range(rows)], batch_size=4)
        write_step = write(name="write", input_batch_size=3)
        (
            load
            >> write_step
            >> [lengthen(name="lengthen", input_batch_size=2), Half(name="half", input_batch_size=4)]
        )
    return pipeline


class Half(Step):
    def process(self, inputs: StepInput):
        yield [{"id": row["id"], "half": row["id"] / 2} for row in inputs]


def expected_rows(rows: int = 10) -> dict[str, list[dict[str, object]]]:
    ids = range(rows)
    return {
        "lengthen": [{"id": i, "text": f"t{i}", "long": f"t{i}t{i}"} for i in ids if i != 4],
        "half": [{"id": i, "half": i / 2} for i in ids],
    }


@pytest.fixture(autouse=True)
def count_calls() -> None:
    CALLS.clear()


def test_a_pipeline_runs_and_runs_again(place: Place) -> None:
    pipeline = build(place)
    first = pipeline.run()
    assert {leaf: first[leaf]["train"].to_list() for leaf in first} == expected_rows()
    signatures = pipeline.step_signatures
    in_steps = [f"steps_data/{name}_{signature}" for name, signature in signatures.items()]
    files = {
        re.sub(r"\d{5}\.parquet$", "00001.parquet", path)  # how many parts there are is a matter of time
        for path in place.files()
        if not path.startswith("ledger.sqlite")
    }
    assert files == {
        *(f"{pipeline.signature}/{name}" for name in ("pipeline.yaml", "pipeline.log", "batch_manager.json")),
        *(f"{pipeline.signature}/batch_manager_steps/{name}.json" for name in ("write", "lengthen", "half")),
        *(f"{pipeline.signature}/data/{name}/00001.parquet" for name in ("lengthen", "half")),
        *(f"{path}/{name}" for path in in_steps for name in ("00001.parquet", "complete.json")),
    }

    calls = list(CALLS)
    events = list(build(place).iter_run())
    assert isinstance(events[0], RunStarted)
    assert str(events[0]).startswith("Load pipeline from cache; done: ")
    assert isinstance(events[-1], RunFinished)
    assert events[-1].batches_computed == 0
    again = build(place).run()
    assert calls == CALLS
    assert {leaf: again[leaf]["train"].to_list() for leaf in again} == expected_rows()

    for path in (pipeline.open_cache().data_url, pipeline.open_cache().data_url.rpartition("/")[0]):
        distiset = create_distiset(path, storage_options=place.storage_options)
        assert {leaf: distiset[leaf]["train"].to_list() for leaf in distiset} == expected_rows()


def test_a_run_that_was_broken_off_goes_on(place: Place) -> None:
    pipeline = build(place)
    events = pipeline.iter_run(RunOptions(max_rows_ahead=1))
    for event in events:
        if isinstance(event, StepFinished):
            break
    events.close()  # type: ignore[attr-defined]  # it's a generator
    before = list(CALLS)
    distiset = build(place).run()
    assert {leaf: distiset[leaf]["train"].to_list() for leaf in distiset} == expected_rows()
    assert len(CALLS) == len(set(CALLS)) == 20
    assert CALLS[: len(before)] == before


def test_a_damaged_part_is_set_aside_and_its_rows_are_computed_again(place: Place) -> None:
    pipeline = build(place)
    pipeline.run()
    fs = place.open()
    part = f"steps_data/write_{pipeline.step_signatures['write']}/00001.parquet"
    fs.write_bytes(part, fs.read_bytes(part)[:-30])
    distiset = build(place).run()
    assert {leaf: distiset[leaf]["train"].to_list() for leaf in distiset} == expected_rows()
    assert f"{part}.set-aside" in place.files()


def test_cache_dir_comes_before_the_environment_before_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DISTILABEL_CACHE_DIR", "~/of_environment")

    def place_of(cache_dir: str | Path | None) -> Path:
        pipeline = Pipeline("places", cache_dir=cache_dir)
        LoadDataFromDicts(name="load", data=[{"a": 1}], pipeline=pipeline)
        pipeline.run()
        (found,) = [path.parents[1] for path in tmp_path.rglob("pipeline.yaml")]
        for path in sorted(found.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        return found.relative_to(tmp_path)

    assert place_of("~/given") == Path("home/given")
    assert place_of(tmp_path / "as a path") == Path("as a path")
    assert place_of(None) == Path("home/of_environment")
    monkeypatch.delenv("DISTILABEL_CACHE_DIR")
    assert place_of(None) == Path("home/.cache/distilabel/pipelines")


def test_the_memory_store_is_one_for_the_process() -> None:
    CacheFileSystem("memory://shared-by-all").write_bytes("x", b"1")
    assert CacheFileSystem("memory://shared-by-all").read_bytes("x") == b"1"
    CacheFileSystem("memory://shared-by-all").remove_all()
