"""What a plan says is what the run then does; and it pays nothing itself."""

from typing import Any

import pytest

from distilabel_dagster.engine.plan import RunPlan, describe_plan
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts
from tests.integration.planning.pipelines import (
    COST,
    IN,
    OUT,
    Half,
    OwnProcess,
    Topics,
    Total,
    add_task,
    asked,
    build_chain,
    fail_on,
    make_llm,
    make_rows,
    one_of_two,
)


def calls(plan: RunPlan) -> dict[str, tuple[int, int]]:
    """Step -> calls to make, and in the ledger."""
    return {step.step: (step.calls, step.calls_in_ledger) for step in plan.steps}


def run(pipeline: Pipeline, **options: Any) -> dict[str, int]:
    """Run; give the calls that each step's model got."""
    before = asked.copy()
    pipeline.run(**options)
    return {name.removeprefix("model-"): count for name, count in (asked - before).items()}


def test_plan_of_a_new_pipeline_counts_the_first_model_and_estimates_the_next(cache: str) -> None:
    plan = build_chain(cache).plan()
    assert asked.total() == 0
    ask, answer = plan.steps
    assert (ask.step, ask.model, ask.calls, ask.calls_in_ledger) == ("ask", "model-ask", 12, 0)
    assert (ask.is_estimated, ask.rows_expected) == (False, 0)
    assert (answer.calls, answer.is_estimated, answer.rows_expected) == (12, True, 12)
    assert (plan.calls, plan.is_estimated, plan.cost_usd) == (24, True, None)
    assert ask.input_tokens is not None, "from the length of the prompts"
    assert 12 * 5 < ask.input_tokens < 12 * 30
    assert ask.output_tokens is None
    assert plan.rows == {"load": 12, "ask": 12, "answer": 12}
    assert run(build_chain(cache)) == {"ask": 12, "answer": 12}


def test_what_was_computed_for_a_plan_is_kept(cache: str) -> None:
    build_chain(cache).plan()
    pipeline = build_chain(cache)
    started = next(iter(pipeline.iter_run(RunOptions(max_new_calls=0))))
    assert started.steps["load"].is_complete  # type: ignore[attr-defined]  # the first event of a run
    assert pipeline.open_cache().read_marker("load") is not None


def test_rows_after_a_plan_are_those_without_one(cache: str, tmp_path: Any) -> None:
    build_chain(cache).plan(sample=3)
    made = build_chain(cache).run()["default"]["train"].to_list()
    other = build_chain(str(tmp_path / "other")).run()["default"]["train"].to_list()
    assert made == other


def test_nothing_to_call_when_all_is_in_the_ledger(cache: str) -> None:
    run(build_chain(cache))
    plan = build_chain(cache).plan()
    assert calls(plan) == {"ask": (0, 12), "answer": (0, 12)}
    assert (plan.calls, plan.cost_usd, plan.input_tokens, plan.is_estimated) == (0, 0, 0, False)
    assert "A run makes no call" in str(plan)


def test_more_rows_are_counted_and_priced_like_those_before(cache: str) -> None:
    run(build_chain(cache))
    plan = build_chain(cache, rows=15).plan()
    assert calls(plan) == {"ask": (3, 12), "answer": (5, 10)}, (
        "a batch whose question lacks waits with its rows"
    )
    assert plan.input_tokens == 8 * IN
    assert plan.output_tokens == 8 * OUT
    assert plan.cost_usd == pytest.approx(8 * COST)
    assert run(build_chain(cache, rows=15)) == {"ask": 3, "answer": 3}


def test_edited_prompt_is_counted_exactly(cache: str) -> None:
    run(build_chain(cache))
    plan = build_chain(cache, second="Tell {{ it }}").plan()
    assert calls(plan) == {"ask": (0, 12), "answer": (12, 0)}
    assert not plan.is_estimated
    assert plan.cost_usd == pytest.approx(12 * COST)
    assert run(build_chain(cache, second="Tell {{ it }}")) == {"answer": 12}


def test_other_pipeline_with_the_same_requests_finds_them_in_the_ledger(cache: str) -> None:
    run(build_chain(cache))
    assert calls(build_chain(cache, name="another").plan()) == {"ask": (0, 12), "answer": (0, 12)}


