"""What went wrong with distilabel's caches, and must not here: table §8, and the stored caches of old versions."""

import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.engine.events import RunStopped
from distilabel_dagster.pipeline import Pipeline, routing_batch_function, sample_n_steps
from distilabel_dagster.steps import CombineOutputs
from tests.integration.faults.pipelines import ROWS, break_off, expected, linear, load, rows_of
from tests.integration.faults.steps import CALLS, Add, All

# --- §8 and the fixture caches --------------------------------------------------------------------------------


def test_8_use_cache_false_recomputes_and_leaves_no_stale_part(cache: Path) -> None:
    """steps_data was never overwritten."""
    linear(cache, rows=24).run()
    parts = {path.name for path in cache.glob("steps_data/*/*")}
    CALLS.clear()
    assert rows_of(linear(cache).run(use_cache=False), "second") == expected()
    assert len(CALLS) == 2 * ROWS
    assert {path.name for path in cache.glob("steps_data/*/*")} <= parts | {"00001.parquet", "00002.parquet"}
    for directory in cache.glob("steps_data/*"):
        ids = [
            number
            for part in sorted(directory.glob("*.parquet"))
            for number in pq.read_table(part)["id"].to_pylist()
        ]
        assert ids == list(range(ROWS))
    assert rows_of(create_distiset(linear(cache).open_cache().data_url), "second") == expected()


def test_8_a_step_that_does_not_use_the_cache(cache: Path) -> None:
    """`use_cache=False` of one step recomputes it and what follows, and nothing before it."""

    def build() -> Pipeline:
        with Pipeline("partly", cache_dir=cache) as pipeline:
            (
                load()
                >> Add(name="first")
                >> Add(name="second", column="b", use_cache=False)
                >> Add(name="third", column="c")
            )
        return pipeline

    build().run()
    CALLS.clear()
    build().run()
    assert {call.split()[0] for call in CALLS} == {"second", "third"}
    assert len(CALLS) == 2 * ROWS


def two_leaves(cache: Path) -> Pipeline:
    with Pipeline("two_leaves", cache_dir=cache) as pipeline:
        shared = Add(name="shared", input_batch_size=4)
        load() >> shared
        shared >> [Add(name="leaf", column="b", input_batch_size=3), All(name="all")]
    return pipeline


@pytest.mark.parametrize("is_broken_off", [False, True])
def test_fixtures_a_leaf_and_a_global_step_share_a_predecessor(cache: Path, is_broken_off: bool) -> None:
    """1.3.2 and 1.4.2 lost rows in an undisturbed run: the global leaf stayed empty, the other lost its tail."""
    if is_broken_off:
        break_off(two_leaves(cache))
    distiset = two_leaves(cache).run()
    assert rows_of(distiset, "leaf") == expected()
    assert rows_of(distiset, "all") == [{"id": i, "a": f"a{i}", "of": ROWS} for i in range(ROWS)]
    assert All.calls == 1


def test_fixtures_a_rerun_never_leaves_fewer_rows(cache: Path) -> None:
    """Before 1.4 a rerun often left fewer rows than the interrupted run had: 66 down to 30, exit 0."""

    def shown() -> list[int]:
        return [
            number
            for part in sorted(cache.glob("*/data/second/*.parquet"))
            for number in pq.read_table(part)["id"].to_pylist()
        ]

    seen: list[int] = []
    for at in (9, 14, 19):
        break_off(linear(cache), at, "second")
        assert shown()[: len(seen)] == seen
        seen = shown()
        assert seen == list(range(len(seen)))
    linear(cache).run()
    assert shown() == list(range(ROWS))


def test_fixtures_create_distiset_shows_all_that_is_committed(cache: Path) -> None:
    """After a kill `create_distiset` showed fewer rows than the files held."""
    break_off(linear(cache), at=20, step="second")
    store = linear(cache).open_cache().stores["second"]
    store.open()
    assert store.records
    shown = rows_of(create_distiset(linear(cache).open_cache().data_url), "second")
    assert shown == expected()[: store.read_all().num_rows]


def test_fixtures_a_finished_routed_pipeline_runs_again(cache: Path) -> None:
    """A finished routed pipeline couldn't be run again in 1.4.2 and 1.5.3 (AttributeError)."""

    def build() -> Pipeline:
        with Pipeline("routed", cache_dir=cache) as pipeline:
            branches = [Add(name=name, column=name, input_batch_size=5) for name in ("x", "y", "z")]
            load() >> sample_n_steps(2) >> branches >> CombineOutputs(name="joined", input_batch_size=5)
        return pipeline

    first = rows_of(build().run(), "joined")
    assert [row["id"] for row in first] == list(range(ROWS))
    CALLS.clear()
    assert rows_of(build().run(), "joined") == first
    assert CALLS == []


def make_picker(name: str, times: int = 1):
    """A factory with a local variable besides its arguments."""
    unused = name * times

    @routing_batch_function(description=f"always {unused}")
    def pick(steps: list[str]) -> list[str]:
        return [name]

    return pick


def test_fixtures_a_routing_factorys_arguments_are_stored_and_nothing_else(tmp_path: Path) -> None:
    """A routing factory's local variables were stored as its arguments."""
    with Pipeline("routed", cache_dir=tmp_path) as pipeline:
        load() >> make_picker("x") >> [Add(name=name, input_batch_size=5) for name in ("x", "y")]
    (written,) = pipeline.dump()["pipeline"]["routing_batch_functions"]
    assert written["type_info"]["kwargs"] == {"name": "x", "times": 1}
    assert Pipeline.from_dict(pipeline.dump()).signature == pipeline.signature


def test_an_abandoned_run_frees_its_steps(cache: Path) -> None:
    """A run whose caller went away must not hold its steps for ever."""
    events = linear(cache).iter_run()
    next(events)
    del events
    assert rows_of(linear(cache).run(), "second") == expected()


def test_a_stop_before_the_first_batch_is_no_failure(cache: Path) -> None:
    events = linear(cache).iter_run()
    assert "Start pipeline" in str(next(events))
    closed = threading.Thread(target=events.close)  # type: ignore[attr-defined]  # it's a generator
    closed.start()
    closed.join(60)
    assert not any(isinstance(event, RunStopped) for event in linear(cache).iter_run())


@pytest.mark.parametrize(
    "module",
    ["distiset", "pipeline", "pipeline.local", "steps", "steps.tasks", "models", "mixins.runtime_parameters"],
)
def test_fixtures_any_module_can_be_the_first_import(module: str) -> None:
    """In 1.0 and 1.1 `distilabel.distiset` couldn't be the first import (circular)."""
    command = [sys.executable, "-c", f"import distilabel_dagster.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
