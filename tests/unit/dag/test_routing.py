import random

import pytest

from distilabel_dagster.dag.routing import load_routing_batch_function, routing_batch_function, sample_n_steps
from distilabel_dagster.errors import PipelineFileError, RoutingError, UntrustedClassError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import KeepColumns, LoadDataFromDicts

STEPS = ["a", "b", "c"]


@routing_batch_function(description="Always the first.")
def first(steps: list[str]) -> list[str]:
    return steps[:1]


def by_length(length: int, *, reverse: bool = False):
    unused = object()

    @routing_batch_function()
    def choose(steps: list[str]) -> list[str]:
        return steps[-length:] if reverse else steps[:length]

    assert unused
    return choose


def every_other():
    state = {"turn": -1}

    @routing_batch_function()
    def choose(steps: list[str]) -> list[str]:
        state["turn"] += 1
        return [steps[state["turn"] % 2]]

    return choose


def test_a_function_gets_the_names_and_may_get_the_number() -> None:
    @routing_batch_function()
    def in_turn(steps: list[str], seq_no: int) -> list[str]:
        return [steps[seq_no % 3]]

    assert first.choose("load", STEPS, 5) == ["a"]
    assert [in_turn.choose("load", STEPS, n) for n in range(4)] == [["a"], ["b"], ["c"], ["a"]]


def test_choices_come_in_the_order_of_the_successors() -> None:
    assert by_length(2, reverse=True).choose("load", ["c", "a", "b"], 0) == ["a", "b"]


def test_sampled_steps_are_the_same_in_each_run_and_differ_between_batches() -> None:
    random.seed(1)
    once = [sample_n_steps(2).choose("load", STEPS, n) for n in range(20)]
    random.seed(2)
    assert [sample_n_steps(2).choose("load", STEPS, n) for n in range(20)] == once
    assert all(len(chosen) == 2 for chosen in once)
    assert len({tuple(chosen) for chosen in once}) == 3


def test_more_steps_than_there_are_cannot_be_sampled() -> None:
    with pytest.raises(RoutingError, match=r"sample_n_steps\(n=4\)"):
        sample_n_steps(4).choose("load", STEPS, 0)
    with pytest.raises(RoutingError, match="nowhere"):
        sample_n_steps(0)


def test_a_function_with_state_is_brought_to_where_a_resume_begins() -> None:
    fresh = every_other()
    assert fresh.choose("load", STEPS, 3) == ["b"]
    assert fresh.choose("load", STEPS, 4) == ["a"]


def test_a_batch_that_is_computed_again_goes_where_it_went_before() -> None:
    function = every_other()
    once = [function.choose("load", STEPS, n) for n in range(4)]
    assert [function.choose("load", STEPS, n) for n in (2, 3, 0)] == [once[2], once[3], once[0]]


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ([], r"chose \[\] for batch 0"),
        (None, "chose None"),
        ("a", "chose 'a'"),
        (["lpha"], "Did you mean `alpha`"),
    ],
)
def test_a_choice_that_would_lose_rows_is_refused(chosen, told: str) -> None:
    @routing_batch_function()
    def bad(steps: list[str]):
        return chosen

    with pytest.raises(RoutingError, match=told):
        bad.choose("load", ["alpha", "b"], 0)


def test_a_factory_s_arguments_are_stored_and_not_its_local_variables() -> None:
    dumped = by_length(2, reverse=True).dump()
    assert dumped["type_info"] == {
        "module": __name__,
        "name": "by_length",
        "kwargs": {"length": 2, "reverse": True},
    }


def test_functions_come_back_from_what_was_stored() -> None:
    assert load_routing_batch_function(first.dump(), "file") is first
    again = load_routing_batch_function(by_length(2).dump(), "file")
    assert again.choose("load", STEPS, 0) == ["a", "b"]
    sampled = load_routing_batch_function(sample_n_steps(2).dump(), "file")
    assert sampled.choose("load", STEPS, 7) == sample_n_steps(2).choose("load", STEPS, 7)


@pytest.mark.parametrize(
    "name", ["pytest", "random", "STEPS", "test_functions_come_back_from_what_was_stored"]
)
def test_what_is_no_routing_function_is_not_called(name: str) -> None:
    info = {"module": __name__, "name": name, "kwargs": {}}
    with pytest.raises((UntrustedClassError, PipelineFileError)):
        load_routing_batch_function({"type_info": info}, "file")


def test_a_system_function_is_refused_though_it_is_imported() -> None:
    info = {"module": "os", "name": "system", "kwargs": {"command": "true"}}
    with pytest.raises(UntrustedClassError, match=r"os\.system"):
        load_routing_batch_function({"type_info": info}, "file")


def test_wrong_arguments_are_an_error_that_names_the_file() -> None:
    dumped = by_length(2).dump()
    dumped["type_info"]["kwargs"] = {"width": 2}
    with pytest.raises(PipelineFileError, match=r"pipeline\.yaml.*by_length"):
        load_routing_batch_function(dumped, "pipeline.yaml")


def test_a_function_made_near_its_use_runs_whatever_the_arguments_around_it() -> None:
    with Pipeline("test") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"n": 1}])
        load >> by_length(object()) >> [KeepColumns(name="a", columns=["n"])]
    assert len(pipeline.signature) == 40
    assert "kwargs" not in pipeline.dag.routing["load"].dump()["type_info"]


def test_it_stands_between_steps() -> None:
    with pytest.raises(RoutingError, match="with the step first"):
        first >> ["a"]
    with pytest.raises(RoutingError, match="follows one step"):
        ["a"] >> first
