"""What went wrong in distilabel 1.1.1 and 1.5.3, and must not here. Each test says what happened there."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import PrivateAttr, SecretStr

from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.engine.events import RunFinished, StepFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import StepInUseError, UntrustedClassError
from distilabel_dagster.pipeline import Pipeline, routing_batch_function, sample_n_steps
from distilabel_dagster.steps import CombineOutputs, LoadDataFromDicts, Step, StepInput, step
from distilabel_dagster.steps.tasks import TextGeneration
from tests.integration.faults.pipelines import ROWS, break_off, expected, linear, load, rows_of
from tests.integration.faults.steps import CALLS, Add, All, Echo

# --- Measured first ---------------------------------------------------------------------------------------------


def test_interrupted_run_resumes(cache: Path) -> None:
    """kill -9 or Ctrl+C: 0 of 18 resumes ended; 1.1.1 gave 56 of 120 rows. (With real signals: tests of resume.)"""
    break_off(linear(cache))
    before = list(CALLS)
    assert before
    assert rows_of(linear(cache).run(), "second") == expected()
    firsts = [call for call in CALLS if call.startswith("first")]
    assert set(firsts) == {f"first {number}" for number in range(ROWS)}


def test_changed_input_rows_are_computed(cache: Path) -> None:
    """Input rows of LoadDataFromDicts changed: no call made, the old dataset returned, exit 0."""
    linear(cache).run()
    CALLS.clear()
    assert rows_of(linear(cache, rows=7).run(), "second") == expected(7)
    assert len(CALLS) == 14


def test_changed_temperature_upstream_recomputes_what_follows(cache: Path) -> None:
    """The temperature of an upstream task changed: an empty Distiset, exit 0."""

    def run(temperature: float) -> list[str]:
        with Pipeline("tasks", cache_dir=cache) as pipeline:
            data = LoadDataFromDicts(name="load", data=[{"instruction": "x"}, {"instruction": "y"}])
            ask = TextGeneration(name="ask", llm=Echo(temperature=temperature))
            again = TextGeneration(
                name="again", llm=Echo(), columns=["generation"], template="{{ generation }}",
                output_mappings={"generation": "second", "model_name": "second_model"},
            )  # fmt: skip
            data >> ask >> again
        return [row["second"] for row in rows_of(pipeline.run(), "again")]

    assert run(0.0) == ["0.0 0.0 x", "0.0 0.0 y"]
    assert run(0.7) == ["0.0 0.7 x", "0.0 0.7 y"]
    CALLS.clear()
    assert run(0.0) == ["0.0 0.0 x", "0.0 0.0 y"]
    assert CALLS == []


def test_changed_leaf_after_a_kill_gives_all_rows(cache: Path) -> None:
    """Killed in step A, then a field of step B changed: 100 of 500 rows returned as if complete, exit 0."""
    break_off(linear(cache))
    assert rows_of(linear(cache, second="!").run(), "second") == expected(second="!")
    CALLS.clear()
    assert rows_of(linear(cache, second="?").run(), "second") == expected(second="?")
    assert {call.split()[0] for call in CALLS} == {"second"}, "what stands before the change is reused"


def test_files_are_as_large_as_the_rows_ask_for(cache: Path) -> None:
    """219 MB were written for 11 MB of rows: parts are shared by hard links and state doesn't grow with batches."""
    rows = [{"id": number, "text": f"{number:04d}" * 50} for number in range(2000)]
    with Pipeline("large", cache_dir=cache) as pipeline:
        LoadDataFromDicts(name="load", data=rows, batch_size=10) >> Add(name="add", input_batch_size=10)
    pipeline.run()
    for state in (*cache.glob("*/batch_manager.json"), *cache.glob("*/batch_manager_steps/*.json")):
        assert state.stat().st_size < 2500
    (leaf,) = cache.glob("*/data/add")
    (made,) = cache.glob("steps_data/add_*")
    for part in leaf.iterdir():
        assert part.samefile(made / part.name)


# --- §7 --------------------------------------------------------------------------------------------------------


def test_7_1_resume_writes_behind_the_first_part(cache: Path) -> None:
    """Resume overwrote 00001.parquet: rows were lost silently."""
    break_off(linear(cache))
    (committed,) = cache.glob("steps_data/first_*/00001.parquet")
    before = pq.read_table(committed)["id"].to_pylist()
    linear(cache).run()
    assert pq.read_table(committed)["id"].to_pylist() == before
    assert rows_of(create_distiset(linear(cache).open_cache().data_url), "second") == expected()


def test_7_2_what_is_to_do_follows_from_outputs_alone(cache: Path) -> None:
    """Batches on their way were in no file, and counters disagreed with what was there."""
    break_off(linear(cache))
    for snapshot in (*cache.glob("*/batch_manager.json"), *cache.glob("*/batch_manager_steps/*.json")):
        snapshot.unlink()
    assert rows_of(linear(cache).run(), "second") == expected()


