"""The IO manager in a user's own project: assets before and behind a pipeline, of every type."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from distilabel_dagster import (
    BatchStream,
    DistilabelIOManager,
    DistilabelResource,
    Distiset,
    Pipeline,
    build_definitions,
    distilabel_assets,
)
from distilabel_dagster.orchestration.metadata import COLUMN_SCHEMA, PREVIEW, ROW_COUNT, URI
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import build_all_kinds, build_chat, build_line

PARTITIONS = dg.DynamicPartitionsDefinition(name="line_signatures")
LEAF_ROWS = [{"id": number, "scaled": 2 * number, "again": 2 * number} for number in range(12)]


def as_rows(value: Any) -> list[dict[str, Any]]:
    """Any of the types as rows."""
    if isinstance(value, list):
        return value
    if isinstance(value, BatchStream):
        batches = list(value)
        assert value.row_count == sum(map(len, batches))
        return [row for batch in batches for row in batch]
    if isinstance(value, pd.DataFrame):
        return value.to_dict(orient="records")
    if isinstance(value, pl.DataFrame):
        return value.to_dicts()
    return value.to_list() if isinstance(value, datasets.Dataset) else value.to_pylist()


def load_behind(
    runner: Runner,
    pipeline: Pipeline,
    upstream: str,
    annotation: Any,
    *,
    defs: dg.Definitions | None = None,
    partitioned: bool = True,
    **run: Any,
) -> Any:
    """What an asset behind the pipeline's asset gets."""
    got: list[Any] = []

    def downstream(rows: Any) -> None:
        got.append(rows)

    if annotation is not None:
        downstream.__annotations__["rows"] = annotation
    else:
        del downstream.__annotations__["rows"]
    partitions = dg.DynamicPartitionsDefinition(name=f"{pipeline.name.replace('-', '_')}_signatures")
    asset = dg.asset(
        ins={"rows": dg.AssetIn(key=dg.AssetKey(upstream.split("/")))},
        partitions_def=partitions if partitioned else None,
    )(downstream)
    job = dg.define_asset_job("behind", dg.AssetSelection.assets(asset), executor_def=dg.in_process_executor)
    mine = dg.Definitions(assets=[asset], jobs=[job])
    merged = dg.Definitions.merge(defs or build_definitions(pipeline), mine)
    run = {"partition": pipeline.signature if partitioned else None, **run}
    if run.pop("fails", False):
        return runner.error(pipeline, defs=merged, job="behind", **run)
    runner.run(pipeline, defs=merged, job="behind", **run)
    return got[0]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (None, datasets.Dataset),
        (datasets.Dataset, datasets.Dataset),
        (pa.Table, pa.Table),
        (pd.DataFrame, pd.DataFrame),
        (pl.DataFrame, pl.DataFrame),
        (list[dict[str, Any]], list),
        (list, list),
        (BatchStream, BatchStream),
    ],
)
def test_step_is_loaded_as_annotated(annotation: Any, expected: type, runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    runner.run(pipeline)
    got = load_behind(runner, pipeline, "line/leaf", annotation)
    assert isinstance(got, expected)
    assert as_rows(got) == LEAF_ROWS


def test_stream_gives_batches(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    runner.run(pipeline)
    stream = load_behind(runner, pipeline, "line/scale", BatchStream)
    assert [len(batch) for batch in stream] == [3, 3, 3, 3]
    assert stream.read_table().num_rows == 12


def test_annotation_that_rows_cannot_be(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    runner.run(pipeline)
    message = load_behind(runner, pipeline, "line/leaf", dict, fails=True)
    assert "can't be loaded from the cache. Annotate it with `datasets.Dataset`" in message


@pytest.mark.parametrize("enable_metadata", [True, False])
@pytest.mark.parametrize("annotation", [Distiset, None])
def test_distiset_is_loaded_as_the_pipeline_wants_it(
    enable_metadata: bool, annotation: Any, runner: Runner, cache: Path
) -> None:
    pipeline = build_chat(cache, enable_metadata=enable_metadata)
    made = runner.run(pipeline).output_for_node("chat__distiset", "chat__distiset")
    distiset = load_behind(runner, pipeline, "chat/distiset", annotation)
    assert isinstance(distiset, Distiset)
    columns = distiset["answer"]["train"].column_names
    assert ("distilabel_metadata" in columns) == enable_metadata
    assert columns == made["answer"]["train"].column_names
    assert distiset["answer"]["train"].to_list() == made["answer"]["train"].to_list()


def test_distiset_of_one_leaf_is_loaded_as_rows_too(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    runner.run(pipeline)
    assert as_rows(load_behind(runner, pipeline, "line/distiset", pd.DataFrame)) == LEAF_ROWS
    assert as_rows(load_behind(runner, pipeline, "line/distiset", datasets.Dataset)) == LEAF_ROWS
    pipeline = build_all_kinds(cache)
    runner.run(pipeline)
    message = load_behind(runner, pipeline, "all-kinds/distiset", pa.Table, fails=True)
    assert "has the configs `a-leaf`, `in-total`: annotate the input with `Distiset`" in message
    assert set(load_behind(runner, pipeline, "all-kinds/distiset", Distiset)) == {"a-leaf", "in-total"}


@pytest.mark.parametrize(("upstream", "annotation"), [("line/distiset", Distiset), ("line/leaf", pa.Table)])
def test_partial_state_is_never_loaded(upstream: str, annotation: Any, runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    runner.instance.add_dynamic_partitions("line_signatures", [pipeline.signature])
    message = load_behind(runner, pipeline, upstream, annotation, fails=True)
    assert f"has no pipeline with the signature `{pipeline.signature}`" in message
    steps = [dg.AssetKey(["line", name]) for name in ("load", "scale")]
    runner.run(pipeline, select=steps)
    message = load_behind(runner, pipeline, upstream, annotation, fails=True)
    assert "aterialize" in message
    assert "leaf" in message


def test_unpartitioned_asset_behind_several_partitions(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    runner.run(pipeline)
    assert as_rows(load_behind(runner, pipeline, "line/leaf", list, partitioned=False)) == LEAF_ROWS
    runner.run(build_line(cache, rows=3))
    message = load_behind(runner, pipeline, "line/leaf", list, partitioned=False, fails=True)
    assert "is asked for 2 partitions at once" in message
    assert "partitions_def=" in message


class Batches:
    """An iterator that Dagster doesn't take for an op's events."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(self._rows), 2):
            yield self._rows[start : start + 2]


TYPES = {
    "list": lambda rows: rows,
    "table": pa.Table.from_pylist,
    "dataset": datasets.Dataset.from_list,
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "batches": Batches,
}


@pytest.mark.parametrize("kind", TYPES)
def test_foreign_asset_is_written_and_read(kind: str, runner: Runner, cache: Path) -> None:
    rows = [{"text": f"t{number}", "score": number / 2, "tags": ["a"] * number} for number in range(5)]

    @dg.asset(key=["mine", "source"], io_manager_key="io")
    def source():
        return TYPES[kind](rows)

    got = []

    @dg.asset(ins={"source": dg.AssetIn(key=["mine", "source"])}, io_manager_key="io")
    def sink(source: list):
        got.append(source)
        return pa.table({"n": [len(source)]})

    result = dg.materialize(
        [source, sink], instance=runner.instance, resources={"io": DistilabelIOManager(cache_dir=str(cache))}
    )
    runner.runs.append(result.run_id)
    assert got == [rows]
    metadata = runner.metadata("mine/source")
    assert metadata[ROW_COUNT] == 5
    assert Path(metadata[URI]).is_dir()
    assert [column.name for column in metadata[COLUMN_SCHEMA].columns] == ["text", "score", "tags"]
    assert "t0" in metadata[PREVIEW]
    rows.pop()
    assert dg.materialize(
        [source, sink], instance=runner.instance, resources={"io": DistilabelIOManager(cache_dir=str(cache))}
    ).success
    assert got[1] == rows, "what was there is replaced"


@pytest.mark.parametrize("value", [5, "text", {"a": 1}, [1, 2], [{"a": 1}, "b"]])
def test_foreign_value_that_is_no_rows(value: Any, runner: Runner, cache: Path) -> None:
    @dg.asset(io_manager_key="io")
    def source():
        return value

    result = dg.materialize(
        [source],
        instance=runner.instance,
        resources={"io": DistilabelIOManager(cache_dir=str(cache))},
        raise_on_error=False,
    )
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    message = failure.step_failure_data.error.cause.message
    assert "source" in message
    assert type(value).__name__ in message or "dict" in message
    assert not list(cache.rglob("*.parquet"))


def test_foreign_asset_may_be_called_as_a_step_is(runner: Runner, cache: Path) -> None:
    """Which asset is a step's is known from its definition, not from its name."""
    pipeline = build_line(cache)

    @dg.asset(
        key=["mart", "leaf"],
        ins={"rows": dg.AssetIn(key=["line", "leaf"])},
        partitions_def=PARTITIONS,
        io_manager_key="line_io_manager",
    )
    def leaf(rows: list):
        return [{"mart": len(rows)}]

    mine = dg.Definitions(assets=[leaf])
    defs = dg.Definitions.merge(build_definitions(pipeline), mine)
    runner.run(pipeline, defs=defs)
    job = dg.define_asset_job("mart", dg.AssetSelection.assets(leaf), executor_def=dg.in_process_executor)
    defs = dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
    runner.run(pipeline, defs=defs, job="mart", partition=pipeline.signature)
    assert load_behind(runner, pipeline, "mart/leaf", list, defs=defs) == [{"mart": 12}]


def test_own_project_with_decorator_resource_and_io_manager(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)

    @distilabel_assets(pipeline=pipeline, name="my_op", io_manager_key="io", pool="llm")
    def my_assets(context: dg.AssetExecutionContext, distilabel: DistilabelResource):
        context.log.info("my own line")
        yield from distilabel.run(context)

    got = []

    @dg.asset(ins={"rows": dg.AssetIn(key=["line", "leaf"])}, partitions_def=PARTITIONS)
    def behind(rows: pa.Table) -> None:
        got.append(rows)

    job = dg.define_asset_job("all", dg.AssetSelection.all(), executor_def=dg.in_process_executor)
    defs = dg.Definitions(
        assets=[my_assets, behind],
        jobs=[job],
        resources={"distilabel": DistilabelResource(), "io": DistilabelIOManager(cache_dir=str(cache))},
    )
    runner.instance.add_dynamic_partitions("line_signatures", [pipeline.signature])
    runner.run(pipeline, defs=defs, job="all", partition=pipeline.signature)
    assert as_rows(got[0]) == LEAF_ROWS
    assert runner.messages()[0] == "my own line"
    assert set(runner.materialized()) == {"line/load", "line/scale", "line/leaf", "line/behind"} - {
        "line/behind"
    } | {"behind"}


def test_run_outside_of_the_decorator_is_refused(runner: Runner, cache: Path) -> None:
    @dg.asset
    def other(context: dg.AssetExecutionContext, distilabel: DistilabelResource) -> None:
        list(distilabel.run(context))

    result = dg.materialize(
        [other],
        instance=runner.instance,
        resources={"distilabel": DistilabelResource()},
        raise_on_error=False,
    )
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert (
        "belongs into a function under `@distilabel_assets" in failure.step_failure_data.error.cause.message
    )


def test_decorated_function_must_yield(cache: Path) -> None:
    with pytest.raises(ValueError, match="the function must yield"):

        @distilabel_assets(pipeline=build_line(cache))
        def wrong(context: dg.AssetExecutionContext, distilabel: DistilabelResource):
            return distilabel.run(context)


def test_two_pipelines_in_one_project(runner: Runner, cache: Path) -> None:
    first, second = build_line(cache), build_all_kinds(cache)
    defs = dg.Definitions.merge(build_definitions(first), build_definitions(second))
    assert runner.run(first, defs=defs).success
    assert runner.run(second, defs=defs).success
    assert runner.partitions("line_signatures") == [first.signature]
    assert runner.partitions("all_kinds_signatures") == [second.signature]
