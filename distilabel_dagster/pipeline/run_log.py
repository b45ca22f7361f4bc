"""Where a run's events are told to people: the log file of the pipeline, and Python's logging."""

import datetime as dt
import logging
import sys
import time
from typing import Final

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.engine.events import RunEvent
from distilabel_dagster.errors import CacheError

_logger = logging.getLogger("distilabel_dagster.pipeline")
_WRITE_EVERY_S: Final = 5.0


class RunLog:
    """Adds lines to a pipeline's `pipeline.log` and to the logger `distilabel_dagster.pipeline`.

    The file is replaced whole, at most every few seconds and when closed, since object stores can't append. Lines of
    earlier runs are kept. A log that can't be written never fails a run.
    """

    def __init__(self, fs: CacheFileSystem, signature: str) -> None:
        self._fs = fs
        self._path = layout.log_file(signature)
        try:
            self._content = fs.read_bytes(self._path)
        except (FileNotFoundError, CacheError):
            self._content = b""
        self._written = len(self._content)
        self._written_at = time.monotonic()

    def add(self, event: RunEvent) -> None:
        """Add an event's line."""
        told = str(event)
        level = logging.WARNING if event.level == "warning" else logging.INFO
        _logger.log(level, told)
        now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds")
        self._content += f"{now} {logging.getLevelName(level):7} {told}\n".encode()
        if time.monotonic() - self._written_at > _WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Bring the lines so far to the file."""
        if len(self._content) == self._written:
            return
        try:
            self._fs.write_bytes(self._path, self._content)
            self._written = len(self._content)
        except CacheError as error:
            _logger.warning("The log can't be written: %s", error)
        self._written_at = time.monotonic()


def show_log_on_terminal() -> None:
    """Show the package's log on standard error, unless the program has set logging up itself."""
    package = logging.getLogger("distilabel_dagster")
    if package.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)-7s %(message)s", "%H:%M:%S"))
    package.addHandler(handler)
    package.setLevel(logging.INFO)