def test_7_3_runtime_parameters_resume(cache: Path) -> None:
    """1.1: a run with runtime parameters never resumed."""
    parameters = {"first": {"input_batch_size": 3}, "load": {"batch_size": 2}}

    @step(inputs=["id"], outputs=["x"])
    def mark(inputs: StepInput, sign: str = "-"):
        CALLS.extend(f"mark {row['id']}" for row in inputs)
        yield [{**row, "x": f"{sign}{row['id']}"} for row in inputs]

    with Pipeline("parameters", cache_dir=cache) as pipeline:
        load() >> Add(name="first") >> mark(name="mark")
    asked: Any = {**parameters, "mark": {"sign": "+"}}
    first = pipeline.run(parameters=asked)
    calls = list(CALLS)
    assert rows_of(pipeline.run(parameters=asked), "mark") == rows_of(first, "mark")
    assert calls == CALLS
    assert rows_of(first, "mark")[3]["x"] == "+3"
    assert rows_of(pipeline.run(), "mark")[3]["x"] == "-3"
    assert [call for call in CALLS[len(calls) :] if call.startswith("first")] == []


def test_7_3_code_and_routing_are_part_of_the_signature(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's code never was in the signature, routing wasn't in 1.1 to 1.3."""

    def build(code: str, sample: int) -> Pipeline:
        file = tmp_path / "mine.py"
        file.write_text(
            "from distilabel_dagster.steps import Step\n\n"
            "class Mine(Step):\n"
            "    def process(self, inputs):\n"
            f"        {code}\n"
        )
        spec = importlib.util.spec_from_file_location("mine", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "mine", module)
        spec.loader.exec_module(module)
        with Pipeline("code", cache_dir=cache) as pipeline:
            branches = [module.Mine(name=name, input_batch_size=5) for name in ("x", "y")]
            load() >> sample_n_steps(sample) >> branches
        # Before the next version of the file is written.
        assert pipeline.step_signatures
        return pipeline

    codes = ("yield inputs", "yield inputs[::-1]", "yield inputs  # as before")
    signatures = {(code, sample): build(code, sample).step_signatures for code in codes for sample in (1, 2)}
    assert len({each["load"] for each in signatures.values()}) == 1
    assert len({each["x"] for each in signatures.values()}) == 4
    assert signatures[codes[0], 1] == signatures[codes[2], 1]


def test_7_4_failures_are_recorded_and_partial_results_never_returned(cache: Path) -> None:
    """None rows were cached as success; a generator's or global step's error gave a partial Distiset, exit 0."""
    failing = {5}

    class Sometimes(Step):
        code_version: str | None = "1"

        @property
        def outputs(self):
            return ["out"]

        def process(self, inputs: StepInput) -> Any:
            if failing & {row["id"] for row in inputs}:
                raise OSError("not now")
            yield [{**row, "out": 1} for row in inputs]

    with Pipeline("failures", cache_dir=cache) as pipeline:
        load(10) >> Sometimes(name="sometimes", input_batch_size=2)
    assert [row["out"] for row in rows_of(pipeline.run(), "sometimes")] == [1] * 4 + [None] * 2 + [1] * 4
    (marker,) = cache.glob("steps_data/sometimes_*/complete.json")
    assert json.loads(marker.read_text())["failed_rows"] == 2
    failing.clear()
    assert [row["out"] for row in rows_of(pipeline.run(), "sometimes")] == [1] * 10
    assert json.loads(marker.read_text())["failed_rows"] == 0


def test_7_5_columns_of_later_batches_are_kept(cache: Path) -> None:
    """Columns came from the first row only: with routing, others were dropped silently."""

    @routing_batch_function()
    def in_turn(steps: list[str], seq_no: int) -> list[str]:
        return [steps[seq_no % 2]]

    with Pipeline("columns", cache_dir=cache) as pipeline:
        branches = [Add(name=name, column=name, input_batch_size=4) for name in ("x", "y")]
        load(16, batch_size=4) >> in_turn >> branches >> CombineOutputs(name="joined", input_batch_size=4)
    rows = rows_of(pipeline.run(), "joined")
    assert [row["id"] for row in rows] == list(range(16))
    assert [row["x"] for row in rows[:8]] == ["x0", "x1", "x2", "x3", None, None, None, None]
    assert [row["y"] for row in rows[:8]] == [None, None, None, None, "y4", "y5", "y6", "y7"]


def test_7_5_types_that_drift_are_united(cache: Path) -> None:
    """Type drift killed the output thread, and the pipeline hung."""

    class Drift(Step):
        def process(self, inputs: StepInput) -> Any:
            yield [
                {"v": None if i == 0 else i if i < 9 else i / 2, "s": {"k" if i < 9 else "l": i}}
                for i in (row["id"] for row in inputs)
            ]

    with Pipeline("drift", cache_dir=cache) as pipeline:
        load(12) >> Drift(name="drift", input_batch_size=1)
    rows = rows_of(pipeline.run(), "drift")
    assert [row["v"] for row in rows] == [None, *range(1, 9), 4.5, 5.0, 5.5]
    assert rows[11]["s"] == {"k": None, "l": 11}


def test_7_6_data_is_written_once(cache: Path) -> None:
    """Each batch rewrote pipeline.yaml, all buffers and last batches."""
    linear(cache).run()
    (file,) = cache.glob("*/pipeline.yaml")
    stamp = file.stat().st_mtime_ns, file.stat().st_ino
    linear(cache).run()
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == stamp


def test_7_7_values_that_json_cannot_hold_survive(cache: Path) -> None:
    """Bytes, NumPy arrays, datetimes and ints as keys changed their types through JSON."""
    import datetime as dt

    import numpy as np

    class Rich(Step):
        def process(self, inputs: StepInput) -> Any:
            yield [
                {"b": b"\xff", "n": np.arange(2), "t": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)}
                for _ in inputs
            ]

    class Look(Step):
        def process(self, inputs: StepInput) -> Any:
            assert [type(value) for value in inputs[0].values()] == [bytes, list, dt.datetime]
            yield inputs

    with Pipeline("rich", cache_dir=cache) as pipeline:
        load(3) >> Rich(name="rich") >> Look(name="look")
    first = rows_of(pipeline.run(on_error="raise"), "look")
    assert first == [{"b": b"\xff", "n": [0, 1], "t": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)}] * 3


def test_7_8_a_fast_step_waits_for_a_slow_one(cache: Path) -> None:
    """There was no back-pressure: all rows piled up in the main process."""
    ahead: list[int] = []

    class Slow(Step):
        def process(self, inputs: StepInput) -> Any:
            made = max((int(call.split()[1]) for call in CALLS if call.startswith("first")), default=0)
            ahead.append(made - inputs[0]["id"])
            yield inputs

    with Pipeline("pressure", cache_dir=cache) as pipeline:
        (
            load(600, batch_size=10)
            >> Add(name="first", input_batch_size=10)
            >> Slow(name="slow", input_batch_size=10)
        )
    assert isinstance(list(pipeline.iter_run(RunOptions(max_rows_ahead=40)))[-1], RunFinished)
    assert max(ahead) <= 40 + 30


def test_7_9_torn_state_is_written_again(cache: Path) -> None:
    """A torn JSON after a crash was an exception on the next start, without recovery."""
    break_off(linear(cache))
    for path in (
        *cache.glob("*/*.json"),
        *cache.glob("*/batch_manager_steps/*.json"),
        *cache.glob("*/pipeline.yaml"),
    ):
        path.write_bytes(path.read_bytes()[:37])
    (log,) = cache.glob("*/pipeline.log")
    log.write_bytes(b"\xff\x00")
    assert rows_of(linear(cache).run(), "second") == expected()
    (state,) = cache.glob("*/batch_manager.json")
    assert json.loads(state.read_text())["last_batch_received"]["second"]["last_batch"] is True


def test_7_9_two_runs_at_the_same_time_do_not_meet(cache: Path) -> None:
    """There was no lock: two runs of the same pipeline corrupted each other."""
    first = linear(cache).iter_run()
    next(first)
    with pytest.raises(StepInUseError, match="Only one process at a time may write a step"):
        linear(cache).run()
    for event in first:
        if isinstance(event, StepFinished):
            assert event.rows == ROWS
    assert [*(call for call in CALLS)] == CALLS
    assert len(CALLS) == len(set(CALLS)) == 2 * ROWS
    assert rows_of(linear(cache).run(), "second") == expected()


def test_7_10_a_moved_cache_resumes(cache: Path, tmp_path: Path) -> None:
    """Paths in batch_manager.json were absolute, so that a cache couldn't be moved."""
    break_off(linear(cache))
    committed = {call for call in CALLS if call.startswith("first")}
    (store,) = cache.glob("steps_data/first_*")
    kept = {
        f"first {number}"
        for part in store.glob("*.parquet")
        for number in pq.read_table(part)["id"].to_pylist()
    }
    elsewhere = tmp_path / "elsewhere"
    cache.rename(elsewhere)
    CALLS.clear()
    assert rows_of(linear(elsewhere).run(), "second") == expected()
    assert kept
    assert kept <= committed
    assert not kept & set(CALLS)
    assert not cache.exists()
    for file in elsewhere.rglob("*.json"):
        assert str(cache) not in file.read_text()


def test_7_11_a_pipeline_file_imports_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading YAML imported any `type_info.module` and made an object of it. (More: tests of bad input.)"""
    (tmp_path / "runs_code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Add: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = linear(cache).dump()
    for each in data["pipeline"]["steps"]:
        each["step"]["type_info"] = {"module": "runs_code", "name": "Add"}
    with pytest.raises(UntrustedClassError, match=r"`runs_code\.Add`.*nothing was imported"):
        Pipeline.from_dict(data)
    assert not (tmp_path / "ran").exists()


def test_7_12_no_secret_is_written_anywhere(cache: Path) -> None:
    """SecretStr fields were written in clear, and plain tokens too."""

    class Keyed(Add):
        api_key: SecretStr | None = None
        hub_token: str | None = None
        headers: dict[str, str] | None = None

    secrets = {
        "api_key": SecretStr("s3cret-one"),
        "hub_token": "s3cret-two",
        "headers": {"Authorization": "s3cret-three"},
    }
    with Pipeline("secrets", cache_dir=cache, storage_options={"key": "s3cret-four"}) as pipeline:
        load(4) >> Keyed(name="keyed", **secrets)
    pipeline.run()
    pipeline.save(cache / "saved.yaml")
    for path in cache.rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes(), path


def test_7_13_a_second_run_in_the_same_process_starts_fresh(cache: Path) -> None:
    """Module-level globals: a second run in the same process after Ctrl+C started stopped."""
    events = linear(cache).iter_run(RunOptions(max_rows_ahead=1))
    next(events)
    next(events)
    events.close()  # type: ignore[attr-defined]  # it's a generator
    assert rows_of(linear(cache).run(), "second") == expected()
    other = linear(cache, rows=3, first="x")
    assert rows_of(other.run(), "second") == expected(3, first="x")


def test_7_14_a_global_step_gets_one_batch(cache: Path) -> None:
    """1.1 and 1.2 gave a global step a second, empty batch."""
    with Pipeline("global", cache_dir=cache) as pipeline:
        load(20) >> All(name="all")
    rows = rows_of(pipeline.run(), "all")
    assert All.calls == 1
    assert [row["of"] for row in rows] == [20] * 20
    store = pipeline.open_cache().stores["all"]
    store.open()
    assert [(record.seq_no, record.last_batch) for record in store.records] == [(0, True)]


@pytest.mark.parametrize("use_cache", [True, False])
def test_7_15_the_users_own_steps_are_run(cache: Path, use_cache: bool) -> None:
    """The dag was replaced by the one of pipeline.yaml: what can't be serialised was lost."""
    seen: list[str] = []

    class Live(Step):
        code_version: str | None = "1"
        _notes: list[str] = PrivateAttr(default_factory=list)

        def process(self, inputs: StepInput) -> Any:
            self._notes.append("called")
            yield inputs

    linear_run = Pipeline("live", cache_dir=cache)
    with linear_run:
        live = Live(name="live")
        live._notes = seen
        load(3) >> live
    linear_run.run(use_cache=use_cache)
    (file,) = cache.glob("*/pipeline.yaml")
    file.write_text(file.read_text().replace("name: live", "name: lively"))
    linear_run.run(use_cache=False)
    assert seen == ["called", "called"]
    assert linear_run.dag.steps["live"] is live


def test_7_16_metadata_is_left_out_unless_asked_for(cache: Path) -> None:
    """`enable_metadata=False` never removed the column `distilabel_metadata`."""

    def columns(enable_metadata: bool) -> list[str]:
        with Pipeline("metadata", cache_dir=cache, enable_metadata=enable_metadata) as pipeline:
            data = LoadDataFromDicts(name="load", data=[{"instruction": "x"}])
            data >> TextGeneration(name="ask", llm=Echo())
        return list(pipeline.run()["ask"]["train"].column_names)

    assert "distilabel_metadata" not in columns(False)
    assert "distilabel_metadata" in columns(True)
    assert CALLS == ["llm x"], "whether it's shown is no part of what is computed"


def test_7_17_many_predecessors_keep_their_order(cache: Path) -> None:
    """More than ten predecessors came in the order of a directory listing: data_index_10 before _2."""

    class Order(Step):
        def process(self, *inputs: StepInput) -> Any:
            yield [
                {"order": [next(name for name in row if name != "id") for row in rows]}
                for rows in zip(*inputs, strict=True)
            ]

    with Pipeline("many", cache_dir=cache) as pipeline:
        made = load(4)
        branches = [Add(name=f"s{number}", column=f"c{number}") for number in range(12)]
        made >> branches >> Order(name="order")
    assert rows_of(pipeline.run(), "order") == [{"order": [f"c{number}" for number in range(12)]}] * 4
