"""What is checked of a pipeline before any work begins."""

import inspect
from collections.abc import Callable, Iterable

from distilabel_dagster.base.columns import StepColumns, all_columns
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.errors import (
    PipelineDefinitionError,
    RoutingError,
    RuntimeParameterError,
    StepColumnsError,
    suggest,
)
from distilabel_dagster.steps.step import BaseStep, GeneratorStep, Step


def validate_dag(dag: DAG, *, parameters_may_be_missing: bool = False) -> None:
    """Check that the pipeline can run; nothing is loaded and no file is touched.

    Args:
        dag: the graph.
        parameters_may_be_missing: whether runtime parameters that must be set may still be unset.

    Raises:
        PipelineDefinitionError: or one of its subclasses, naming the step, what was expected and what to do.
    """
    if not dag.steps:
        raise PipelineDefinitionError("The pipeline has no steps. Make some inside `with Pipeline(...)`.")
    checks: list[Callable[[DAG, str], None]] = [
        _check_start,
        _check_mappings,
        _check_columns,
        _check_process,
        _check_routing,
        _check_joins,
        _check_replicas,
    ]
    if not parameters_may_be_missing:
        check_runtime_parameters(dag)
    for name in dag.topological_order():
        for check in checks:
            check(dag, name)


def check_runtime_parameters(dag: DAG) -> None:
    """Check that no runtime parameter that must be set is missing.

    Raises:
        RuntimeParameterError: all that are missing are named.
    """
    missing = [
        f"{name}.{each}" for name, step in dag.steps.items() for each in step.missing_runtime_parameters()
    ]
    if missing:
        step, _, path = missing[0].partition(".")
        told = ", ".join(f"`{each}`" for each in missing)
        nested = (
            "".join(f'{{"{part}": ' for part in path.split(".")) + "...".ljust(3) + "}" * len(path.split("."))
        )
        raise RuntimeParameterError(
            f"Runtime parameter{'s' if len(missing) > 1 else ''} {told} must be set before a run. Give the step a "
            f'value, or pass `run(parameters={{"{step}": {nested}}})`.'
        )


def _check_start(dag: DAG, name: str) -> None:
    step = dag.steps[name]
    if not step.is_generator and not dag.predecessors(name):
        raise PipelineDefinitionError(
            f"Step `{name}` has no predecessor, and isn't a GeneratorStep, so it would get no rows. Connect it "
            f"(`load >> {name}`), or give rows by `run(dataset=...)`."
        )


def _check_mappings(dag: DAG, name: str) -> None:
    step = dag.steps[name]
    for kind, mappings, columns in (
        ("input", step.input_mappings, step.inputs),
        ("output", step.output_mappings, step.outputs),
    ):
        _check_mapped_names(name, kind, mappings, columns)


def _check_mapped_names(name: str, kind: str, mappings: dict[str, str], columns: StepColumns) -> None:
    known = all_columns(columns)
    for mapped in mappings:
        if mapped not in known:
            told = ", ".join(f"`{each}`" for each in known) or "none"
            raise PipelineDefinitionError(
                f"Step `{name}`: `{kind}_mappings` renames `{mapped}`, which isn't an {kind} of the step."
                f"{suggest(mapped, known)} Its {kind}s: {told}. Mappings are written step's name -> column's name."
            )


def _check_columns(dag: DAG, name: str) -> None:
    step = dag.steps[name]
    if step.is_generator:
        return
    available = {column for ancestor in dag.ancestors(name) for column in dag.steps[ancestor].get_outputs()}
    missing = [
        column for column, required in step.get_inputs().items() if required and column not in available
    ]
    if missing:
        raise StepColumnsError(name, missing, available, dag.predecessors(name))


def _check_process(dag: DAG, name: str) -> None:
    step = dag.steps[name]
    function = getattr(step, "step_function", None) or step.process  # type: ignore[attr-defined]  # each kind has one
    if not callable(function):
        raise PipelineDefinitionError(f"Step `{name}`: `process` isn't a method.")
    parameters = list(inspect.signature(function).parameters.values())
    if step.is_generator:
        takes = inspect.signature(step.process).parameters.values()  # type: ignore[attr-defined]  # a generator step has one
        if not parameters or not any(p.name == "offset" or p.kind is p.VAR_KEYWORD for p in takes):
            raise PipelineDefinitionError(
                f"Step `{name}`: `process` of a GeneratorStep needs the parameter `offset`: "
                "`def process(self, offset=0)`."
            )
        return
    wanted = len(dag.predecessors(name))
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return
    names = set(getattr(step, "parameter_names", ()))
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY and p.name not in names]
    needed = [p for p in positional if p.default is p.empty]
    if not len(needed) <= wanted <= len(positional):
        branches = ", ".join(f"`{each}`" for each in dag.predecessors(name))
        raise PipelineDefinitionError(
            f"Step `{name}` follows {wanted} step{'s' if wanted != 1 else ''} ({branches}), but its `process` takes "
            f"{len(positional)} list{'s' if len(positional) != 1 else ''} of rows. Write `def process(self, *inputs)`, "
            "or connect as many steps as it takes."
        )


