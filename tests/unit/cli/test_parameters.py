from typing import Any

import click
import pytest
from pydantic import Field

from distilabel_dagster.base.runtime_parameters import RuntimeParameter, RuntimeParametersMixin
from distilabel_dagster.cli.parameters import Parameters, read_parameters
from distilabel_dagster.errors import RuntimeParameterError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts, Step, StepInput, StepOutput


class Model(RuntimeParametersMixin):
    kwargs: RuntimeParameter[dict[str, Any]] = Field(default_factory=lambda: {"top_p": 0.9})


class Ask(Step):
    prefix: RuntimeParameter[str] = Field(default="")
    count: RuntimeParameter[int] = Field(default=1)
    is_loud: RuntimeParameter[bool] = Field(default=False)
    names: RuntimeParameter[list[str]] = Field(default_factory=list)
    share: RuntimeParameter[float] | None = Field(default=0.5)
    llm: Model = Field(default_factory=Model)

    def process(self, *inputs: StepInput) -> StepOutput:
        yield inputs[0]


@pytest.fixture
def pipeline() -> Pipeline:
    with Pipeline("p") as made:
        LoadDataFromDicts(name="load", data=[{"text": "hey"}]) >> Ask(name="ask")
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ask.count=3", {"count": 3}),
        ("ask.prefix=Say it: now", {"prefix": "Say it: now"}),
        ("ask.prefix=a=b", {"prefix": "a=b"}),
        ("ask.prefix=no", {"prefix": "no"}),
        ("ask.prefix=2024-01-01", {"prefix": "2024-01-01"}),
        ("ask.prefix=", {"prefix": ""}),
        # What the type refuses as a number is text.
        ("ask.prefix=5", {"prefix": "5"}),
        ('ask.prefix="5"', {"prefix": "5"}),
        ("ask.is_loud=True", {"is_loud": True}),
        ("ask.share=1e-3", {"share": 1e-3}),
        ("ask.share=null", {"share": None}),
        ('ask.names=["a", "b"]', {"names": ["a", "b"]}),
        ("ask.names=[a, b]", {"names": ["a", "b"]}),
        ("ask.llm.kwargs.temperature=0.3", {"llm": {"kwargs": {"top_p": 0.9, "temperature": 0.3}}}),
        ('ask.llm.kwargs={"stop": ["."]}', {"llm": {"kwargs": {"stop": ["."]}}}),
    ],
)
def test_value_is_read_as_the_parameter_takes_it(
    pipeline: Pipeline, text: str, expected: dict[str, Any]
) -> None:
    assert read_parameters(pipeline, [text]) == {"ask": expected}


def test_several_parameters_come_together_and_the_last_of_one_counts(pipeline: Pipeline) -> None:
    texts = ["load.batch_size=5", "ask.llm.kwargs.a=1", "ask.llm.kwargs.b.c=2", "load.batch_size=6"]
    found: Parameters = read_parameters(pipeline, texts)
    assert found == {
        "load": {"batch_size": 6},
        "ask": {"llm": {"kwargs": {"top_p": 0.9, "a": 1, "b": {"c": 2}}}},
    }


def test_pipeline_is_as_before(pipeline: Pipeline) -> None:
    signature = pipeline.signature
    read_parameters(pipeline, ["ask.count=3", "ask.llm.kwargs.temperature=0.3"])
    assert pipeline.signature == signature
    assert pipeline.dag.steps["ask"].llm.kwargs == {"top_p": 0.9}  # type: ignore[attr-defined]  # a field of Ask


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ask.cuont=3", "Did you mean `count`"),
        ("aks.count=3", "Did you mean `ask`"),
        ("ask.count=three", "`ask.count` can't be 'three'"),
        ("ask.count=1.5", "`ask.count` can't be 1.5"),
        ("ask.llm.kwarg.temperature=0.3", "Did you mean `kwargs`"),
    ],
)
def test_what_the_pipeline_refuses_is_told_with_near_matches(
    pipeline: Pipeline, text: str, told: str
) -> None:
    with pytest.raises(RuntimeParameterError, match=told):
        read_parameters(pipeline, ["load.batch_size=5", text])


def test_key_inside_what_was_given_whole_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(RuntimeParameterError, match=r"`ask\.names\.x` can't be set"):
        read_parameters(pipeline, ["ask.names=[a]", "ask.names.x=b"])


@pytest.mark.parametrize("text", ["ask.count", "count=3", "=3", "ask.=3", ".count=3"])
def test_what_names_no_parameter_is_wrong_usage(pipeline: Pipeline, text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"<step>\.<parameter>=<value>"):
        read_parameters(pipeline, [text])
