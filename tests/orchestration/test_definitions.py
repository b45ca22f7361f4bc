"""`build_definitions`: what it names, what a run of its job leaves, and what the next run makes of that."""

import signal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster import Distiset, Pipeline, build_definitions
from distilabel_dagster.errors import CacheFullError, StepRunError
from distilabel_dagster.orchestration import io_manager
from distilabel_dagster.orchestration.metadata import (
    BATCHES_COMPUTED,
    BATCHES_REUSED,
    COLUMN_LINEAGE,
    COLUMN_SCHEMA,
    CONFIGS,
    PREVIEW,
    ROW_COUNT,
    ROWS_FAILED,
    URI,
)
from distilabel_dagster.steps import LoadDataFromDicts
from tests.orchestration import pipelines
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import build_all_kinds, build_line


def test_names_are_those_that_users_type(cache: Path) -> None:
    defs = build_definitions(build_line(cache), cron_schedule="0 3 * * *")
    repository = defs.get_repository_def()
    keys = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert keys == {"line/load", "line/scale", "line/leaf", "line/distiset"}
    nodes = [repository.asset_graph.get(dg.AssetKey(["line", name])) for name in ("load", "distiset")]
    assert {node.group_name for node in nodes} == {"line"}
    assert {node.partitions_def.name for node in nodes} == {"line_signatures"}
    assert [node.to_asset_spec().kinds for node in nodes] == [
        {"distilabel", "parquet"},
        {"distilabel", "huggingface"},
    ]
    op_names = {assets.node_def.name for assets in defs.assets if isinstance(assets, dg.AssetsDefinition)}
    assert op_names == {"line", "line__distiset"}
    assert {job.name for job in repository.get_all_jobs()} >= {"line_job"}
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    assert sensors == {
        "line_signature_sensor": dg.DefaultSensorStatus.RUNNING,
        "line_resume_sensor": dg.DefaultSensorStatus.STOPPED,
    }
    schedules = {schedule.name: schedule.default_status for schedule in repository.schedule_defs}
    assert schedules == {"line_schedule": dg.DefaultScheduleStatus.STOPPED}


