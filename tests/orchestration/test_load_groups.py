"""Load groups as op boundaries, in one process."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster import build_definitions
from distilabel_dagster.errors import LoadGroupError
from distilabel_dagster.orchestration.metadata import BATCHES_COMPUTED
from tests.orchestration import pipelines
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import build_all_kinds, build_line

ALL_KINDS_OPS = {
    "all_kinds__load_it",
    "all_kinds__branch_a",
    "all_kinds__branch_b",
    "all_kinds__branch_c",
    "all_kinds__join",
    "all_kinds__a_leaf",
    "all_kinds__in_total",
    "all_kinds__distiset",
}


def op_names(defs: dg.Definitions) -> set[str]:
    return {assets.node_def.name for assets in defs.assets or [] if isinstance(assets, dg.AssetsDefinition)}


def rows_of(result: dg.ExecuteInProcessResult) -> dict[str, list[dict[str, Any]]]:
    distiset = result.output_for_node("all_kinds__distiset", "all_kinds__distiset")
    return {name: distiset[name]["train"].to_list() for name in distiset}


def test_an_op_a_step_gives_the_same_rows_as_streaming(runner: Runner, cache: Path, tmp_path: Path) -> None:
    pipeline = build_all_kinds(cache)
    defs = build_definitions(pipeline, load_groups="sequential_step_execution")
    assert op_names(defs) == ALL_KINDS_OPS
    rows = rows_of(runner.run(pipeline, defs=defs))
    assert set(runner.materialized()) == {f"all-kinds/{name}" for name in [*pipeline.dag.steps, "distiset"]}

    streaming = build_all_kinds(tmp_path / "other")
    assert rows_of(runner.run(streaming)) == rows
    assert streaming.signature == pipeline.signature, "how steps are grouped is no part of what they make"

    before = dict(pipelines.given)
    runner.run(build_all_kinds(cache))
    assert dict(pipelines.given) == before, "one goes on where the other ended"


def test_lists_of_steps(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    defs = build_definitions(pipeline, load_groups=[["load", "scale"], ["leaf"]])
    assert op_names(defs) == {"line__stage_0", "line__leaf", "line__distiset"}
    runner.run(pipeline, defs=defs)
    assert list(runner.materialized()) == ["line/load", "line/scale", "line/leaf", "line/distiset"]


def test_unknown_step_in_a_group(cache: Path) -> None:
    with pytest.raises(LoadGroupError, match=r"names `scael`, which is no step. Did you mean `scale`"):
        build_definitions(build_line(cache), load_groups=[["scael"]])


def test_parameters_of_one_op_count_for_all(runner: Runner, cache: Path) -> None:
    """Each step's parameters are part of the one signature, so the first op must know of the last one's."""
    pipeline = build_line(cache)
    defs = build_definitions(pipeline, load_groups="sequential_step_execution")
    config = {"ops": {"line__leaf": {"config": {"leaf": {"factor": 9}}}}}
    message = runner.error(pipeline, defs=defs, run_config=config)
    assert "`leaf.factor` is 9" in message
    assert not runner.materialized()
    (key,) = runner.partitions("line_signatures")
    runner.run(pipeline, defs=defs, partition=key, run_config=config)
    assert {each.partition for each in runner.materialized().values()} == {key}


def test_use_cache_false_of_one_op(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    defs = build_definitions(pipeline, load_groups="sequential_step_execution")
    runner.run(pipeline, defs=defs)
    runner.run(pipeline, defs=defs, run_config={"ops": {"line__scale": {"config": {"use_cache": False}}}})
    assert runner.metadata("line/load")[BATCHES_COMPUTED] == 0
    assert runner.metadata("line/scale")[BATCHES_COMPUTED] == 4
    assert pipelines.given["scale", 0] == 2


def test_retry_policy_goes_on_within_the_run(
    runner: Runner, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_line(cache)
    defs = build_definitions(pipeline, on_error="raise", retry_policy=dg.RetryPolicy(max_retries=1))
    pipelines.fail_on.add(7)
    process = pipelines.Scale.process

    def heal(self: Any, inputs: Any) -> Any:
        try:
            yield from process(self, inputs)
        except ValueError:
            pipelines.fail_on.clear()
            raise

    monkeypatch.setattr(pipelines.Scale, "process", heal)
    assert runner.run(pipeline, defs=defs).success
    assert pipelines.given["scale", 7] == 2
    assert pipelines.given["scale", 0] == 1