def _batch_size(step: BaseStep) -> int:
    size = step.batch_size if isinstance(step, GeneratorStep) else getattr(step, "input_batch_size", None)
    return int(size or 0)


def _check_routing(dag: DAG, name: str) -> None:
    step = dag.steps[name]
    source = dag.routed_from(name)
    if source is None:
        return
    if len(dag.predecessors(name)) > 1:
        raise RoutingError(
            f"Step `{name}` gets routed batches from `{source}` and rows of other steps as well. A routed step can "
            "have only one predecessor."
        )
    if step.is_global:
        return
    size, upstream = _batch_size(step), _batch_size(dag.steps[source])
    if dag.steps[source].is_global:
        return
    if size > upstream or upstream % size:
        fitting = [each for each in range(1, upstream + 1) if upstream % each == 0]
        raise RoutingError(
            f"Step `{name}` takes {size} rows at a time, but gets routed batches of {upstream} rows from `{source}`: "
            f"they must divide without remainder, since batches are routed whole. Set `input_batch_size` of `{name}` "
            f"to one of {fitting[-6:]}."
        )


def _check_joins(dag: DAG, name: str) -> None:
    predecessors = dag.predecessors(name)
    if len(predecessors) < 2 or dag.steps[name].is_global:
        return
    source = dag.convergence_source(name)
    if source is None:
        _check_no_routed_branch(dag, name)
        return
    size = _batch_size(dag.steps[name])
    for each in predecessors:
        if dag.steps[each].is_global:
            raise RoutingError(
                f"Step `{name}` brings the branches of `{source}` together batch by batch, but the global step `{each}` "
                "makes one batch of all. Put the global step behind the join, or leave it out of the join."
            )
        if size > _batch_size(dag.steps[each]):
            raise RoutingError(
                f"Step `{name}` brings the branches of `{source}` together and takes {size} rows at a time, but "
                f"`{each}` gives {_batch_size(dag.steps[each])}. Set `input_batch_size` of `{name}` to that or less."
            )


def _check_no_routed_branch(dag: DAG, name: str) -> None:
    """Refuse a join by position over branches that got different batches."""
    branches = {each: _routed_ancestors(dag, each) for each in dag.predecessors(name)}
    if len(set(branches.values())) > 1 and any(branches.values()):
        told = "; ".join(
            f"`{each}` {'behind routed ' + ', '.join(f'`{r}`' for r in sorted(routed)) if routed else 'not routed'}"
            for each, routed in branches.items()
        )
        raise RoutingError(
            f"Step `{name}` joins branches that don't get the same batches, so their rows can't be paired: {told}. "
            "Bring routed branches together directly behind the routed steps: `step >> routing >> [a, b] >> join`."
        )


def _routed_ancestors(dag: DAG, name: str) -> frozenset[str]:
    """Routed steps among `name` and its ancestors whose branches aren't together again at `name`."""
    if dag.convergence_source(name) is not None:
        return frozenset()
    inherited: Iterable[str] = {each for p in dag.predecessors(name) for each in _routed_ancestors(dag, p)}
    return frozenset(inherited) | ({name} if dag.routed_from(name) else frozenset())


def _check_replicas(dag: DAG, name: str) -> None:
    step = dag.steps[name]
    replicas = step.resources.replicas or 1
    if replicas == 1:
        return
    if not isinstance(step, Step) or step.is_global:
        raise PipelineDefinitionError(
            f"Step `{name}` asks for {replicas} replicas, but only ordinary steps can run side by side: a "
            "GeneratorStep or GlobalStep makes one sequence. Leave `resources` out."
        )
    if "<locals>" in type(step).__qualname__:
        raise PipelineDefinitionError(
            f"Step `{name}` asks for {replicas} replicas, but worker processes can't import its class "
            f"`{type(step).__qualname__}`. Define the class at the top of a module, or use one replica."
        )