def test_failed_rows_are_planned_as_the_next_run_calls_them(cache: str) -> None:
    fail_on.update({"text3", "text7"})
    run(build_chain(cache))
    fail_on.clear()
    plan = build_chain(cache).plan()
    assert calls(plan)["ask"] == (2, 10)
    assert plan.steps[0].is_estimated is False
    assert calls(plan)["answer"][0] == 2, "their questions are new, so their answers are asked for as well"
    assert plan.steps[1].is_estimated
    assert run(build_chain(cache)) == {"ask": 2, "answer": 2}
    assert build_chain(cache).plan().calls == 0


def test_generations_that_are_added_are_counted(cache: str) -> None:
    run(build_chain(cache, num_generations=2))
    plan = build_chain(cache, num_generations=3).plan()
    assert calls(plan)["ask"] == (12, 24)
    assert plan.rows["ask"] == 36
    assert plan.steps[1].calls == 36
    made = run(build_chain(cache, num_generations=3))
    assert made["ask"] == 12


def test_calls_that_two_steps_share_are_counted_once(cache: str) -> None:
    def build() -> Pipeline:
        with Pipeline("branches", cache_dir=cache) as pipeline:
            load = LoadDataFromDicts(name="load", data=make_rows(6))
            model = make_llm("model-both")
            load >> [add_task(name, "text", "said", llm=model) for name in ("left", "right")]
        return pipeline

    plan = build().plan()
    assert calls(plan) == {"left": (6, 0), "right": (0, 6)}
    assert run(build()) == {"both": 6}


def test_rows_that_a_filter_drops_later_arent_expected(cache: str) -> None:
    def build(rows: int) -> Pipeline:
        with Pipeline("halves", cache_dir=cache) as pipeline:
            load = LoadDataFromDicts(name="load", data=make_rows(rows), batch_size=4)
            ask = add_task("ask", "text", "question", input_batch_size=4)
            answer = add_task("answer", "question", "reply", input_batch_size=4)
            load >> ask >> Half(name="half", input_batch_size=4) >> answer
        return pipeline

    list(build(40).iter_run(RunOptions(max_new_calls=20)))
    plan = build(40).plan()
    assert calls(plan)["ask"] == (20, 20)
    assert plan.rows == {"load": 40, "ask": 40, "half": 20, "answer": 20}
    assert calls(plan)["answer"] == (12, 8), "in batches of 4, two of ten rows were left"
    assert run(build(40)) == {"ask": 20, "answer": 12}


def test_routed_rows_and_those_that_come_together_again(cache: str) -> None:
    def build() -> Pipeline:
        with Pipeline("routed", cache_dir=cache) as pipeline:
            load = LoadDataFromDicts(name="load", data=make_rows(12), batch_size=2)
            branches = [add_task(name, "text", "said", input_batch_size=2) for name in ("a", "b")]
            load >> one_of_two >> branches >> Total(name="total")
        return pipeline

    assert calls(build().plan()) == {"a": (6, 0), "b": (6, 0)}
    assert run(build()) == {"a": 6, "b": 6}


def test_step_that_asks_by_its_own_code_is_estimated(cache: str) -> None:
    with Pipeline("own", cache_dir=cache) as pipeline:
        load = LoadDataFromDicts(name="load", data=make_rows(6))
        load >> OwnProcess(name="own", llm=make_llm("model-own"), input_batch_size=4)
    (own,) = pipeline.plan().steps
    assert asked.total() == 0
    assert (own.calls, own.is_estimated, own.is_open) == (6, True, False)


def test_generator_that_asks_a_model_leaves_the_number_open(cache: str) -> None:
    with Pipeline("topics", cache_dir=cache) as pipeline:
        topics = Topics(name="topics", llm=make_llm("model-topics"))
        topics >> add_task("ask", "text", "question")
    plan = pipeline.plan()
    assert asked.total() == 0
    assert [(step.calls, step.is_open) for step in plan.steps] == [(0, True), (0, True)]
    assert plan.cost_usd is None
    assert "unknown" in str(plan)
    assert "nobody can tell" in str(plan)
    pipeline.run()
    assert not pipeline.plan().is_open


