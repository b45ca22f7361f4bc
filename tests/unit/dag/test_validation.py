from typing import Any

import pytest
from pydantic import Field

from distilabel_dagster.dag.routing import sample_n_steps
from distilabel_dagster.dag.validation import validate_dag
from distilabel_dagster.errors import (
    PipelineDefinitionError,
    RoutingError,
    RuntimeParameterError,
    StepColumnsError,
)
from distilabel_dagster.mixins.runtime_parameters import RuntimeParameter
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep, GlobalStep, LoadDataFromDicts, Step, StepResources


class Several(Step):
    """Takes any number of branches."""

    needs: list[str] = Field(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        return self.needs

    @property
    def outputs(self) -> list[str]:
        return [self.name]

    def process(self, *inputs: Any) -> Any:
        yield inputs[0]


class One(Several):
    def process(self, inputs: Any) -> Any:
        yield inputs


class Whole(GlobalStep):
    def process(self, *inputs: Any) -> Any:
        yield inputs[0]


class Needy(One):
    level: RuntimeParameter[int] = Field(default=None)


class OtherOffset(GeneratorStep):
    def process(self, start: int = 0) -> Any:
        yield [], True


def load(batch_size: int = 6) -> LoadDataFromDicts:
    return LoadDataFromDicts(name="load", data=[{"text": "x"}], batch_size=batch_size)


def problem_of(declare: Any, kind: type[Exception] = PipelineDefinitionError) -> str:
    with Pipeline("test") as pipeline:
        declare()
    with pytest.raises(kind) as caught:
        validate_dag(pipeline.dag)
    return str(caught.value)


def assert_told(told: str, *parts: str) -> None:
    assert [part for part in parts if part not in told] == []


def test_a_pipeline_needs_steps() -> None:
    assert "no steps" in problem_of(lambda: None)


def test_a_step_needs_a_predecessor() -> None:
    assert_told(problem_of(lambda: One(name="a")), "`a` has no predecessor", "load >> a", "run(dataset=...)")


def test_a_column_must_be_made_by_an_ancestor() -> None:
    def declare() -> None:
        load() >> One(name="a") >> One(name="b", needs=["txt"])

    told = problem_of(declare, StepColumnsError)
    assert_told(told, "`b` needs column `txt`", "`a`", "`text`", "Did you mean `text`", "input_mappings")


def test_a_column_may_come_from_any_ancestor_and_under_another_name() -> None:
    with Pipeline("test") as pipeline:
        last = load() >> One(name="a") >> One(name="b", needs=["text"])
        last >> One(name="c", needs=["query"], input_mappings={"query": "text"})
    validate_dag(pipeline.dag)


def test_mappings_rename_what_is_there() -> None:
    def declare() -> None:
        load() >> One(name="a", needs=["text"], input_mappings={"txet": "text"})

    assert_told(
        problem_of(declare), "`a`", "`input_mappings` renames `txet`", "Did you mean `text`", "step's name ->"
    )

    def declare_output() -> None:
        load() >> One(name="a", output_mappings={"b": "c"})

    assert_told(problem_of(declare_output), "`output_mappings` renames `b`", "Its outputs: `a`")


def test_a_step_takes_as_many_branches_as_it_has() -> None:
    def declare() -> None:
        load() >> [One(name="a"), One(name="b")] >> One(name="j")

    assert_told(problem_of(declare), "`j` follows 2 steps (`a`, `b`)", "takes 1 list of rows", "*inputs")


def test_a_generator_takes_an_offset_by_that_name() -> None:
    assert_told(problem_of(lambda: OtherOffset(name="a")), "`a`", "`offset`", "def process(self, offset=0)")


@pytest.mark.parametrize("size", [4, 7, 12])
def test_routed_batches_are_taken_without_remainder(size: int) -> None:
    def declare() -> None:
        (
            load()
            >> sample_n_steps(1)
            >> [One(name="a", input_batch_size=size), One(name="b", input_batch_size=3)]
        )

    told = problem_of(declare, RoutingError)
    assert_told(told, f"`a` takes {size} rows", "6 rows from `load`", "[1, 2, 3, 6]")


def test_a_routed_step_has_one_predecessor() -> None:
    def declare() -> None:
        source, routed = load(), Several(name="a", input_batch_size=6)
        source >> sample_n_steps(1) >> [routed, One(name="b", input_batch_size=6)]
        source_2 = LoadDataFromDicts(name="load_2", data=[{"n": 1}])
        source_2 >> routed

    assert_told(problem_of(declare, RoutingError), "`a`", "`load`", "only one predecessor")


def test_a_convergence_step_takes_no_more_than_its_branches_give() -> None:
    def declare() -> None:
        branches = [One(name="a", input_batch_size=2), One(name="b", input_batch_size=3)]
        load() >> sample_n_steps(1) >> branches >> Several(name="j", input_batch_size=3)

    assert_told(problem_of(declare, RoutingError), "`j`", "branches of `load`", "`a` gives 2")


def test_a_global_step_has_no_place_in_a_convergence_by_batches() -> None:
    def declare() -> None:
        branches = [Whole(name="g"), One(name="b", input_batch_size=3)]
        load() >> sample_n_steps(1) >> branches >> Several(name="j", input_batch_size=3)

    assert_told(problem_of(declare, RoutingError), "`j`", "global step `g`", "behind the join")


def test_branches_that_get_other_batches_cannot_be_joined_by_position() -> None:
    def declare() -> None:
        source = load()
        a, b = One(name="a", input_batch_size=6), One(name="b", input_batch_size=6)
        source >> sample_n_steps(1) >> [a, b]
        a >> One(name="c") >> (join := Several(name="j"))
        b >> join

    assert_told(problem_of(declare, RoutingError), "`j`", "`c` behind routed `a`", "`b` behind routed `b`")


def test_only_ordinary_steps_that_others_can_import_have_replicas() -> None:
    def on_global() -> None:
        load() >> Whole(name="g", resources=StepResources(replicas=2))

    assert_told(problem_of(on_global), "`g` asks for 2 replicas", "one sequence")

    class Local(One):
        pass

    def on_local() -> None:
        load() >> Local(name="a", resources=StepResources(replicas=2))

    assert_told(problem_of(on_local), "`a` asks for 2 replicas", "Local", "top of a module")


def test_all_missing_runtime_parameters_are_named_with_what_to_pass() -> None:
    def declare() -> None:
        load() >> Needy(name="a") >> Needy(name="b")

    told = problem_of(declare, RuntimeParameterError)
    assert_told(told, "`a.level`, `b.level`", 'run(parameters={"a": {"level": ...}})')
