"""Options that several commands have."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from distilabel_dagster.base.environment import LEDGER_URL_VARIABLE, default_ledger_url

_DEBUG = "debug"
_SEQUENTIAL = "sequential_step_execution"
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


def ledger_url_option(command: _Command) -> _Command:
    """Add `--ledger-url`."""
    return click.option(
        "--ledger-url",
        metavar="URL",
        callback=lambda _context, _parameter, given: given or default_ledger_url(),
        help="The database that keeps what models answered, as a SQLAlchemy URL. By default what the environment variable "
        f"{LEDGER_URL_VARIABLE} says (other processes can't see a password there), else a file with the cache.",
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


def parameters_option(command: _Command) -> _Command:
    """Add `--param`."""
    return click.option(
        "--param",
        "parameters",
        multiple=True,
        metavar="STEP.KEY=VALUE",
        help="A runtime parameter, as JSON or text; more dots for what is inside: "
        "ask.llm.generation_kwargs.temperature=0.3. Repeatable.",
    )(command)


def load_groups_option(command: _Command) -> _Command:
    """Add `--load-groups`."""
    return click.option(
        "--load-groups",
        callback=_read_load_groups,
        metavar="GROUPS",
        help=f"{_SEQUENTIAL}, or lists of steps in JSON that run apart from others; by default all steps stream.",
    )(command)


def _read_load_groups(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    if text is None or text == _SEQUENTIAL:
        return text
    try:
        groups = json.loads(text)
    except ValueError:
        groups = None
    if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
        raise click.BadParameter(
            f'expected {_SEQUENTIAL}, or lists of steps in JSON: \'[["ask"], ["judge"]]\''
        )
    return groups
