"""A pipeline as data and back: the content of pipeline.yaml, read without running anything."""

import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from distilabel_dagster.base.json_data import MOST_BYTES, load_json
from distilabel_dagster.base.serializable import load_object
from distilabel_dagster.base.yaml_data import load_yaml
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.dag.routing import load_routing_batch_function
from distilabel_dagster.errors import PipelineDefinitionError, PipelineFileError
from distilabel_dagster.steps.step import BaseStep

_MOST_STEPS: Final = 1_000
_MOST_CONNECTIONS: Final = 5_000
# What a graph is checked for takes time that grows with the product of both.
TYPE_INFO: Final = {"module": "distilabel_dagster.pipeline.pipeline", "name": "Pipeline"}


def dump_dag(dag: DAG) -> dict[str, Any]:
    """Write steps, connections (in the order they were made) and routing functions as data."""
    connections: list[dict[str, Any]] = []
    for source, target in dag.edges:
        if connections and connections[-1]["from"] == source:
            connections[-1]["to"].append(target)
        else:
            connections.append({"from": source, "to": [target]})
    return {
        "steps": [{"step": step.dump(), "name": name} for name, step in dag.steps.items()],
        "connections": connections,
        "routing_batch_functions": [
            {"step": name, **routing.dump()} for name, routing in dag.routing.items()
        ],
    }


def fill_dag(dag: DAG, data: Mapping[str, Any], source: str, trusted_modules: Iterable[str] = ()) -> None:
    """Add to an empty graph what `dump_dag` gave.

    Args:
        dag: the graph of the active pipeline, in which the steps register themselves.
        data: what `dump_dag` gave, as read.
        source: where it was read from, for messages.
        trusted_modules: modules that may be imported for the steps' classes.

    Raises:
        PipelineFileError: something is missing, of another type, or doesn't fit together.
        UntrustedClassError: a class is named that nobody vouched for; nothing was imported.
    """
    trusted_modules = tuple(trusted_modules)
    try:
        for entry in _expect_list(data, "steps", source, most=_MOST_STEPS):
            _add_step(dag, _expect(entry, "step", source), source, trusted_modules)
        for entry in _expect_list(data, "connections", source, most=_MOST_CONNECTIONS):
            origin = dag.get_step(str(_expect(entry, "from", source))).name
            for target in _expect_list(entry, "to", source, most=_MOST_CONNECTIONS - len(dag.edges)):
                dag.add_edge(origin, dag.get_step(str(target)).name)
        for entry in _expect_list(data, "routing_batch_functions", source):
            name = dag.get_step(str(_expect(entry, "step", source))).name
            function = load_routing_batch_function(entry, source, trusted_modules)
            dag.set_routing(name, function.bind(dag.steps[name]))
    except PipelineDefinitionError as error:
        raise PipelineFileError(
            f"{source} holds no pipeline that can be made: {error}", source=source
        ) from error


def _add_step(dag: DAG, data: Any, source: str, trusted_modules: tuple[str, ...]) -> None:
    before = len(dag.steps)
    made = load_object(data, source, trusted_modules)
    if not isinstance(made, BaseStep) or len(dag.steps) == before:
        raise PipelineFileError(
            f"{source}: `steps` holds a `{type(made).__name__}`, which is no step.", source=source
        )


def _expect(data: Any, key: str, source: str) -> Any:
    if not isinstance(data, Mapping) or key not in data:
        raise PipelineFileError(
            f"{source}: expected `{key}`, which isn't there. The file is truncated, or wasn't written by this package.",
            source=source,
        )
    return data[key]


def _expect_list(data: Any, key: str, source: str, *, most: int | None = None) -> list[Any]:
    found = _expect(data, key, source)
    if not isinstance(found, list):
        raise PipelineFileError(
            f"{source}: `{key}` is a {type(found).__name__}, expected a list.", source=source
        )
    if most is not None and len(found) > most:
        raise PipelineFileError(
            f"{source}: there are more `{key}` than a pipeline in a file can have ({_MOST_STEPS:,} steps, "
            f"{_MOST_CONNECTIONS:,} connections).",
            source=source,
        )
    return found


def read_pipeline_data(content: Any, source: str) -> tuple[dict[str, Any], list[str]]:
    """Check the frame of a pipeline file's content and give its pipeline and its requirements.

    Raises:
        PipelineFileError: it's truncated or of another format.
    """
    pipeline = _expect(content, "pipeline", source)
    if not isinstance(pipeline, dict):
        raise PipelineFileError(
            f"{source}: `pipeline` is a {type(pipeline).__name__}, expected a mapping.", source=source
        )
    for key in ("name", "description"):
        if not isinstance(pipeline.get(key), str | None):
            raise PipelineFileError(
                f"{source}: the pipeline's `{key}` is {reprlib.repr(pipeline[key])}, expected text.",
                source=source,
            )
    info = _expect(pipeline, "type_info", source)
    if info != TYPE_INFO:
        raise PipelineFileError(
            f"{source} holds a pipeline of `{reprlib.repr(info)}`, expected {TYPE_INFO}. It wasn't written by this package; files of "
            "distilabel itself name its own classes, which aren't imported.",
            source=source,
        )
    return pipeline, [str(each) for each in _expect_list(content, "requirements", source)]


def read_file(path: str | Path, kind: str) -> Any:
    """Read a YAML or JSON file as data.

    Args:
        path: local path, `~` is expanded.
        kind: "yaml" or "json".

    Raises:
        PipelineFileError: there's no such file, or it's none of that kind.
    """
    try:
        file = Path(path).expanduser()
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        return load_yaml(content) if kind == "yaml" else load_json(content)
    except OSError as error:
        raise PipelineFileError(
            f"{path} can't be read: {error.strerror or error}.", source=str(path)
        ) from error
    except RuntimeError as error:  # no such user's `~`
        raise PipelineFileError(f"{path} can't be read: {error}", source=str(path)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise PipelineFileError(
            f"{path} is no {kind.upper()} that can be read as a pipeline: {error}.", source=str(path)
        ) from error
