"""`plan_only`: a run that says what a run would call and pay."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster import DistilabelIOManager, DistilabelResource, build_definitions, distilabel_assets
from distilabel_dagster.orchestration.metadata import (
    LLM_CALLS,
    PLAN_IS_ESTIMATED,
    PLAN_IS_OPEN,
    PLANNED_CALLS,
    PLANNED_CALLS_IN_LEDGER,
    PLANNED_COST_USD,
    PLANNED_INPUT_TOKENS,
    PLANNED_OUTPUT_TOKENS,
)
from distilabel_dagster.pipeline import Pipeline
from tests.llm_server import LLMServer
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import Scale, build_asking, build_line

OPS = {"load": "asking__load", "ask": "asking__ask", "answer": "asking__answer", "scale": "asking__scale"}


def plan(runner: Runner, pipeline: Pipeline, ops: list[str] | None = None, **options: Any) -> None:
    config = {"ops": {op: {"config": {"plan_only": True}} for op in ops or [pipeline.name]}}
    result = runner.run(pipeline, run_config=config, **options)
    assert result.success
    assert runner.status() == dg.DagsterRunStatus.SUCCESS
    assert runner.materialized() == {}


def planned(runner: Runner) -> dict[str, tuple[int, int]]:
    """Step -> planned calls, and those in the ledger, of the last run."""
    return {
        asset.removeprefix("asking/"): (found[PLANNED_CALLS], found[PLANNED_CALLS_IN_LEDGER])
        for asset, found in runner.observed().items()
    }


def test_first_plan_pays_and_materializes_nothing(runner: Runner, cache: Path, llm_server: LLMServer) -> None:
    pipeline = build_asking(cache)
    plan(runner, pipeline)
    assert llm_server.count() == 0
    assert planned(runner) == {"ask": (10, 0), "answer": (10, 0)}
    ask, answer = runner.observed().values()
    assert ask["partition"] == pipeline.signature
    assert (ask[PLAN_IS_ESTIMATED], answer[PLAN_IS_ESTIMATED]) == (False, True)
    assert not ask[PLAN_IS_OPEN]
    assert PLANNED_COST_USD not in ask, "nothing is known of calls like these yet"
    assert ask[PLANNED_INPUT_TOKENS] > 10
    skipped = runner.instance.all_logs(runner.runs[-1], of_type=dg.DagsterEventType.STEP_SKIPPED)
    assert [entry.step_key for entry in skipped] == ["asking__distiset"]
    assert [entry.partition for entry in runner.materialized().values()] == []
    (told,) = [message for message in runner.messages() if "calls to make" in message]
    assert "| step | model | calls to make | in the ledger | tokens in | tokens out | cost |" in told
    assert "| ask | tiny | 10 | 0 |" in told
    assert "| answer | tiny | about 10 | 0 |" in told
    assert not [
        message for message in runner.messages() if "Stopped" in message or "stop received" in message
    ]
    assert runner.partitions("asking_signatures") == [pipeline.signature]


def test_run_after_a_plan_finds_what_it_computed_and_the_next_plan_knows_prices(
    runner: Runner, cache: Path, llm_server: LLMServer
) -> None:
    plan(runner, build_asking(cache))
    runner.run(build_asking(cache))
    assert "`load` (10 rows)" in runner.messages()[0]
    assert runner.metadata("asking/ask")[LLM_CALLS] == 10
    plan(runner, build_asking(cache))
    assert planned(runner) == {"ask": (0, 10), "answer": (0, 10)}
    assert [each[PLANNED_COST_USD] for each in runner.observed().values()] == [0, 0]

    plan(runner, build_asking(cache, template="Say something about {{ question }}"))
    assert planned(runner) == {"ask": (0, 10), "answer": (10, 0)}
    found = runner.observed()["asking/answer"]
    assert found[PLANNED_COST_USD] == pytest.approx(
        (found[PLANNED_INPUT_TOKENS] + found[PLANNED_OUTPUT_TOKENS]) / 1000, rel=0.05
    )
    assert llm_server.count() == 20


@pytest.mark.parametrize("groups", ["sequential_step_execution", [["load", "ask"], ["answer"], ["scale"]]])
def test_first_op_plans_those_that_are_skipped_behind_it(
    runner: Runner, cache: Path, llm_server: LLMServer, groups: Any
) -> None:
    pipeline = build_asking(cache)
    defs = build_definitions(pipeline, load_groups=groups)
    ops = [assets.op.name for assets in defs.assets or [] if "distiset" not in assets.op.name]  # type: ignore[union-attr]
    plan(runner, pipeline, ops, defs=defs)
    assert planned(runner) == {"ask": (10, 0), "answer": (10, 0)}
    plan(runner, pipeline, ops[:1], defs=defs)
    assert planned(runner) == {"ask": (10, 0), "answer": (10, 0)}
    assert llm_server.count() == 0


def test_op_behind_what_isnt_there_yet_estimates(runner: Runner, cache: Path, llm_server: LLMServer) -> None:
    pipeline = build_asking(cache)
    defs = build_definitions(pipeline, load_groups="sequential_step_execution")
    answer = dg.AssetKey(["asking", "answer"])
    plan(runner, pipeline, [OPS["answer"]], defs=defs, select=[answer])
    found = runner.observed()["asking/answer"]
    assert (found[PLANNED_CALLS], found[PLAN_IS_OPEN]) == (0, True), "the data wasn't looked at"

    plan(runner, pipeline, [OPS["load"]], defs=defs, select=[dg.AssetKey(["asking", "load"])])
    assert runner.observed() == {}, "other steps weren't asked for"
    plan(runner, pipeline, [OPS["answer"]], defs=defs, select=[answer])
    found = runner.observed()["asking/answer"]
    assert (found[PLANNED_CALLS], found[PLAN_IS_ESTIMATED], found[PLAN_IS_OPEN]) == (10, True, False)
    assert llm_server.count() == 0


def test_later_op_alone_plans_after_those_before_have_run(
    runner: Runner, cache: Path, llm_server: LLMServer
) -> None:
    pipeline = build_asking(cache)
    defs = build_definitions(pipeline, load_groups="sequential_step_execution")
    config = {"ops": {OPS["answer"]: {"config": {"plan_only": True}}}}
    result = runner.run(pipeline, defs=defs, run_config=config)
    assert result.success
    assert set(runner.materialized()) == {"asking/load", "asking/ask"}
    assert planned(runner) == {"answer": (10, 0)}
    assert llm_server.count() == 10


def test_plan_computes_nothing_anew(runner: Runner, cache: Path, llm_server: LLMServer) -> None:
    runner.run(build_asking(cache))
    plan_config = {"ops": {"asking": {"config": {"plan_only": True, "use_cache": False}}}}
    runner.run(build_asking(cache), run_config=plan_config)
    assert planned(runner) == {"ask": (0, 10), "answer": (0, 10)}
    runner.run(build_asking(cache))
    assert "left: nothing" in runner.messages()[0]


def test_pipeline_without_a_model(runner: Runner, cache: Path) -> None:
    plan(runner, build_line(cache))
    assert runner.observed() == {}
    assert "No step calls a model." in runner.messages()


def test_function_of_a_users_own_can_plan(runner: Runner, cache: Path, llm_server: LLMServer) -> None:
    pipeline = build_asking(cache)

    @distilabel_assets(pipeline=pipeline)
    def asking(context: dg.AssetExecutionContext, distilabel: DistilabelResource) -> Any:
        yield from distilabel.run(context, plan_only=True)

    defs = dg.Definitions(
        assets=[asking],
        jobs=[dg.define_asset_job("asking_job", tags={"dagster/partition": pipeline.signature})],
        resources={
            "distilabel": DistilabelResource(),
            "distilabel_io_manager": DistilabelIOManager(cache_dir=str(cache)),
        },
    )
    result = runner.run(pipeline, defs=defs)
    assert result.success
    assert planned(runner) == {"ask": (10, 0), "answer": (10, 0)}
    assert llm_server.count() == 0


def test_step_may_be_called_as_the_option(runner: Runner, cache: Path) -> None:
    with Pipeline("named", cache_dir=str(cache)) as pipeline:
        load = build_line(cache).dag.steps["load"].model_copy(update={"name": "load", "pipeline": pipeline})
        pipeline.dag.add_step(load)
        load >> Scale(name="plan_only")
    config = {"ops": {"named": {"config": {"step_plan_only": {"factor": 2}, "plan_only": True}}}}
    assert runner.run(pipeline, run_config=config).success
