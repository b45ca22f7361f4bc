"""`pipeline.yaml` as data: what's taken for the pipeline of a signature, and what isn't."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from distilabel_dagster.cache.frozen_pipeline import parse_frozen
from distilabel_dagster.dag.signature import compute_pipeline_signature
from distilabel_dagster.pipeline import Pipeline, sample_n_steps
from distilabel_dagster.steps import CombineOutputs, KeepColumns, LoadDataFromDicts


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    with Pipeline("frozen", cache_dir="memory://frozen") as made:
        load = LoadDataFromDicts(name="load", data=[{"a": 1}])
        branches = [KeepColumns(name=name, columns=["a"], input_batch_size=5) for name in ("x", "y", "z")]
        joined = CombineOutputs(name="joined", input_batch_size=5)
        load >> sample_n_steps(2) >> branches >> joined
        load >> KeepColumns(name="other", columns=["a"])
    return made


@pytest.fixture
def content(pipeline: Pipeline) -> dict[str, Any]:
    return copy.deepcopy(pipeline.freeze(pipeline.open_cache()))


def test_it_says_of_the_graph_what_the_pipeline_does(pipeline: Pipeline, content: dict[str, Any]) -> None:
    frozen = parse_frozen(content, pipeline.signature)
    dag = pipeline.dag
    assert frozen.name == "frozen"
    assert frozen.step_signatures == pipeline.step_signatures
    assert list(frozen.leaf_steps) == pipeline.leaf_steps
    for step in frozen.steps:
        assert list(step.predecessors) == dag.predecessors(step.name)
        assert step.is_convergence == (dag.convergence_source(step.name) is not None)
        assert step.input_batch_size == getattr(dag.steps[step.name], "input_batch_size", None)
    assert compute_pipeline_signature("frozen", dag, frozen.step_signatures) == pipeline.signature


def _flip_digit(text: str) -> str:
    return ("0" if text[0] != "0" else "1") + text[1:]


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no mapping": (lambda _: [], "the file is a list, expected a mapping"),
    "no pipeline": (lambda c: c.pop("pipeline") and c, "`pipeline` is missing"),
    "no signatures": (lambda c: c.pop("signatures") and c, "`signatures` is missing"),
    "another pipeline": (
        lambda c: c["signatures"].update(pipeline="0" * 40) or c,
        "it holds the pipeline '0{40}', expected",
    ),
    "another name": (lambda c: c["pipeline"].update(name="frozem") or c, "don't make up the signature"),
    "another leaf": (
        lambda c: (
            c["signatures"]["steps"].update(joined=_flip_digit(c["signatures"]["steps"]["joined"])) or c
        ),
        "don't make up the signature",
    ),
    "no signature": (lambda c: c["signatures"]["steps"].update(x="A" * 40) or c, "where a signature belongs"),
    "a number for a signature": (lambda c: c["signatures"]["steps"].update(x=7) or c, "has 7 where"),
    "a path for a name": (
        lambda c: c["signatures"]["steps"].update({"../x": "0" * 40}) or c,
        "'../x', which none can be called",
    ),
    "a step more": (
        lambda c: c["signatures"]["steps"].update(w="0" * 40) or c,
        "aren't those of the same steps: `w`",
    ),
    "a step twice": (
        lambda c: c["pipeline"]["steps"].append(c["pipeline"]["steps"][0]) or c,
        "two steps called `load`",
    ),
    "a step that's text": (lambda c: c["pipeline"]["steps"].append("x") or c, "a step is a str"),
    "steps that are a mapping": (lambda c: c["pipeline"].update(steps={}) or c, "expected a list"),
    "an edge to nowhere": (
        lambda c: c["pipeline"]["connections"][0]["to"].append("w") or c,
        "connects a step 'w'",
    ),
    "an edge of a list": (
        lambda c: c["pipeline"]["connections"][0].update({"from": ["load"]}) or c,
        "connects a step",
    ),
    "an edge less": (lambda c: c["pipeline"]["connections"].pop() and c, "there's no step that it follows"),
    "routing behind nothing": (
        lambda c: c["pipeline"]["routing_batch_functions"][0].update(step="w") or c,
        "connects a step 'w'",
    ),
    "batches of no rows": (
        lambda c: c["pipeline"]["steps"][1]["step"].update(input_batch_size=0) or c,
        "input_batch_size 0",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_not_taken_for_the_pipeline(
    pipeline: Pipeline, content: dict[str, Any], change: str
) -> None:
    harm, told = CHANGES[change]
    with pytest.raises(ValueError, match=told.replace("../x", re.escape("../x"))):
        parse_frozen(harm(content), pipeline.signature)


def test_a_signature_of_a_later_scheme_is_not_computed(pipeline: Pipeline, content: dict[str, Any]) -> None:
    content["signatures"]["scheme"] += 1
    content["pipeline"]["name"] = "renamed"
    assert parse_frozen(content, pipeline.signature).name == "renamed"