def test_pipeline_without_a_model_has_an_empty_plan(cache: str) -> None:
    with Pipeline("plain", cache_dir=cache) as pipeline:
        load = LoadDataFromDicts(name="load", data=make_rows(3))
        load >> Half(name="half")
    plan = pipeline.plan()
    assert (plan.steps, plan.calls, plan.cost_usd) == ([], 0, 0)
    assert plan.remarks == ["No step calls a model."]


def test_sample_tells_of_steps_behind_the_first_and_is_not_paid_again(cache: str) -> None:
    plan = build_chain(cache, rows=30).plan(sample=4)
    assert dict(asked) == {"model-ask": 4, "model-answer": 4}
    ask, answer = plan.steps
    assert (ask.calls, ask.calls_in_ledger) == (26, 4)
    assert ask.cost_usd == pytest.approx(26 * COST)
    assert answer.cost_usd == pytest.approx(answer.calls * COST)
    assert plan.output_tokens == plan.calls * OUT
    assert run(build_chain(cache, rows=30)) == {"ask": 26, "answer": 26}


def test_sample_makes_no_more_calls_than_asked_for_with_several_generations(cache: str) -> None:
    build_chain(cache, rows=30, num_generations=3).plan(sample=6)
    assert dict(asked) == {"model-ask": 6, "model-answer": 6}


def test_sample_larger_than_the_data_leaves_nothing_to_pay(cache: str) -> None:
    plan = build_chain(cache, rows=3).plan(sample=50)
    assert calls(plan) == {"ask": (0, 3), "answer": (0, 3)}
    assert dict(asked) == {"model-ask": 3, "model-answer": 3}


def test_sample_where_nothing_is_kept_pays_nothing() -> None:
    plan = build_chain("memory://planning-without-ledger").plan(sample=4)
    assert asked.total() == 0
    assert plan.calls == 24


@pytest.mark.parametrize("groups", ["sequential_step_execution", [["load"], ["ask", "answer"]]])
def test_load_groups_change_nothing(cache: str, groups: Any) -> None:
    plan = build_chain(cache).plan(load_groups=groups, sample=2)
    assert calls(plan) == {"ask": (10, 2), "answer": (12, 0)}
    assert asked.total() == 4


def test_steps_behind_one_that_isnt_complete_are_left_alone(cache: str) -> None:
    pipeline = build_chain(cache)
    place = pipeline.open_cache()
    assert list(pipeline.iter_free(place, steps=["answer"])) == []
    plan = pipeline.plan_calls(place)
    assert all(step.is_open for step in plan.steps), "nobody has looked at the data yet"
    list(pipeline.iter_free(place, steps=["load"]))
    assert calls(pipeline.plan_calls(place)) == {"ask": (12, 0), "answer": (12, 0)}


def test_dataset_can_be_planned(cache: str) -> None:
    with Pipeline("given", cache_dir=cache) as pipeline:
        add_task("ask", "text", "question")
    assert pipeline.plan(dataset=make_rows(4)).calls == 4
    assert pipeline.plan(dataset=make_rows(4), sample=1).calls == 3


def test_price_that_isnt_known_is_said_to_be_unknown(cache: str) -> None:
    pipeline = build_chain(cache, llm=make_llm("model-ask", has_price=False))
    run(pipeline)
    plan = build_chain(cache, rows=14, llm=make_llm("model-ask", has_price=False)).plan()
    ask = plan.steps[0]
    assert (ask.input_tokens, ask.cost_usd) == (2 * IN, None)
    assert plan.cost_usd is None
    assert plan.table[0][-1] == "unknown"


def test_plan_as_data_and_as_text(cache: str) -> None:
    run(build_chain(cache))
    plan = build_chain(cache, rows=1200).plan()
    content = describe_plan(plan)
    assert content["calls"] == sum(step["calls"] for step in content["steps"])
    assert content["steps"][0]["cost_usd"] == pytest.approx(1188 * COST)
    lines = str(plan).splitlines()
    assert lines[0].split("  ")[0] == "step"
    assert "1,188" in lines[1]
    assert "about 1,19" in lines[2]
    assert lines[3].startswith("in all")
