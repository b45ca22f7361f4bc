"""Words of a prompt that are in this package's code are part of the signature, so that a release may better them."""

from collections.abc import Callable
from typing import Any

import pytest

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.steps.tasks import (
    Rate,
    StructuredGeneration,
    TextClassification,
    checked_task,
    structured_generation,
)
from distilabel_dagster.steps.tasks.checked_task import CheckedTask
from tests.unit.steps.tasks.models import SchemaFollowing, Scripted

LLM = Scripted(answers=["x"])
TASKS: dict[str, Callable[..., CheckedTask]] = {
    "structured": lambda **more: StructuredGeneration(
        schema={"type": "object"}, name="t", **{"llm": LLM, **more}
    ),
    "classification": lambda **more: TextClassification(
        available_labels=["a", "b"], llm=LLM, name="t", **more
    ),
    "rate": lambda **more: Rate(criteria="x", scale={1: "a", 2: "b"}, llm=LLM, name="t", **more),
}


def sign(task: CheckedTask) -> str:
    return compute_signature(describe_identity(task))


@pytest.mark.parametrize("name", TASKS)
def test_the_words_of_a_repair_count_where_it_may_be_asked_for(name: str, monkeypatch: Any) -> None:
    before = sign(TASKS[name]()), sign(TASKS[name](repair_turns=1))
    monkeypatch.setattr(checked_task, "_REPAIR", "Once more, please: {problem}")
    assert sign(TASKS[name]()) == before[0]
    assert sign(TASKS[name](repair_turns=1)) != before[1]


def test_the_words_before_a_schema_count_where_it_is_written_out(monkeypatch: Any) -> None:
    sent = TASKS["structured"](llm=SchemaFollowing(answer="{}"))
    before = sign(TASKS["structured"]()), sign(sent)
    monkeypatch.setattr(structured_generation, "_FORM", "As JSON:")
    assert sign(TASKS["structured"]()) != before[0]
    assert sign(sent) == before[1]


@pytest.mark.parametrize(("name", "method"), [("classification", "_say_task"), ("rate", "_say_form")])
def test_the_words_of_the_prompt_count(name: str, method: str, monkeypatch: Any) -> None:
    task = TASKS[name]()
    before = sign(task)
    monkeypatch.setattr(type(task), method, lambda self: "In other words.")
    assert sign(task) != before
