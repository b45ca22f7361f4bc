"""Options that several commands have."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

_DEBUG = "debug"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def debug_option(command: _Command) -> _Command:
    """Add `--debug`."""
    return click.option(
        "--debug",
        "-v",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of an error.",
    )(command)


def _remember_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    state = context.find_root().obj
    if value and isinstance(state, dict):
        state[_DEBUG] = True


def is_debug(state: Mapping[str, bool]) -> bool:
    """Tell whether `--debug` was given; `state` is the command line's."""
    return state.get(_DEBUG, False)


def cache_dir_option(command: _Command) -> _Command:
    """Add `--cache-dir`."""
    return click.option(
        "--cache-dir",
        metavar="DIR|URL",
        help="The cache: a directory or an fsspec URL. By default DISTILABEL_CACHE_DIR, and without that "
        "~/.cache/distilabel/pipelines.",
    )(command)


def json_option(command: _Command) -> _Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def config_option(command: _Command) -> _Command:
    """Add `--config` and `--trusted-module`."""
    trusted = click.option(
        "--trusted-module",
        "trusted_modules",
        multiple=True,
        metavar="MODULE",
        help="A module whose classes the file may name; it's imported, from the current directory too. Repeatable.",
    )
    config = click.option(
        "--config",
        required=True,
        metavar="FILE",
        help="The pipeline: what `Pipeline.save` wrote, or a pipeline.yaml of the cache. JSON where it ends in .json.",
    )
    return config(trusted(command))