def test_run_materializes_each_step_and_the_distiset(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    result = runner.run(pipeline)

    made = runner.materialized()
    assert list(made) == ["line/load", "line/scale", "line/leaf", "line/distiset"]
    assert {each.partition for each in made.values()} == {pipeline.signature}
    assert runner.partitions("line_signatures") == [pipeline.signature]
    scale = runner.metadata("line/scale")
    assert (scale[ROW_COUNT], scale[BATCHES_COMPUTED], scale[BATCHES_REUSED], scale[ROWS_FAILED]) == (
        12,
        4,
        0,
        0,
    )
    assert scale[URI] == str(cache / "steps_data" / f"scale_{pipeline.step_signatures['scale']}")
    assert [(column.name, column.type) for column in scale[COLUMN_SCHEMA].columns] == [
        ("id", "int64"),
        ("scaled", "int64"),
    ]
    load = dg.AssetKey(["line", "load"])
    assert scale[COLUMN_LINEAGE].deps_by_column == {
        "id": [dg.TableColumnDep(load, "id")],
        "scaled": [dg.TableColumnDep(load, "id")],
    }
    assert scale[PREVIEW].splitlines()[:3] == ["| id | scaled |", "| --- | --- |", "| 0 | 0 |"]
    assert COLUMN_LINEAGE not in runner.metadata("line/load")
    assert runner.metadata("line/distiset")[CONFIGS] == {"leaf": 12}
    assert runner.metadata("line/distiset")[ROW_COUNT] == 12
    distiset = result.output_for_node("line__distiset", "line__distiset")
    assert isinstance(distiset, Distiset)
    assert distiset["leaf"]["train"][2] == {"id": 2, "scaled": 4, "again": 4}
    directory = cache / pipeline.signature
    tree = {path.relative_to(directory).as_posix() for path in directory.rglob("*.*")}
    assert tree - {f"data/leaf/0000{number}.parquet" for number in range(2, 5)} == {
        "batch_manager.json",
        "batch_manager_steps/leaf.json",
        "batch_manager_steps/scale.json",
        "data/leaf/00001.parquet",
        "pipeline.log",
        "pipeline.yaml",
    }


def test_second_run_computes_nothing_and_says_so(runner: Runner, cache: Path) -> None:
    runner.run(build_line(cache))
    assert runner.messages()[0].startswith("Start pipeline")
    parts = {path: path.stat().st_mtime_ns for path in cache.rglob("*.parquet")}
    before = dict(pipelines.given)

    runner.run(build_line(cache))

    assert dict(pipelines.given) == before
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.parquet")} == parts
    assert runner.messages()[0].startswith("Load pipeline from cache; done: ")
    assert "Finished: nothing to compute, all 12 batches were in the cache" in runner.messages()
    for step in ("load", "scale", "leaf"):
        metadata = runner.metadata(f"line/{step}")
        assert (metadata[BATCHES_COMPUTED], metadata[BATCHES_REUSED], metadata[ROW_COUNT]) == (0, 4, 12)


def test_use_cache_false_computes_everything_anew(runner: Runner, cache: Path) -> None:
    runner.run(build_line(cache))
    first = runner.metadata("line/leaf")
    runner.run(build_line(cache), run_config={"ops": {"line": {"config": {"use_cache": False}}}})
    assert set(pipelines.given.values()) == {2}
    assert runner.metadata("line/leaf")[BATCHES_COMPUTED] == 4
    assert runner.metadata("line/leaf")[PREVIEW] == first[PREVIEW]


def test_events_do_not_grow_with_batches(runner: Runner, cache: Path) -> None:
    counts = []
    for rows in (6, 300):
        result = runner.run(build_line(cache, rows=rows))
        counts.append(len(runner.instance.all_logs(result.run_id)))
    assert counts[1] <= counts[0] + 4, "at most some lines of progress more"


def test_failed_rows_are_told_at_a_bounded_rate_and_retried(runner: Runner, cache: Path) -> None:
    pipelines.fail_on.update(range(0, 90, 6))  # every second batch
    runner.run(build_line(cache, rows=90))
    told = [line for line in runner.messages() if "failed" in line and line.startswith("Step `scale`")]
    assert len(told) == 3, "the first batch, how many more, and the end"
    assert "45 rows failed" in told[-1]
    assert runner.metadata("line/scale")[ROWS_FAILED] == 45
    check = _check_of(runner, "scale")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "45 rows have no outputs" in (check.description or "")
    assert _check_of(runner, "load").passed

    pipelines.fail_on.clear()
    runner.run(build_line(cache, rows=90))

    assert runner.metadata("line/scale")[ROWS_FAILED] == 0
    assert _check_of(runner, "scale").passed
    assert (pipelines.given["scale", 0], pipelines.given["scale", 3]) == (2, 1), (
        "only what failed is tried again"
    )


def _check_of(runner: Runner, step: str) -> dg.AssetCheckEvaluation:
    logs = runner.instance.all_logs(runner.runs[-1], of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [entry.dagster_event.asset_check_evaluation_data for entry in logs if entry.dagster_event]
    (check,) = [each for each in found if each.asset_key.path[-1] == step]
    return check


def test_on_error_raise_fails_the_run(runner: Runner, cache: Path) -> None:
    pipelines.fail_on.add(7)
    pipeline = build_line(cache)
    with pytest.raises(StepRunError, match="refused"):
        runner.run(pipeline, defs=build_definitions(pipeline, on_error="raise"))
    pipelines.fail_on.clear()
    result = runner.run(pipeline, defs=build_definitions(pipeline, on_error="raise"))
    assert result.success
    assert pipelines.given["scale", 0] == 1


def test_one_step_alone_needs_its_predecessors(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    message = runner.error(pipeline, select=[dg.AssetKey(["line", "scale"])])
    assert "Step `scale` needs all rows of `load`, which isn't complete" in message
    assert "Run `load` first" in message
    assert not pipelines.given

    runner.run(pipeline, select=[dg.AssetKey(["line", "load"])])
    assert list(runner.materialized()) == ["line/load"]
    runner.run(pipeline, select=[dg.AssetKey(["line", "scale"])])
    assert list(runner.materialized()) == ["line/scale"]
    assert {step for step, _ in pipelines.given} == {"scale"}
    assert not list(cache.glob("steps_data/leaf_*/*.parquet"))


def test_distiset_is_never_partial(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    distiset = dg.AssetKey(["line", "distiset"])
    runner.run(pipeline, select=[dg.AssetKey(["line", "load"]), dg.AssetKey(["line", "scale"])])
    message = runner.error(pipeline, select=[distiset])
    assert "line/leaf isn't complete" in message
    assert "Materialize it first" in message
    runner.run(pipeline)
    runner.run(pipeline, select=[distiset])
    assert list(runner.materialized()) == ["line/distiset"]


def test_run_without_checks_or_of_one_asset_of_a_users_job(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    selection = dg.AssetSelection.groups("line").without_checks()
    job = dg.define_asset_job("mine", selection, executor_def=dg.in_process_executor)
    defs = dg.Definitions.merge(build_definitions(pipeline), dg.Definitions(jobs=[job]))
    assert runner.run(pipeline, defs=defs, job="mine", partition=pipeline.signature).success
    assert len(runner.materialized()) == 4
    assert not runner.instance.all_logs(runner.runs[-1], of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)


def test_run_without_partition_says_how_to_give_one(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    job = dg.define_asset_job("mine", dg.AssetSelection.groups("line"), executor_def=dg.in_process_executor)
    defs = dg.Definitions.merge(build_definitions(pipeline), dg.Definitions(jobs=[job]))
    message = runner.error(pipeline, defs=defs, job="mine")
    assert "this run has no partition" in message
    assert f'{{"dagster/partition": "{pipeline.signature}"}}' in message


def test_preview_cannot_break_out_of_its_cells(runner: Runner, cache: Path) -> None:
    nasty = "a|b\n\n# big <script>alert(1)</script> ![x](http://y) [z](javascript:1) `c` *d* \\|"
    with Pipeline("nasty", cache_dir=str(cache)) as pipeline:
        LoadDataFromDicts(
            name="load", data=[{"te|xt\n": nasty, "nested": {"k": ["|", "<b>"]}, "long": "x" * 500}]
        )
    runner.run(pipeline)
    preview = runner.metadata("nasty/load")[PREVIEW]
    lines = preview.splitlines()
    assert len(lines) == 3
    for line in (lines[0], lines[2]):
        bare = line.replace("\\\\", "")
        assert bare.count("|") - bare.count("\\|") == 4
    for char in "<>[]!#`*":
        assert char not in lines[2].replace(f"\\{char}", ""), f"`{char}` isn't escaped"
    assert len(lines[2]) < 800


def test_two_leaves_and_names_that_dagster_does_not_take(runner: Runner, cache: Path) -> None:
    pipeline = build_all_kinds(cache)
    result = runner.run(pipeline)
    assert set(runner.materialized()) == {f"all-kinds/{name}" for name in [*pipeline.dag.steps, "distiset"]}
    assert runner.partitions("all_kinds_signatures") == [pipeline.signature]
    distiset = result.output_for_node("all_kinds__distiset", "all_kinds__distiset")
    assert set(distiset) == {"a-leaf", "in-total"}
    rows = distiset["a-leaf"]["train"].to_list()
    assert [row["id"] for row in rows] == list(range(48))
    assert all(row[column] in (row["id"] * 2, None) for row in rows for column in "abc")
    assert runner.metadata("all-kinds/distiset")[CONFIGS] == {"a-leaf": 48, "in-total": 48}
    assert runner.metadata("all-kinds/join")[COLUMN_LINEAGE].deps_by_column["a"] == [
        dg.TableColumnDep(dg.AssetKey(["all-kinds", "branch-a"]), "a")
    ]


@pytest.mark.parametrize(
    "names", [("input", "config"), ("context", "class"), ("_load", "copy"), ("1st", "use_cache")]
)
def test_step_names_that_mean_something_to_dagster(
    runner: Runner, cache: Path, names: tuple[str, str]
) -> None:
    with Pipeline("names", cache_dir=str(cache)) as pipeline:
        load = LoadDataFromDicts(name=names[0], data=[{"id": 1}])
        load >> pipelines.Scale(name=names[1])
    defs = build_definitions(pipeline, load_groups="sequential_step_execution")
    assert runner.run(pipeline, defs=defs).success
    assert set(runner.materialized()) == {f"names/{name}" for name in (*names, "distiset")}


def test_asset_that_cannot_be_stored_stops_the_engine(
    runner: Runner, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the op has going on behind the failed result ends with the run, and parameters are what they were."""

    def refuse(*_: object) -> None:
        raise CacheFullError("no space", path="x")

    monkeypatch.setenv("BATCH_S", "0.05")
    pipeline = build_line(cache, rows=60)
    with monkeypatch.context() as patched:
        patched.setattr(io_manager.CacheIOManager, "_seal", refuse)
        config = {"ops": {"line": {"config": {"scale": {"input_batch_size": 6}}}}}
        message = runner.error(pipeline, run_config=config)
    assert "no space" in message
    assert pipeline.dag.steps["scale"].input_batch_size == 3
    count = sum(pipelines.given.values())
    assert count < 120
    result = runner.run(pipeline)  # would say StepInUse, if the first still went on
    assert result.success
    assert sum(pipelines.given.values()) == 120


def test_signal_that_comes_while_dagster_stores_a_result(
    runner: Runner, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches Dagster's handlers, not the engine's; what was begun is committed all the same, and told."""
    seal = io_manager.CacheIOManager._seal

    def seal_and_interrupt(self: Any, context: Any, output: Any) -> None:
        seal(self, context, output)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setenv("BATCH_S", "0.05")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    pipeline = build_line(cache, rows=60)
    with monkeypatch.context() as patched:
        patched.setattr(io_manager.CacheIOManager, "_seal", seal_and_interrupt)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            runner.run(pipeline)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    runner.runs.append(runner.instance.get_runs(limit=1)[0].run_id)
    told = "\n".join(runner.messages())
    assert "Stop requested" in told
    assert "Step `leaf`: stop received" in told
    assert "Stopped. Not finished: " in told
    assert runner.run(pipeline).success
    assert set(pipelines.given.values()) == {1}, "nothing that was begun got lost"
