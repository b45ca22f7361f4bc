"""Steps as assets: `@distilabel_assets`, and what it's made of."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from distilabel_dagster.dag.load_stages import LoadGroups
from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.orchestration.events import FAILED_ROWS_CHECK
from distilabel_dagster.orchestration.metadata import STEP
from distilabel_dagster.orchestration.partitions import build_partitions_def
from distilabel_dagster.orchestration.translator import (
    DistilabelStepData,
    DistilabelTranslator,
    check_python_names,
    python_name,
)
from distilabel_dagster.pipeline import Pipeline

IO_MANAGER_KEY: Final = "distilabel_io_manager"


@dataclass(frozen=True, slots=True)
class StepGroup:
    """The steps of one op.

    Attributes:
        pipeline: their pipeline.
        op_name: the op.
        steps: the op's steps, in topological order.
        op_names: all ops of the pipeline -> their steps.
        asset_keys: step of the pipeline -> its asset key.
    """

    pipeline: Pipeline
    op_name: str
    steps: list[str]
    op_names: dict[str, list[str]]
    asset_keys: dict[str, dg.AssetKey]


_running: dict[tuple[str, str], StepGroup] = {}


def running_group(context: dg.AssetExecutionContext) -> StepGroup | None:
    """The group whose op this is, while it's running under `@distilabel_assets`."""
    return _running.get(_run_key(context))


def _run_key(context: dg.AssetExecutionContext) -> tuple[str, str]:
    return context.run.run_id, str(context.op_execution_context.op_handle)


def split_into_ops(pipeline: Pipeline, load_groups: LoadGroups | None) -> dict[str, list[str]]:
    """Give the ops that load groups make of a pipeline: name -> steps.

    Without load groups it's one op named as the pipeline, in which the steps stream. With them each load stage is an
    op: `<pipeline>__<step>` where it's a single step, `<pipeline>__stage_<n>` otherwise.
    """
    name = python_name(pipeline.name)
    if load_groups is None:
        return {name: pipeline.dag.topological_order()}
    stages = pipeline.get_load_stages(load_groups)
    return {
        f"{name}__{python_name(stage[0])}" if len(stage) == 1 else f"{name}__stage_{number}": stage
        for number, stage in enumerate(stages)
    }


def build_step_groups(
    pipeline: Pipeline, load_groups: LoadGroups | None, translator: DistilabelTranslator | None
) -> list[StepGroup]:
    """Give the groups of steps that become ops.

    Raises:
        PipelineDefinitionError: the pipeline can't run, or its names clash in Dagster.
    """
    pipeline.validate(parameters_may_be_missing=True)
    check_python_names(pipeline)
    keys = translate_keys(pipeline, translator or DistilabelTranslator())
    ops = split_into_ops(pipeline, load_groups)
    return [StepGroup(pipeline, op_name, steps, ops, keys) for op_name, steps in ops.items()]


def build_distilabel_asset_specs(
    pipeline: Pipeline,
    *,
    translator: DistilabelTranslator | None = None,
    steps: Sequence[str] | None = None,
    io_manager_key: str = IO_MANAGER_KEY,
) -> list[dg.AssetSpec]:
    """Give an asset spec per step, with the pipeline's partitions and the key of its IO manager.

    Args:
        pipeline: the pipeline.
        translator: makes the specs.
        steps: only these steps; all by default.
        io_manager_key: resource key of the IO manager.

    Raises:
        PipelineDefinitionError: the pipeline can't run.
    """
    pipeline.validate(parameters_may_be_missing=True)
    translator = translator or DistilabelTranslator()
    wanted = pipeline.dag.topological_order() if steps is None else list(steps)
    return _build_specs(pipeline, wanted, translate_keys(pipeline, translator), translator, io_manager_key)


def _build_specs(
    pipeline: Pipeline,
    steps: Sequence[str],
    keys: Mapping[str, dg.AssetKey],
    translator: DistilabelTranslator,
    io_manager_key: str,
) -> list[dg.AssetSpec]:
    return [
        complete_spec(
            translator.get_asset_spec(DistilabelStepData(pipeline, pipeline.dag.get_step(name))),
            pipeline,
            keys,
            io_manager_key,
            {STEP: name},
        )
        for name in steps
    ]


