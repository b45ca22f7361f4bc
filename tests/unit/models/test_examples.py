"""Examples in docstrings run."""

import doctest
import importlib

import pytest

MODULES = {
    name: importlib.import_module(f"distilabel_dagster.{name}")
    for name in (
        "models.azure",
        "models.embeddings",
        "models.llm",
        "models.offline",
        "models.openai",
        "steps.tasks.task",
        "steps.tasks.text_generation",
    )
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = doctest.testmod(MODULES[name])
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted > 0


def test_distilabels_path_gives_the_same_classes() -> None:
    models = importlib.import_module("distilabel_dagster.models")
    llms = importlib.import_module("distilabel_dagster.models.llms")
    assert [name for name in llms.__all__ if getattr(llms, name) is not getattr(models, name)] == []
    embeddings = importlib.import_module("distilabel_dagster.models.embeddings")
    assert embeddings.Embeddings is models.Embeddings
    assert embeddings.OpenAIEmbeddings is models.OpenAIEmbeddings
