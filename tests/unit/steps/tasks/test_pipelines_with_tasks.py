"""Every task in a pipeline: files give the same signature, rows the same columns, processes the same task."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts
from distilabel_dagster.steps.tasks import (
    ChatGeneration,
    Rate,
    StructuredGeneration,
    Task,
    TextClassification,
    TextGeneration,
)
from tests.unit.steps.tasks.models import Scripted


class Bird(BaseModel):
    name: str
    legs: int = 2


SCALE = {1: "untrue — „falsch“", 10: "true"}
COMPARED = '{"reason_a": "x", "score_a": 1, "reason_b": "y", "score_b": 2, "preference": "b"}'
LABELS = {"zebra": "has stripes: {{ x }}", "ant": "small\nand many 🐜"}
ROW = {
    "instruction": "Name {{ one }}.",
    "generation": "wren",
    "generations": ["wren", "owl"],
    "text": "{% if %}",
    "messages": [{"role": "user", "content": "hi"}],
    "structured_output": '{"schema": {"type": "object"}}',
}
TASKS: dict[str, tuple[type[Task], dict[str, Any], str]] = {
    "text": (TextGeneration, {"template": "{{ text }}!", "columns": ["text"], "system_prompt": "ö"}, "fine"),
    "chat": (ChatGeneration, {"system_prompt": "Be {{ brief }}."}, "fine"),
    "structured by a class": (StructuredGeneration, {"schema": Bird, "repair_turns": 1}, '{"name": "ü"}'),
    "structured by a schema": (
        StructuredGeneration,
        {"schema": Bird.model_json_schema(), "fields_as_columns": True},
        '{"name": "wren", "legs": 2}',
    ),
    "structured by the row": (StructuredGeneration, {"use_default_structured_output": False}, "{}"),
    "one label": (TextClassification, {"available_labels": LABELS, "examples": ["a -> ant"]}, "ant"),
    "two labels": (TextClassification, {"available_labels": ["b", "a"], "n": 2}, "a, b"),
    "labels of its own": (TextClassification, {"default_label": None, "system_prompt": None}, "x"),
    "rate": (Rate, {"criteria": "x", "scale": SCALE}, '{"reason": "x", "score": 10}'),
    "compare": (Rate, {"criteria": ["x", "y"], "scale": SCALE, "mode": "pairwise"}, COMPARED),
    "compare columns": (
        Rate,
        {"criteria": "x", "scale": SCALE, "mode": "pairwise", "columns": ["text", "generation"]},
        COMPARED,
    ),
}


@pytest.fixture(params=TASKS)
def build(request: pytest.FixtureRequest) -> Callable[..., Pipeline]:
    cls, fields, answer = TASKS[request.param]

    def build_pipeline(**more: Any) -> Pipeline:
        with Pipeline("tasks") as pipeline:
            load = LoadDataFromDicts(name="load", data=[ROW, {**dict.fromkeys(ROW), "n": 1}])
            load >> cls(name="ask", llm=Scripted(answers=[answer]), **fields, **more)
        return pipeline

    return build_pipeline


def test_files_give_the_same_pipeline(build: Callable[..., Pipeline], tmp_path: Path) -> None:
    pipeline = build()
    pipeline.save(tmp_path / "p.yaml")
    pipeline.save(tmp_path / "p.json", format="json")
    for read in (Pipeline.from_yaml(tmp_path / "p.yaml"), Pipeline.from_json(tmp_path / "p.json")):
        assert read.signature == pipeline.signature
        assert read.dump() == pipeline.dump()
        ask, again = pipeline.dag.steps["ask"], read.dag.steps["ask"]
        assert isinstance(ask, Task)
        assert isinstance(again, Task)
        assert again.format_input(ROW) == ask.format_input(ROW)


def test_another_process_gets_the_same_task(build: Callable[..., Pipeline]) -> None:
    step = build().dag.steps["ask"]
    assert isinstance(step, Task)
    step.pipeline = None
    rows = step.run_process([ROW])
    assert pickle.loads(pickle.dumps(step)).run_process([ROW]) == rows


def test_rows_have_the_columns_that_are_declared(build: Callable[..., Pipeline]) -> None:
    step = build().dag.steps["ask"]
    assert isinstance(step, Task)
    fine, failed = step.run_process([ROW, dict.fromkeys(ROW)])
    assert step.row_error(fine) is None, step.row_error(fine)
    assert step.row_error(failed) is not None
    added = [*step.get_outputs(), "distilabel_metadata"]
    for row in (fine, failed):
        assert set(row) == {*ROW, *added}
    assert all(fine[column] is not None for column in step.get_outputs())
    assert {failed[column] for column in step.get_outputs()} == {None, "scripted"}


def test_a_run_keeps_failed_rows_in_their_places(build: Callable[..., Pipeline]) -> None:
    pipeline = build(num_generations=2, group_generations=True)
    rows = pipeline.dry_run(batch_size=2)["default"]["train"].to_list()
    assert [row["n"] for row in rows] == [None, 1]
    for name in pipeline.dag.steps["ask"].get_outputs():
        if name != "model_name":
            assert rows[1][name] == [None, None]
            assert len(rows[0][name]) == 2
            assert None not in rows[0][name]
    assert json.dumps(rows, default=str)


@pytest.mark.parametrize("repair_turns", [0, 1])
def test_a_run_gives_answers_back_that_cant_be_used(repair_turns: int) -> None:
    llm = Scripted(answers=["no JSON", '{"name": "owl"}'])
    with Pipeline("repairs", enable_metadata=True) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": "Name a bird."}])
        load >> StructuredGeneration(name="ask", llm=llm, schema=Bird, repair_turns=repair_turns)
    (row,) = pipeline.dry_run()["default"]["train"].to_list()
    assert len(llm.asked) == 1 + repair_turns
    metadata = row["distilabel_metadata"]
    assert metadata["statistics_ask"]["input_tokens"] == 10 * (1 + repair_turns)
    if repair_turns:
        assert json.loads(row["generation"]) == {"name": "owl", "legs": 2}
    else:
        assert row["generation"] is None
        assert metadata["raw_output_ask"] == "no JSON"