def translate_keys(pipeline: Pipeline, translator: DistilabelTranslator) -> dict[str, dg.AssetKey]:
    """Give the asset key of each step."""
    return {
        name: translator.get_asset_spec(DistilabelStepData(pipeline, step)).key
        for name, step in pipeline.dag.steps.items()
    }


def complete_spec(
    spec: dg.AssetSpec,
    pipeline: Pipeline,
    keys: Mapping[str, dg.AssetKey],
    io_manager_key: str,
    metadata: Mapping[str, Any],
) -> dg.AssetSpec:
    """Give a translator's spec what the pipeline's assets need to find each other, whatever their keys are.

    Args:
        spec: what the translator gave.
        pipeline: the pipeline.
        keys: step -> its asset key, of all steps of the pipeline; see `translate_keys`.
        io_manager_key: resource key of the pipeline's IO manager.
        metadata: what the IO manager knows the asset by.
    """
    translated = {dg.AssetKey([pipeline.name, name]): key for name, key in keys.items()}
    deps = [
        dg.AssetDep(translated.get(dep.asset_key, dep.asset_key), partition_mapping=dep.partition_mapping)
        for dep in spec.deps
    ]
    return (
        spec.replace_attributes(deps=deps, partitions_def=build_partitions_def(pipeline))
        .merge_attributes(metadata=metadata)
        .with_io_manager_key(io_manager_key)
    )


def distilabel_assets(
    *,
    pipeline: Pipeline,
    name: str | None = None,
    translator: DistilabelTranslator | None = None,
    io_manager_key: str = IO_MANAGER_KEY,
    pool: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Make an op of a function whose assets are all steps of a pipeline.

    The function yields what `DistilabelResource.run(context)` yields; steps stream in it, and each asset is
    materialized when its step ends. For an op per load group use `build_definitions(load_groups=...)`.

    Args:
        pipeline: the pipeline.
        name: the op's name; the pipeline's by default.
        translator: makes the specs.
        io_manager_key: resource key of a `DistilabelIOManager`.
        pool: the op's concurrency pool.
        op_tags: tags of the op.
        retry_policy: how the op is tried again when it fails.

    Raises:
        PipelineDefinitionError: the pipeline can't run.

    Examples:
        >>> import dagster as dg
        >>> from distilabel_dagster.pipeline import Pipeline
        >>> from distilabel_dagster.steps import LoadDataFromDicts
        >>> with Pipeline("greetings") as pipeline:
        ...     load = LoadDataFromDicts(name="load", data=[{"text": "hey"}])
        >>> @distilabel_assets(pipeline=pipeline)
        ... def greetings(context: dg.AssetExecutionContext, distilabel: DistilabelResource):
        ...     yield from distilabel.run(context)
    """
    (group,) = build_step_groups(pipeline, None, translator)
    if name is not None:
        group = StepGroup(pipeline, name, group.steps, {name: group.steps}, group.asset_keys)
    return _build_decorator(
        group, translator, io_manager_key, pool=pool, op_tags=op_tags, retry_policy=retry_policy
    )


def build_group_assets(
    group: StepGroup,
    function: Callable[..., Any],
    *,
    translator: DistilabelTranslator | None,
    io_manager_key: str,
    **options: Any,
) -> dg.AssetsDefinition:
    """Make the op of one group of steps."""
    return _build_decorator(group, translator, io_manager_key, **options)(function)


def _build_decorator(
    group: StepGroup, translator: DistilabelTranslator | None, io_manager_key: str, **options: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    specs = _build_specs(
        group.pipeline, group.steps, group.asset_keys, translator or DistilabelTranslator(), io_manager_key
    )
    checks = [
        dg.AssetCheckSpec(
            FAILED_ROWS_CHECK, asset=spec.key, description="No row is without the step's outputs."
        )
        for spec in specs
    ]

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        if not inspect.isgeneratorfunction(function):
            raise PipelineDefinitionError(
                f"`@distilabel_assets` on `{function.__name__}`: the function must yield, as in "
                "`yield from distilabel.run(context)`."
            )

        @functools.wraps(function)
        def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[Any]:
            key = _run_key(context)
            _running[key] = group
            try:
                yield from function(context, **inputs)
            finally:
                _running.pop(key, None)

        made: dg.AssetsDefinition = dg.multi_asset(
            name=group.op_name, specs=specs, check_specs=checks, can_subset=True, **options
        )(compute)
        return made

    return decorate
