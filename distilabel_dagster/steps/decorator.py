"""`@step`: a step made of a function."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Optional

from pydantic import create_model

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.base.runtime_parameters import RUNTIME_PARAMETER_MARK
from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.steps.step import (
    BaseStep,
    GeneratorStep,
    GeneratorStepOutput,
    GlobalStep,
    Step,
    StepInput,
    StepOutput,
)

StepType = Literal["normal", "global", "generator"]


class _FunctionColumns(BaseStep):
    step_inputs: ClassVar[StepColumns] = []
    step_outputs: ClassVar[StepColumns] = []
    step_function: ClassVar[Any] = None
    parameter_names: ClassVar[tuple[str, ...]] = ()

    @property
    def inputs(self) -> StepColumns:
        return self.step_inputs

    @property
    def outputs(self) -> StepColumns:
        return self.step_outputs

    def _parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.parameter_names}


class _FunctionStep(_FunctionColumns, Step):
    def process(self, *inputs: StepInput) -> StepOutput:
        outputs: StepOutput = self.step_function(*inputs, **self._parameters())
        return outputs


class _FunctionGlobalStep(_FunctionColumns, GlobalStep):
    def process(self, *inputs: StepInput) -> StepOutput:
        outputs: StepOutput = self.step_function(*inputs, **self._parameters())
        return outputs


class _FunctionGeneratorStep(_FunctionColumns, GeneratorStep):
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        outputs: GeneratorStepOutput = self.step_function(offset, **self._parameters())
        return outputs


_BASES: dict[str, type[_FunctionColumns]] = {
    "normal": _FunctionStep,
    "global": _FunctionGlobalStep,
    "generator": _FunctionGeneratorStep,
}


def step(
    inputs: StepColumns | None = None, outputs: StepColumns | None = None, step_type: StepType = "normal"
) -> Callable[[Callable[..., Any]], type[Any]]:
    """Make a step class of a function.

    The function gets what `process` of that kind of step gets: a list of rows per predecessor, or, for a
    generator, `offset`. Each further parameter becomes a runtime parameter of the step.

    Args:
        inputs: columns that it reads; none for a generator.
        outputs: columns that it adds.
        step_type: "normal", "global" or "generator".

    Returns:
        A decorator that gives the class; call that as any other step's: `shout(name="shout")`.

    Raises:
        PipelineDefinitionError: unknown `step_type`, inputs on a generator, or a parameter that's no keyword.

    Examples:
        >>> @step(inputs=["text"], outputs=["loud"])
        ... def shout(inputs: StepInput, mark: str = "!") -> StepOutput:
        ...     yield [{**row, "loud": row["text"].upper() + mark} for row in inputs]
        >>> shout(name="shout").run_process([{"text": "hey"}])
        [{'text': 'hey', 'loud': 'HEY!'}]
    """
    if step_type not in _BASES:
        raise PipelineDefinitionError(
            f"`@step(step_type={step_type!r})` isn't known. Use 'normal', 'global' or 'generator'."
        )
    if step_type == "generator" and inputs:
        raise PipelineDefinitionError(
            f"`@step(inputs={inputs!r}, step_type='generator')`: a generator has no predecessors, so it can't read "
            "columns. Leave `inputs` out."
        )

    def decorate(function: Callable[..., Any]) -> type[Any]:
        fields = _parameter_fields(function)
        cls: Any = create_model(
            function.__name__,
            __base__=_BASES[step_type],
            __module__=function.__module__,
            __doc__=function.__doc__,
            **fields,
        )
        attributes = {
            "__qualname__": function.__qualname__,
            "step_inputs": inputs or [],
            "step_outputs": outputs or [],
            "step_function": staticmethod(function),
            "parameter_names": tuple(fields),
        }
        for name, value in attributes.items():
            setattr(cls, name, value)
        made: type[Any] = cls
        return made

    return decorate


def _parameter_fields(function: Callable[..., Any]) -> dict[str, Any]:
    """Fields for the parameters behind the rows (or offset)."""
    fields: dict[str, Any] = {}
    parameters = list(inspect.signature(function).parameters.values())
    data = [p for p in parameters if p.kind is p.VAR_POSITIONAL or _is_step_input(p)] or parameters[:1]
    for parameter in parameters:
        if parameter in data:
            continue
        if (
            parameter.kind in (parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY)
            or parameter.name in Step.model_fields
        ):
            raise PipelineDefinitionError(
                f"`@step` on `{function.__name__}`: the parameter `{parameter.name}` can't become a runtime "
                "parameter. Give it a name of its own that can be passed as a keyword."
            )
        annotation: Any = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = None if parameter.default is parameter.empty else parameter.default
        is_marked = RUNTIME_PARAMETER_MARK in str(annotation)
        marked = annotation if is_marked else Annotated[Optional[annotation], RUNTIME_PARAMETER_MARK]  # noqa: UP045  (`|` isn't defined between all annotations)
        fields[parameter.name] = (marked, default)
    return fields


def _is_step_input(parameter: inspect.Parameter) -> bool:
    return "distilabel_step_input" in getattr(parameter.annotation, "__metadata__", ())
