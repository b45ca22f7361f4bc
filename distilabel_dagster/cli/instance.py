"""Which Dagster instance a run is kept in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import yaml

from distilabel_dagster.base.environment import dagster_home
from distilabel_dagster.cache.filesystem import CacheFileSystem

if TYPE_CHECKING:
    import dagster as dg

_CONFIG_FILE: Final = "dagster.yaml"
_DIRECTORY: Final = ".dagster"
_BESIDE_REMOTE_CACHES: Final = Path("~") / ".cache" / "distilabel" / "dagster"


@dataclass(frozen=True, slots=True)
class InstancePlace:
    """Where an instance is.

    Attributes:
        directory: the directory of what isn't placed elsewhere; None where DAGSTER_HOME is the place.
        settings: what stands in its dagster.yaml, where that is another directory's.
        how_to_browse: the command that shows its runs.
    """

    directory: Path | None
    settings: dict[str, Any]
    how_to_browse: str


def find_instance(cache: CacheFileSystem) -> InstancePlace:
    """Choose the instance: DAGSTER_HOME, else the dagster.yaml of the current directory, else one with the cache.

    A project's dagster.yaml counts as it does for `dagster job execute`; what it doesn't place goes to `.dagster`
    beside it. Without either, the instance is `.dagster` in the cache directory, so that what Dagster says is
    materialized and what is in the cache come and go together; for a cache in an object store it's
    `~/.cache/distilabel/dagster`.
    """
    if dagster_home():
        return InstancePlace(None, {}, "dagster dev")
    here = Path.cwd()
    file = here / _CONFIG_FILE
    if file.is_file():
        try:
            settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise click.ClickException(f"{file} can't be read as YAML: {error}") from error
        return InstancePlace(here / _DIRECTORY, settings, "dagster dev")
    directory = Path(cache.root) / _DIRECTORY if cache.is_local else _BESIDE_REMOTE_CACHES.expanduser()
    own = {"telemetry": {"enabled": False}}
    return InstancePlace(directory, own, f"DAGSTER_HOME={directory} dagster dev")


@contextmanager
def open_instance(place: InstancePlace) -> Iterator["dg.DagsterInstance"]:
    """Open the instance, and make it where there's none."""
    import dagster as dg

    if place.directory is None:
        instance = dg.DagsterInstance.get()
    else:
        place.directory.mkdir(parents=True, exist_ok=True)
        # "A regular, fully persistent instance", as Dagster says; the name is about where tests put it.
        instance = dg.DagsterInstance.local_temp(str(place.directory), overrides=place.settings)
    with instance:
        yield instance
