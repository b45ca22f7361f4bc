"""Runtime parameters as run config: a typed model per step, with the defaults in the launchpad."""

import warnings
from collections.abc import Mapping
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from distilabel_dagster.base.runtime_parameters import RuntimeParametersMixin
from distilabel_dagster.base.serializable import dump_value, is_dumped, is_secret_name
from distilabel_dagster.engine.run_state import WhenInUse
from distilabel_dagster.errors import PipelineDefinitionError, RuntimeParameterError
from distilabel_dagster.orchestration.translator import python_name
from distilabel_dagster.pipeline import Pipeline

_OF_THE_OP: Final = ("use_cache", "plan_only", "when_in_use")

# Made by a call, since a member can't be written as `raise`: by the members' names Dagster knows the values.
WhenInUseChoice = Enum("WhenInUseChoice", {each: each for each in get_args(WhenInUse)})  # type: ignore[misc]  # the names are a type's
"""The choices of `when_in_use` as run config knows them."""


def config_name(step: str) -> str:
    """What a step is called in run config: its name as Dagster takes it, or `step_<name>` where that isn't free."""
    name = python_name(step)
    is_free = not name.startswith("_") and not hasattr(dg.Config, name) and name not in _OF_THE_OP
    return name if is_free else f"step_{name.lstrip('_')}"


def build_config_class(pipeline: Pipeline, steps: list[str]) -> type[dg.Config]:
    """Make the config class of an op: a field per step with its runtime parameters, and what the op itself is told.

    Secrets have no field, since run config is stored in plain text; neither have rows.

    Raises:
        PipelineDefinitionError: two steps would have the same name in the run config.
    """
    fields: dict[str, Any] = {
        "use_cache": (
            bool,
            Field(True, description="False computes the steps anew instead of going on from the cache."),
        ),
        "plan_only": (
            bool,
            Field(
                False,
                description="True pays nothing and materializes nothing: the run computes what costs no call, and says "
                "in its log, and as observations of the assets, how many calls each step would make, how many are in "
                "the ledger, and what they would cost.",
            ),
        ),
        "when_in_use": (
            WhenInUseChoice | None,
            Field(
                None,
                description="What to do when another run writes one of the steps: `raise` fails and says which process it "
                "is; `wait` waits until that has ended, and goes on from there. By default what the resource says.",
            ),
        ),
    }
    for name in steps:
        if config_name(name) in fields:
            raise PipelineDefinitionError(
                f"Pipeline `{pipeline.name}`: a step can't be called `{name}`, as it would be `{config_name(name)}` in "
                "the run config, which another step is. Rename one of them."
            )
        model = _build_model(pipeline.dag.steps[name], f"{python_name(name)}_config")
        description = f"Runtime parameters of step `{name}`."
        fields[config_name(name)] = (model, Field(default_factory=model, description=description))
    return _create(f"{python_name(pipeline.name)}_config", fields)


def _create(name: str, fields: dict[str, Any]) -> type[dg.Config]:
    with warnings.catch_warnings():
        # A parameter may well be called `schema` or `copy`: nobody calls those methods of a config.
        warnings.filterwarnings("ignore", message="Field name .* shadows an attribute", category=UserWarning)
        made: type[dg.Config] = create_model(name, __base__=dg.Config, **fields)
    return made


def _build_model(owner: RuntimeParametersMixin, name: str) -> type[dg.Config]:
    fields: dict[str, Any] = {}
    for parameter, info, _ in owner.iter_runtime_parameters():
        value = getattr(owner, parameter)
        if not is_secret_name(parameter) and is_dumped(parameter, info, value):
            fields[parameter] = _build_field(info, dump_value(value, f"{name}.{parameter}"))
    for nested, value in owner.nested_parameters().items():
        model = _build_model(value, f"{name}_{nested}")
        fields[nested] = (
            model,
            Field(default_factory=model, description=f"Runtime parameters of `{nested}`."),
        )
    return _create(name, fields)


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

    Raises:
        RuntimeParameterError: a value is to come from an environment variable that isn't set.
    """
    found: dict[str, dict[str, Any]] = {}
    ops = run_config.get("ops") or {}
    for op_name, steps in op_names.items():
        config = (ops.get(op_name) or {}).get("config") or {}
        for step in steps:
            given = config.get(config_name(step))
            if isinstance(given, Mapping):
                differing = _differing(pipeline.dag.steps[step], given, step)
                if differing:
                    found[step] = differing
    return found


def _differing(owner: RuntimeParametersMixin, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    nested = owner.nested_parameters()
    differing: dict[str, Any] = {}
    for name, value in given.items():
        if name in nested and isinstance(value, Mapping):
            inner = _differing(nested[name], value, f"{where}.{name}")
            if inner:
                differing[name] = inner
            continue
        resolved = _resolve(value, f"{where}.{name}")
        if _prune(dump_value(getattr(owner, name, None), f"{where}.{name}")) != _prune(resolved):
            differing[name] = resolved
    return differing


def _prune(value: Any) -> Any:
    """Leave out what the launchpad leaves out of a default: None and empty mappings inside of mappings."""
    if not isinstance(value, Mapping):
        return value
    pruned = {name: _prune(each) for name, each in value.items()}
    return {name: each for name, each in pruned.items() if each is not None and each != {}}


def _resolve(value: Any, where: str) -> Any:
    """Give what a value of the run config stands for: `{"env": NAME}` is Dagster's way to name a variable."""
    if not (isinstance(value, Mapping) and list(value) == ["env"] and isinstance(value["env"], str)):
        return value
    found: str | None = dg.EnvVar(value["env"]).get_value()
    if found is None:
        raise RuntimeParameterError(
            f"The run config takes `{where}` from the environment variable `{value['env']}`, which isn't set."
        )
    return found
