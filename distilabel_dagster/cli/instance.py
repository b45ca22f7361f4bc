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
from distilabel_dagster.errors import CacheError

if TYPE_CHECKING:
    import dagster as dg

_CONFIG_FILE: Final = "dagster.yaml"
_DIRECTORY: Final = ".dagster"
_BESIDE_REMOTE_CACHES: Final = Path("~") / ".cache" / "distilabel" / "dagster"


# While a run's output is copied to files, a second process reads it back to the terminal, where bars would be torn and
# where it answers Ctrl+C with a traceback. The terminal has the output itself; Dagster's event log is as always.
_NO_COPIES_OF_OUTPUT: Final = {
    "compute_logs": {
        "module": "dagster.core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}


@dataclass(frozen=True, slots=True)
class InstancePlace:
    """Where an instance is.

    Attributes:
        directory: the directory of what isn't placed elsewhere.
        settings: what counts beside the dagster.yaml in that directory.
        how_to_browse: the command that shows its runs.
    """

    directory: Path
    settings: dict[str, Any]
    how_to_browse: str


def find_instance(cache: CacheFileSystem) -> InstancePlace:
    """Choose the instance: DAGSTER_HOME, else the dagster.yaml of the current directory, else one with the cache.

    A project's dagster.yaml counts as it does for `dagster job execute`; what it doesn't place goes to `.dagster`
    beside it. Without either, the instance is `.dagster` in the cache directory, so that what Dagster says is
    materialized and what is in the cache come and go together; for a cache in an object store it's
    `~/.cache/distilabel/dagster`.
    """
    home = dagster_home()
    if home:
        return InstancePlace(Path(home).expanduser(), {}, "dagster dev")
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
    """Open the instance, and make it where there's none; DAGSTER_HOME has to be there already.

    What steps print isn't copied to the instance.

    Raises:
        CacheError: its databases can't be read or written, now or in the block.
    """
    import dagster as dg
    from sqlalchemy.exc import DBAPIError

    if not dagster_home():
        place.directory.mkdir(parents=True, exist_ok=True)
    elif not (place.directory.is_absolute() and place.directory.is_dir()):
        dg.DagsterInstance.get()  # raises, and says what is wrong with DAGSTER_HOME
    # "A regular, fully persistent instance", as Dagster says; the method's name is about where tests put it.
    settings = {**place.settings, **_NO_COPIES_OF_OUTPUT}
    try:
        with dg.DagsterInstance.local_temp(str(place.directory), overrides=settings) as instance:
            yield instance
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise CacheError(
            f"Dagster's records of the run in {place.directory} can't be read or written: {reason}. Rows committed to the "
            "cache are safe. Look whether there's space left and writing is allowed, or set DAGSTER_HOME to another "
            "directory, and start the same run again: it goes on from there.",
            path=str(place.directory),
        ) from error
