"""Examples of the tasks run, and each task says its columns and fields."""

import doctest
import importlib

import pytest

import distilabel_dagster.steps.tasks
from distilabel_dagster.steps import EmbeddingGeneration, Step
from distilabel_dagster.steps.tasks import GeneratorTask, GlobalTask, Task

MODULES = {
    name: importlib.import_module(f"distilabel_dagster.steps.tasks.{name}")
    for name in (
        "absent_keys",
        "chat_generation",
        "embedding_generation",
        "passages",
        "rate",
        "structured_generation",
        "task",
        "text_classification",
        "text_generation",
    )
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = doctest.testmod(MODULES[name])
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted > 0


def test_every_task_says_its_columns_and_fields() -> None:
    exported = [
        getattr(distilabel_dagster.steps.tasks, name) for name in distilabel_dagster.steps.tasks.__all__
    ]
    bases = (Task, GlobalTask, GeneratorTask)
    tasks = [
        each for each in exported if isinstance(each, type) and issubclass(each, Task) and each not in bases
    ]
    assert len(tasks) == 5
    for task in [*tasks, EmbeddingGeneration]:
        for section in (
            "Attributes:",
            "Runtime parameters:",
            "Input columns:",
            "Output columns:",
            "Examples:",
        ):
            assert f"    {section}\n" in task.__doc__, (task, section)
        inherited = set(Task.model_fields if issubclass(task, Task) else Step.model_fields)
        for field in set(task.model_fields) - inherited:
            assert f"        {task.model_fields[field].alias or field}: " in task.__doc__, (task, field)


def test_embeddings_are_where_distilabels_users_look_for_them() -> None:
    assert importlib.import_module("distilabel_dagster.steps").EmbeddingGeneration is EmbeddingGeneration
