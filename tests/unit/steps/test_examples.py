"""Examples in docstrings run, and the names are where distilabel's users look for them."""

import doctest
import importlib

import pytest

import distilabel_dagster.steps
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.steps.step import Step

MODULES = {
    name: importlib.import_module(f"distilabel_dagster.steps.{name}")
    for name in (
        "columns",
        "decorator",
        "dedup",
        "filtering",
        "generators.data",
        "generators.data_sampler",
        "generators.file_system",
        "generators.huggingface",
        "step",
    )
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = doctest.testmod(MODULES[name])
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted > 0


def test_every_step_has_an_example_and_says_its_columns() -> None:
    steps = [getattr(distilabel_dagster.steps, name) for name in distilabel_dagster.steps.__all__]
    own = [s for s in steps if isinstance(s, type) and s.__module__.startswith("distilabel_dagster.steps.") and s.__module__ not in (Step.__module__, "distilabel_dagster.steps.resources")]  # fmt: skip
    assert len(own) == 12
    for step in own:
        assert ">>>" in step.__doc__
        for field in set(step.model_fields) - set(Step.model_fields) - {"batch_size", "storage_options"}:
            assert field in step.__doc__ or field in (step.__base__.__doc__ or ""), (step, field)


def test_distilabels_paths_give_the_same_names() -> None:
    mixins = importlib.import_module("distilabel_dagster.mixins.runtime_parameters")
    typing = importlib.import_module("distilabel_dagster.typing")
    assert mixins.RuntimeParameter is RuntimeParameter
    assert typing.StepOutput is distilabel_dagster.steps.StepOutput
    assert typing.GeneratorStepOutput is distilabel_dagster.steps.GeneratorStepOutput
