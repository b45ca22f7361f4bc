"""Looking through a cache for damage, and repairing it, on each kind of store."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.findings import Verification
from distilabel_dagster.cache.verification import verify_cache
from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.pipeline import Pipeline
from tests.contract.conftest import Place
from tests.contract.test_pipeline import build, expected_rows


@pytest.fixture
def pipeline(place: Place) -> Pipeline:
    """A pipeline that has been run."""
    made = build(place)
    made.run()
    return made


@contextmanager
def nobody_else(_: list[str]) -> Iterator[None]:
    yield None


def told(result: Verification) -> list[tuple[str, str, str, bool]]:
    return [
        (each.kind, each.severity, each.path.rpartition("/")[2], each.is_repaired) for each in result.findings
    ]


def rows_of(pipeline: Pipeline) -> dict[str, list[dict[str, Any]]]:
    distiset = pipeline.run()
    return {leaf: distiset[leaf]["train"].to_list() for leaf in distiset}


def step_file(pipeline: Pipeline, step: str, name: str) -> str:
    return f"steps_data/{step}_{pipeline.step_signatures[step]}/{name}"


def last_part(fs: CacheFileSystem, pipeline: Pipeline, step: str) -> str:
    names = fs.list_names(step_file(pipeline, step, "").rstrip("/"))
    return step_file(pipeline, step, max(name for name in names if name.endswith(".parquet")))


def flip(fs: CacheFileSystem, path: str, at: int = 40) -> None:
    content = bytearray(fs.read_bytes(path))
    content[at] ^= 4
    fs.write_bytes(path, bytes(content))


def test_a_whole_cache_is_found_whole(fs: CacheFileSystem, pipeline: Pipeline, place: Place) -> None:
    before = place.files()
    result = verify_cache(fs)
    assert result.findings == []
    assert (result.pipelines, result.steps, result.rows) == (1, 4, 10 + 10 + 9 + 10)
    assert result.parts == sum("steps_data" in path and path.endswith(".parquet") for path in before)
    assert verify_cache(fs, lease=nobody_else).findings == []
    assert place.files() == before


def test_a_half_finished_pipeline_is_not_damaged(fs: CacheFileSystem, place: Place) -> None:
    list(build(place).iter_run(RunOptions(), steps=["load"]))
    assert verify_cache(fs).damage == []


DAMAGES: dict[str, tuple[Callable[[CacheFileSystem, Pipeline], None], tuple[str, str, str]]] = {
    "rows of a part": (
        lambda fs, pipeline: flip(fs, step_file(pipeline, "write", "00001.parquet")),
        ("part", "damage", "00001.parquet"),
    ),
    "a missing part": (
        lambda fs, pipeline: fs.remove(step_file(pipeline, "write", "00001.parquet")),
        ("marker", "damage", "complete.json"),
    ),
    "a marker that lies": (
        lambda fs, pipeline: fs.write_bytes(step_file(pipeline, "write", "complete.json"), b'{"rows": 1}'),
        ("marker", "damage", "complete.json"),
    ),
    "a marker too many": (
        lambda fs, pipeline: fs.remove(last_part(fs, pipeline, "lengthen")),
        ("marker", "damage", "complete.json"),
    ),
    "another part shown": (
        lambda fs, pipeline: fs.write_bytes(f"{pipeline.signature}/data/half/00001.parquet", b"PAR1"),
        ("shown part", "damage", "00001.parquet"),
    ),
    "a part that isn't shown": (
        lambda fs, pipeline: fs.remove(f"{pipeline.signature}/data/half/00001.parquet"),
        ("shown part", "damage", "00001.parquet"),
    ),
    "a snapshot of another step": (
        lambda fs, pipeline: fs.write_bytes(
            f"{pipeline.signature}/batch_manager_steps/half.json",
            fs.read_bytes(f"{pipeline.signature}/batch_manager_steps/write.json"),
        ),
        ("snapshot", "damage", "half.json"),
    ),
    "a snapshot that's no JSON": (
        lambda fs, pipeline: fs.write_bytes(f"{pipeline.signature}/batch_manager.json", b"{"),
        ("snapshot", "damage", "batch_manager.json"),
    ),
    "a pipeline file that's none": (
        lambda fs, pipeline: fs.write_bytes(f"{pipeline.signature}/pipeline.yaml", b"pipeline: ["),
        ("pipeline file", "damage", "pipeline.yaml"),
    ),
}


TOGETHER = (
    (
        "rows of a part",
        "a marker that lies",
        "another part shown",
        "a snapshot of another step",
        "a snapshot that's no JSON",
    ),
    ("a missing part", "a marker too many", "a part that isn't shown", "a pipeline file that's none"),
)


@pytest.mark.parametrize("damages", TOGETHER, ids=("changed", "missing"))
def test_damage_is_found_repaired_and_made_good(
    fs: CacheFileSystem, pipeline: Pipeline, place: Place, damages: tuple[str, ...]
) -> None:
    for damage in damages:
        DAMAGES[damage][0](fs, pipeline)
    expected = {DAMAGES[damage][1] for damage in damages}
    if "a pipeline file that's none" in damages:  # so nothing can be said of what it shows
        expected -= {DAMAGES["a part that isn't shown"][1]}
    before = place.files()
    assert {(*each, False) for each in expected} <= set(told(verify_cache(fs)))
    assert place.files() == before, "a look changes nothing"

    repaired = verify_cache(fs, lease=nobody_else)
    assert {(*each, True) for each in expected} <= set(told(repaired))
    assert repaired.damage == []
    assert verify_cache(fs).damage == []
    after = place.files()
    verify_cache(fs, lease=nobody_else)
    assert place.files() == after, "a second repair has nothing to do"

    assert rows_of(build(place)) == expected_rows()
    assert verify_cache(fs).damage == []
    shown = create_distiset(f"{place.url}/{pipeline.signature}", storage_options=place.storage_options)
    assert {leaf: shown[leaf]["train"].to_list() for leaf in shown} == expected_rows()


def test_what_is_set_aside_is_kept(fs: CacheFileSystem, pipeline: Pipeline) -> None:
    path = step_file(pipeline, "write", "00001.parquet")
    flip(fs, path)
    content = fs.read_bytes(path)
    verify_cache(fs, lease=nobody_else)
    assert fs.read_bytes(f"{path}.set-aside") == content
    assert ("set-aside file", "note", "00001.parquet.set-aside", False) in told(verify_cache(fs))


def test_one_pipeline_can_be_looked_at_alone(fs: CacheFileSystem, pipeline: Pipeline, place: Place) -> None:
    other = build(place, rows=3)
    other.run()
    flip(fs, step_file(other, "write", "00001.parquet"))
    assert verify_cache(fs, pipeline.signature).findings == []
    assert verify_cache(fs, other.signature).damage != []
    assert verify_cache(fs, pipeline.signature).rows == 39


def test_what_no_pipeline_names_is_told(fs: CacheFileSystem, pipeline: Pipeline, place: Place) -> None:
    build(place, rows=3).run()
    for name in list(place.files()):
        if name.startswith(build(place, rows=3).signature):
            fs.remove(name)
    flip(fs, step_file(build(place, rows=3), "half", "00001.parquet"))
    fs.write_bytes("steps_data/notes.txt", b"mine")
    fs.write_bytes(step_file(pipeline, "half", "notes.txt"), b"mine")
    result = verify_cache(fs)
    assert sum(each.problem == "is named by no pipeline" for each in result.findings) == 4
    assert [each.kind for each in result.damage] == ["part", "marker"], "these are read like the others"
    assert [each.path.rpartition("/")[2] for each in result.findings if each.kind == "unknown file"] == [
        "notes.txt",
        "notes.txt",
    ]


def test_a_stale_snapshot_is_a_note(fs: CacheFileSystem, pipeline: Pipeline) -> None:
    """A run that was killed, or one of another pipeline with the same steps, leaves one behind."""
    path = f"{pipeline.signature}/batch_manager_steps/half.json"
    content = json.loads(fs.read_bytes(path))
    fs.write_bytes(path, json.dumps({**content, "seq_no": 1}).encode())
    result = verify_cache(fs)
    assert told(result) == [("snapshot", "note", "half.json", False)]
    assert verify_cache(fs, lease=nobody_else).findings[0].is_repaired
    assert json.loads(fs.read_bytes(path)) == content
