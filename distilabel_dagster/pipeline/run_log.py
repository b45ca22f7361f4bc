"""Where a run's events are told to people: the log file of the pipeline, and Python's logging."""

import datetime as dt
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.engine.events import RunEvent
from distilabel_dagster.errors import CacheError

_logger = logging.getLogger("distilabel_dagster.pipeline")
_logger.addHandler(
    logging.NullHandler()
)  # else Python shows warnings by itself, beside whoever tells of the events
_WRITE_EVERY_S: Final = 5.0


class RunLog:
    """Adds lines to a pipeline's `pipeline.log` and to the logger `distilabel_dagster.pipeline`.

    Each record of the logger carries the event itself as `record.event`.

    Lines are added to the file at most every few seconds and when the run ends; several ops of a run may add to the
    same file. A log that can't be written never fails a run.
    """

    def __init__(self, fs: CacheFileSystem, signature: str) -> None:
        self._fs = fs
        self._path = layout.log_file(signature)
        self._waiting: list[str] = []
        self._written_at = time.monotonic()

    def add(self, event: RunEvent) -> None:
        """Add an event's line."""
        told = str(event)
        level = logging.WARNING if event.level == "warning" else logging.INFO
        _logger.log(level, told, extra={"event": event})
        now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds")
        self._waiting.append(f"{now} {logging.getLevelName(level):7} {told}\n")
        self._waiting += [f"    {line}\n" for line in event.details.splitlines()]
        if time.monotonic() - self._written_at > _WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Bring the lines so far to the file."""
        if not self._waiting:
            return
        try:
            self._fs.append_bytes(self._path, "".join(self._waiting).encode(errors="backslashreplace"))
            self._waiting = []
        except CacheError as error:
            _logger.warning("The log can't be written: %s", error)
        self._written_at = time.monotonic()


class HeldBackWarnings:
    """Keeps warnings of the cache and the ledger back until `release`.

    They come while a run looks at what is there (a damaged part, a lease of a dead process) and are told behind the
    line that says how far it is, which is the first that people look for. A run that waits looks again and again; it
    tells each of them once.
    """

    def __init__(self) -> None:
        self._held: list[tuple[logging.Logger, logging.LogRecord]] = []
        self._filters: list[tuple[logging.Logger, Callable[[logging.LogRecord], bool]]] = []
        for name in ("distilabel_dagster.cache", "distilabel_dagster.ledger"):
            logger = logging.getLogger(name)
            hold = self._make_filter(logger)
            logger.addFilter(hold)
            self._filters.append((logger, hold))

    def _make_filter(self, logger: logging.Logger) -> Callable[[logging.LogRecord], bool]:
        thread = threading.get_ident()
        told: set[str] = set()

        def hold(record: logging.LogRecord) -> bool:
            if record.thread != thread:
                return True
            if (text := record.getMessage()) in told:
                return False
            told.add(text)
            self._held.append((logger, record))
            return False

        return hold

    def release(self) -> None:
        """Let through what was kept, in order, and keep nothing from now on; safe to repeat."""
        for logger, hold in self._filters:
            logger.removeFilter(hold)
        self._filters = []
        held, self._held = self._held, []
        for logger, record in held:
            logger.handle(record)


def show_log_on_terminal() -> None:
    """Show the package's log on standard error, unless the program has set logging up itself."""
    package = logging.getLogger("distilabel_dagster")
    if package.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)-7s %(message)s", "%H:%M:%S"))
    package.addHandler(handler)
    package.setLevel(logging.INFO)
