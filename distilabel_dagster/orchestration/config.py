"""Runtime parameters as run config: a typed model per step, with the defaults in the launchpad."""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from distilabel_dagster.base.runtime_parameters import RuntimeParametersMixin
from distilabel_dagster.base.serializable import is_secret_name
from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.orchestration.translator import python_name
from distilabel_dagster.pipeline import Pipeline

_OPTIONS = ("use_cache",)


def build_config_class(pipeline: Pipeline, steps: list[str]) -> type[dg.Config]:
    """Make the config class of an op: a field per step with its runtime parameters, and `use_cache`.

    Secrets have no field, since run config is stored in plain text; neither have rows.

    Raises:
        PipelineDefinitionError: a step is called as an option of the run.
    """
    fields: dict[str, Any] = {
        "use_cache": (
            bool,
            Field(True, description="False computes the steps anew instead of going on from the cache."),
        )
    }
    for name in steps:
        if python_name(name) in _OPTIONS:
            raise PipelineDefinitionError(
                f"Pipeline `{pipeline.name}`: a step can't be called `{name}`, as an option of the run config is. "
                "Rename it."
            )
        model = _build_model(pipeline.dag.steps[name], f"{python_name(name)}_config")
        description = f"Runtime parameters of step `{name}`."
        fields[python_name(name)] = (model, Field(default_factory=model, description=description))
    made: type[dg.Config] = create_model(f"{python_name(pipeline.name)}_config", __base__=dg.Config, **fields)
    return made


def _build_model(owner: RuntimeParametersMixin, name: str) -> type[dg.Config]:
    fields: dict[str, Any] = {}
    for parameter, info, _ in owner.iter_runtime_parameters():
        if info.exclude or is_secret_name(parameter):
            continue
        fields[parameter] = _build_field(info, getattr(owner, parameter))
    for nested, value in owner.nested_parameters().items():
        model = _build_model(value, f"{name}_{nested}")
        fields[nested] = (
            model,
            Field(default_factory=model, description=f"Runtime parameters of `{nested}`."),
        )
    made: type[dg.Config] = create_model(name, __base__=dg.Config, **fields)
    return made


def _build_field(info: FieldInfo, value: Any) -> tuple[Any, Any]:
    kind = _config_type(info.annotation)
    return (kind | None if kind is not Any else Any), Field(value, description=info.description)


def _config_type(annotation: Any) -> Any:
    """The type that Dagster's config system knows for a parameter; `Any` where it has none."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _config_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        kinds = [_config_type(each) for each in get_args(annotation) if each is not type(None)]
        return kinds[0] if len(set(map(str, kinds))) == 1 else Any
    if origin is Literal:
        kinds = list({type(each) for each in get_args(annotation)})
        return kinds[0] if len(kinds) == 1 else Any
    plain = {bool: bool, int: int, float: float, str: str}.get(annotation)
    if plain is not None:
        return plain
    if (origin or annotation) is dict:
        return dict[str, Any]
    return list[Any] if (origin or annotation) is list else Any


def read_parameters(
    pipeline: Pipeline, run_config: Mapping[str, Any], op_names: Mapping[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """Give the runtime parameters in a run's config that differ from the pipeline's own values.

    All ops of the pipeline count, since each step's parameters are part of the one signature. A value that's written
    out but equal to the present default counts as not given: the launchpad writes all of them.

    Args:
        pipeline: the pipeline as it's defined.
        run_config: the run's whole config.
        op_names: op -> its steps.
    """
    found: dict[str, dict[str, Any]] = {}
    ops = run_config.get("ops") or {}
    for op_name, steps in op_names.items():
        config = (ops.get(op_name) or {}).get("config") or {}
        for step in steps:
            given = config.get(python_name(step))
            if isinstance(given, Mapping):
                differing = _differing(pipeline.dag.steps[step], given)
                if differing:
                    found[step] = differing
    return found


def _differing(owner: RuntimeParametersMixin, given: Mapping[str, Any]) -> dict[str, Any]:
    nested = owner.nested_parameters()
    differing: dict[str, Any] = {}
    for name, value in given.items():
        if name in nested and isinstance(value, Mapping):
            inner = _differing(nested[name], value)
            if inner:
                differing[name] = inner
        elif getattr(owner, name, None) != value:
            differing[name] = value
    return differing
