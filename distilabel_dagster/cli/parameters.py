"""`--param step.key=value` as runtime parameters."""

import copy
import json
from collections.abc import Iterable
from typing import Any, Final

import click
import yaml

from distilabel_dagster.base.yaml_data import load_yaml
from distilabel_dagster.errors import RuntimeParameterError
from distilabel_dagster.pipeline import Pipeline

_WORDS: Final = {"true": True, "false": False, "null": None}

Parameters = dict[str, dict[str, Any]]


def read_parameters(pipeline: Pipeline, texts: Iterable[str]) -> Parameters:
    """Give the runtime parameters that `--param` options set; each is checked by the pipeline.

    A value is read as JSON, or as a YAML list or mapping in one line; `true`, `false` and `null` in any case; anything
    else is text. Where the parameter refuses what was read but takes the text, it's the text: `--param ask.prefix=5`.

    Args:
        pipeline: whose parameters; it isn't changed.
        texts: `step.key=value`, with further dots for what is inside: `ask.llm.generation_kwargs.temperature=0.3`.

    Raises:
        RuntimeParameterError: no such step or parameter, or a value that it refuses.
        click.BadParameter: the text isn't `step.key=value`.
    """
    found: Parameters = {}
    for text in texts:
        path, value = _split(text)
        read = _read_value(value)
        try:
            found = _add(found, pipeline, path, read)
        except RuntimeParameterError as error:
            if read == value:
                raise
            try:
                found = _add(found, pipeline, path, value)
            except RuntimeParameterError:
                raise error from None
    return found


def _split(text: str) -> tuple[list[str], str]:
    name, separator, value = text.partition("=")
    path = name.strip().split(".")
    if not separator or len(path) < 2 or not all(path):
        raise click.BadParameter(
            f"{text!r} isn't <step>.<parameter>=<value>, as in ask.llm.generation_kwargs.temperature=0.3",
            param_hint="--param",
        )
    return path, value


def _read_value(text: str) -> Any:
    stripped = text.strip()
    if stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    try:
        return json.loads(stripped)
    except ValueError:
        pass
    if stripped.startswith(("[", "{", "'")):
        try:
            return load_yaml(stripped)
        except yaml.YAMLError:
            pass
    return text


def _add(parameters: Parameters, pipeline: Pipeline, path: list[str], value: Any) -> Parameters:
    """Give a copy of `parameters` with one more, checked.

    A key inside a dict, such as `generation_kwargs`, is set beside those that the dict has in the pipeline.
    """
    added = copy.deepcopy(parameters)
    place: dict[str, Any] = added
    owner: Any = pipeline.dag.steps
    for name in path[:-1]:
        owner = owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)
        place = place.setdefault(name, copy.deepcopy(owner) if isinstance(owner, dict) else {})
        if not isinstance(place, dict):
            raise RuntimeParameterError(
                f"`{'.'.join(path)}` can't be set: `{name}` has no keys, since another `--param` gives it whole."
            )
    place[path[-1]] = value
    with pipeline.with_parameters(added):
        return added
