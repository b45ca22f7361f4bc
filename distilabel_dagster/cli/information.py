"""What `pipeline info` prints."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console

from distilabel_dagster.base.runtime_parameters import RuntimeParametersMixin
from distilabel_dagster.base.serializable import is_secret_name
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.cli.terminal import print_table
from distilabel_dagster.errors import CacheError, PipelineDefinitionError
from distilabel_dagster.models.model import without_secrets
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import StepResources

_LONGEST_VALUE: Final = 40
_RESOURCES: Final = "resources."
_DEFAULTS: Final = {name: info.default for name, info in StepResources.model_fields.items()}


def print_information(pipeline: Pipeline, console: Console) -> None:
    """Print what a pipeline is and how far it is; nothing is written anywhere."""
    cache = pipeline.open_cache()
    problem = _find_problem(pipeline)
    rows = _read_rows(cache)
    console.print(pipeline.name, style="bold", markup=False)
    if pipeline.description:
        console.print(pipeline.description, markup=False)
    console.print()
    facts = [
        ("signature", cache.signature),
        ("cache", f"{cache.fs.full_path(cache.signature)}: {_tell_progress(cache, rows)}"),
        ("requirements", ", ".join(pipeline.requirements) or "none"),
    ]
    if problem is None:
        stages = pipeline.get_load_stages()
        facts.append(("load stages", "; ".join(f"{i}: {', '.join(stage)}" for i, stage in enumerate(stages))))
    else:
        facts.append(("can't run", problem))
    width = max(len(name) for name, _ in facts) + 2
    for name, told in facts:
        console.print(f"{name:<{width}}{told}", markup=False)
    console.print()
    _print_steps(pipeline, rows, console)
    console.print()
    _print_parameters(pipeline, console)


def _find_problem(pipeline: Pipeline) -> str | None:
    try:
        pipeline.validate()
    except PipelineDefinitionError as error:
        return str(error)
    return None


def _read_rows(cache: PipelineCache) -> dict[str, int | None]:
    """Committed rows of each step; None where the cache can't be read."""
    rows: dict[str, int | None] = {}
    for name, store in cache.stores.items():
        try:
            store.open()
            rows[name] = sum(record.size for record in store.records)
        except CacheError:
            rows[name] = None
    return rows


def _tell_progress(cache: PipelineCache, rows: Mapping[str, int | None]) -> str:
    if not any(rows.values()):
        return "can't be read" if None in rows.values() else "nothing yet"
    done = sum(store.is_complete for store in cache.stores.values())
    return "complete" if done == len(cache.stores) else f"{done} of {len(cache.stores)} steps complete"


def _print_steps(pipeline: Pipeline, rows: Mapping[str, int | None], console: Console) -> None:
    table = []
    for name in pipeline.dag.topological_order():
        step = pipeline.dag.steps[name]
        predecessors = pipeline.dag.predecessors(name)
        count = rows[name]
        table.append(
            (
                name,
                type(step).__name__,
                ", ".join(predecessors) or "-",
                _tell_columns(step.get_inputs()),
                _tell_columns(step.get_outputs()),
                "?" if count is None else f"{count:,}",
            )
        )
    print_table(console, ("step", "class", "follows", "reads", "gives", "rows"), table, numbers=(5,))


def _tell_columns(columns: Mapping[str, bool]) -> str:
    return ", ".join(name if is_sure else f"({name})" for name, is_sure in columns.items()) or "-"


def _print_parameters(pipeline: Pipeline, console: Console) -> None:
    table = [
        (f"{name}.{path}", told, description)
        for name in pipeline.dag.topological_order()
        for path, told, description in _iter_parameters(pipeline.dag.steps[name], "")
        if not path.startswith(_RESOURCES)
        or told != _tell_value("", _DEFAULTS[path.removeprefix(_RESOURCES)])
    ]
    if table:
        print_table(console, ("runtime parameter", "value", "description"), table)
        console.print()
    names = ", ".join(f"{_RESOURCES}{name}" for name in StepResources.model_fields)
    console.print(f"Each step also has {names}; shown above where they are set.", markup=False)


def _iter_parameters(owner: RuntimeParametersMixin, prefix: str) -> Iterable[tuple[str, str, str]]:
    for name, info, is_optional in owner.iter_runtime_parameters():
        value = getattr(owner, name)
        must_be_set = value is None and not is_optional
        told = "(must be set)" if must_be_set else _tell_value(name, value)
        yield f"{prefix}{name}", told, info.description or ""
    for name, inner in owner.nested_parameters().items():
        yield from _iter_parameters(inner, f"{prefix}{name}.")


def _tell_value(name: str, value: Any) -> str:
    if value is not None and is_secret_name(name):
        return "(secret)"
    text = json.dumps(without_secrets(value), default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
