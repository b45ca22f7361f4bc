"""Runtime parameters: fields of a step or model that a run may set, by name, from outside.

`run(parameters={"step": {"field": value, "llm": {"generation_kwargs": {...}}}})` reaches them, and so do Dagster's
run config and the command line.
"""

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from distilabel_dagster.base.serializable import SerializableModel, is_dumped
from distilabel_dagster.errors import RuntimeParameterError, suggest

RUNTIME_PARAMETER_MARK = "distilabel_runtime_parameter"
_T = TypeVar("_T")

RuntimeParameter = Annotated[Union[_T, None], RUNTIME_PARAMETER_MARK]  # noqa: UP007 (a generic alias over a TypeVar needs Union)
"""Annotation of a field that a run may set: `threshold: RuntimeParameter[float] = Field(default=None)`.

With None as its default it must be set before a run; written `Optional[RuntimeParameter[float]]` it needn't.
"""


class RuntimeParameterInfo(TypedDict, total=False):
    """What is known of one runtime parameter, as pipeline.yaml and `info` show it."""

    name: str
    optional: bool
    description: str | None
    runtime_parameters_info: list[Any]


def _parameter_kind(info: FieldInfo) -> tuple[bool, bool]:
    """Tell whether a field is a runtime parameter, and whether it may stay None."""
    if RUNTIME_PARAMETER_MARK in info.metadata:
        return True, False
    if get_origin(info.annotation) in (Union, type(int | None)):
        for argument in get_args(info.annotation):
            if RUNTIME_PARAMETER_MARK in getattr(argument, "__metadata__", ()):
                return True, True
    return False, False


def _tell_value(name: str, owner: SerializableModel, value: Any) -> str:
    """A value for a message; of one that is secret, or may hold what is, its type alone."""
    is_open = isinstance(value, str | int | float | None) and is_dumped(
        name, type(owner).model_fields[name], value
    )
    return reprlib.repr(value) if is_open else f"a {type(value).__name__}"


class RuntimeParametersMixin(SerializableModel):
    """Base of what has runtime parameters, its own and those of the models in its fields."""

    def iter_runtime_parameters(self) -> list[tuple[str, FieldInfo, bool]]:
        """Give name, field and whether it may stay unset, for each of this object's own runtime parameters."""
        found = []
        for name, info in type(self).model_fields.items():
            is_parameter, is_optional = _parameter_kind(info)
            if is_parameter:
                has_default = (
                    not info.is_required() and info.get_default(call_default_factory=True) is not None
                )
                found.append((name, info, is_optional or has_default))
        return found

    def nested_parameters(self) -> dict[str, "RuntimeParametersMixin"]:
        """Give the fields that hold objects with runtime parameters of their own, such as `llm`."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, RuntimeParametersMixin)}

    @property
    def runtime_parameters_names(self) -> dict[str, Any]:
        """Name -> whether it may stay unset; for an object in a field, name -> the same of that object."""
        names: dict[str, Any] = {name: optional for name, _, optional in self.iter_runtime_parameters()}
        nested = {name: value.runtime_parameters_names for name, value in self.nested_parameters().items()}
        return {**names, **nested}

    def get_runtime_parameters_info(self) -> list[RuntimeParameterInfo]:
        """Describe the runtime parameters, those of objects in fields nested."""
        infos: list[RuntimeParameterInfo] = [
            {"name": name, "optional": optional, "description": info.description}
            for name, info, optional in self.iter_runtime_parameters()
        ]
        for name, value in self.nested_parameters().items():
            infos.append({"name": name, "runtime_parameters_info": value.get_runtime_parameters_info()})
        return infos

    def missing_runtime_parameters(self) -> list[str]:
        """Give the dotted names of runtime parameters that must be set and aren't."""
        missing = [
            name
            for name, _, optional in self.iter_runtime_parameters()
            if not optional and getattr(self, name) is None
        ]
        for name, value in self.nested_parameters().items():
            missing += [f"{name}.{inner}" for inner in value.missing_runtime_parameters()]
        return missing

    def set_runtime_parameters(self, parameters: dict[str, Any], where: str | None = None) -> None:
        """Set runtime parameters by name; a dict for an object in a field sets that object's.

        Args:
            parameters: name -> value.
            where: how messages call this object; its class name by default.

        Raises:
            RuntimeParameterError: unknown name, or a value that the field's type refuses. Nothing is set then.
        """
        before = self.get_parameter_values(parameters)
        try:
            self._set_parameters(parameters, where or type(self).__name__)
        except RuntimeParameterError:
            self.restore_parameter_values(before)
            raise

    def _set_parameters(self, parameters: dict[str, Any], where: str) -> None:
        self._check_parameter_names(parameters, where)
        nested = self.nested_parameters()
        for name, value in parameters.items():
            if name in nested:
                if not isinstance(value, dict):
                    raise RuntimeParameterError(
                        f"`{where}.{name}` has runtime parameters of its own: pass them as a dict, found a "
                        f"{type(value).__name__}."
                    )
                nested[name].set_runtime_parameters(value, f"{where}.{name}")
                continue
            try:
                setattr(self, name, value)
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                told = f"Runtime parameter `{where}.{name}` can't be {_tell_value(name, self, value)}: {problem}."
            else:
                continue
            # Outside the handler: pydantic's error holds the value, which may be secret.
            raise RuntimeParameterError(told)

    def get_parameter_values(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Give the present values of the parameters named in `names`, nested as there; unknown names are left out."""
        nested = self.nested_parameters()
        values: dict[str, Any] = {}
        for name, inner in names.items():
            if name in nested and isinstance(inner, Mapping):
                values[name] = nested[name].get_parameter_values(inner)
            elif name in type(self).model_fields:
                values[name] = getattr(self, name)
        return values

    def restore_parameter_values(self, values: dict[str, Any]) -> None:
        """Set what `get_parameter_values` gave."""
        nested = self.nested_parameters()
        for name, value in values.items():
            if name in nested and isinstance(value, dict):
                nested[name].restore_parameter_values(value)
            else:
                setattr(self, name, value)

    def _check_parameter_names(self, parameters: dict[str, Any], where: str) -> None:
        known = self.runtime_parameters_names
        for name in parameters:
            if name not in known:
                names = ", ".join(f"`{each}`" for each in sorted(known)) or "none"
                raise RuntimeParameterError(
                    f"`{where}` has no runtime parameter `{name}`.{suggest(name, known)} It has: {names}."
                )
