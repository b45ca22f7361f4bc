"""How steps of a pipeline become asset specs; subclass the translator to change it."""

import re
from dataclasses import dataclass

import dagster as dg

from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.orchestration.metadata import STEP_CLASS
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps.step import BaseStep

DISTISET = "distiset"


def python_name(name: str) -> str:
    """The name as Dagster takes it for ops, jobs and config: letters, digits and `_`."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


@dataclass(frozen=True, slots=True)
class DistilabelStepData:
    """What the translator makes a spec of.

    Attributes:
        pipeline: the pipeline.
        step: the step; None for the pipeline's Distiset.
    """

    pipeline: Pipeline
    step: BaseStep | None


class DistilabelTranslator:
    """Gives each step, and the Distiset, its asset spec. Override `get_asset_spec` and change what it returns.

    Examples:
        >>> class InTeamGroup(DistilabelTranslator):
        ...     def get_asset_spec(self, data):
        ...         return super().get_asset_spec(data).replace_attributes(group_name="data_team")
    """

    def get_asset_spec(self, data: DistilabelStepData) -> dg.AssetSpec:
        """Give the spec of a step: key `[<pipeline>, <step>]`, group `<pipeline>`, its predecessors as deps.

        The key of what is returned may be another: deps on the pipeline's assets follow it, and so does the IO
        manager. Partitions, the IO manager and the metadata `distilabel/step` are set afterwards.
        """
        pipeline, step = data.pipeline, data.step
        group = python_name(pipeline.name)
        if step is None:
            leaves = [dg.AssetKey([pipeline.name, leaf]) for leaf in pipeline.leaf_steps]
            return dg.AssetSpec(
                dg.AssetKey([pipeline.name, DISTISET]),
                deps=leaves,
                description=f"The dataset that pipeline `{pipeline.name}` makes: a config per leaf step.",
                group_name=group,
                kinds={"distilabel", "huggingface"},
            )
        told = (type(step).__doc__ or "").strip().partition("\n")[0]
        return dg.AssetSpec(
            dg.AssetKey([pipeline.name, step.name]),
            deps=[dg.AssetKey([pipeline.name, name]) for name in pipeline.dag.predecessors(step.name)],
            description="\n\n".join(part for part in (told, _describe_columns(step)) if part),
            group_name=group,
            kinds={"distilabel", "parquet"},
            metadata={STEP_CLASS: f"{type(step).__module__}.{type(step).__qualname__}"},
        )


def _describe_columns(step: BaseStep) -> str:
    parts = []
    for title, columns in (("Reads", step.get_inputs()), ("Gives", step.get_outputs())):
        names = ", ".join(f"`{name}`" for name in columns)
        if names:
            parts.append(f"{title} {names}.")
    return " ".join(parts)


def check_python_names(pipeline: Pipeline) -> None:
    """Refuse step names that differ, but not for Dagster, which knows `_` only.

    Raises:
        PipelineDefinitionError: two steps would have the same output and config name.
    """
    seen: dict[str, str] = {}
    for name in pipeline.dag.steps:
        other = seen.setdefault(python_name(name), name)
        if other != name:
            raise PipelineDefinitionError(
                f"Pipeline `{pipeline.name}`: the steps `{other}` and `{name}` would have the same name in Dagster, "
                f"`{python_name(name)}`. Rename one of them."
            )
