"""A run of a pipeline: the engine between the frozen pipeline, the lease and the log."""

import hashlib
import logging
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.events import RunEvent, RunStopped, WaitingForLease
from distilabel_dagster.engine.run_state import RunOptions, WriteLease
from distilabel_dagster.errors import CacheDirectoryError
from distilabel_dagster.pipeline.run_log import HeldBackWarnings, RunLog

if TYPE_CHECKING:
    from distilabel_dagster.ledger.leases import HeldLeases
    from distilabel_dagster.ledger.responses import ResponseLedger

_logger = logging.getLogger("distilabel_dagster.ledger")


class _Runnable(Protocol):
    dag: DAG
    ledger_url: str | None
    responses_url: str | None

    def freeze(self, cache: PipelineCache) -> dict[str, Any]: ...


class RunEvents(Iterator[RunEvent]):
    """What happens in a run, event by event; the run comes on while this is gone through.

    Args:
        engine: runs the steps.
        pipeline: what is run.
        cache: its place in the cache.
    """

    def __init__(self, engine: Engine, pipeline: _Runnable, cache: PipelineCache) -> None:
        self._engine = engine
        self._events = _iter_events(engine, pipeline, cache)

    def __iter__(self) -> "RunEvents":
        return self

    def __next__(self) -> RunEvent:
        return next(self._events)

    def stop(self, reason: str) -> None:
        """Ask the run to stop, from any thread or a signal handler; go on through its events to their end.

        No new batch is begun and no call made; what is being computed gets the grace period, and is committed.

        Args:
            reason: what is told of it, as "Stop requested (<reason>)".
        """
        self._engine.request_stop(reason)

    def close(self) -> None:
        """Stop the run and wait for its end, without its events."""
        self._events.close()


def iter_run(
    pipeline: _Runnable, cache: PipelineCache, stages: list[list[str]], options: RunOptions
) -> RunEvents:
    """Freeze the pipeline, take the leases, run the stages, and write each event to the log.

    Raises:
        StepInUseError: another process runs one of the steps that aren't complete, and that isn't to be waited for.
    """

    def acquire(steps: list[str]) -> WriteLease | None:
        keys = [layout.step_dir(name, cache.step_signatures[name]) for name in steps]
        return acquire_lease(pipeline.ledger_url, cache.fs, keys)

    engine = Engine(
        pipeline.dag,
        cache,
        stages,
        options,
        acquire=acquire,
        open_ledger=lambda: open_responses(pipeline, cache),
    )
    return RunEvents(engine, pipeline, cache)


def _iter_events(
    engine: Engine, pipeline: _Runnable, cache: PipelineCache
) -> Generator[RunEvent, None, None]:
    events = engine.run()
    log: RunLog | None = None
    held_back = HeldBackWarnings()
    try:
        for event in events:
            if log is None:
                cache.write_pipeline_file(pipeline.freeze(cache))
                log = RunLog(cache.fs, cache.signature)
            log.add(event)
            if not isinstance(event, WaitingForLease):
                held_back.release()
            if isinstance(event, RunStopped | WaitingForLease):
                log.write()  # a signal that stopped the run may end the process before this generator goes on
            yield event
    finally:
        held_back.release()
        events.close()
        if log is not None:
            log.write()


def acquire_lease(ledger_url: str | None, fs: CacheFileSystem, keys: list[str]) -> "HeldLeases | None":
    """Get hold of what only one process at a time may write; None for a cache in memory, which no other process sees.

    Runs on other machines are seen through a ledger that's shared: one given by `ledger_url`, or a cache on a shared
    disk. For a cache in an object store without one, only runs on this machine are.

    Args:
        ledger_url: what the pipeline was given.
        fs: the cache's files.
        keys: directories of steps.

    Raises:
        StepInUseError: another process, or run of this one, has one of them.
        CacheError: the ledger can't be opened, read or written.
    """
    url = find_responses(ledger_url, fs)
    if url is None:
        return None
    from distilabel_dagster.ledger.leases import Leases

    try:
        leases = Leases(url)
    except CacheDirectoryError as error:
        if ledger_url is not None or fs.is_local:
            raise
        _logger.warning(
            "Nobody can see that this run writes to %s, so let it be the only one. %s", fs.url, error
        )
        return None
    return leases.acquire(keys)


def open_responses(pipeline: _Runnable, cache: PipelineCache) -> "ResponseLedger | None":
    """Open the ledger that keeps what models answer; None for a cache in memory, which ends with the process.

    Raises:
        CacheError: it can't be opened.
    """
    url = pipeline.responses_url or find_responses(pipeline.ledger_url, cache.fs)
    if url is None:
        return None
    from distilabel_dagster.ledger.responses import ResponseLedger

    return ResponseLedger(url)


def find_responses(ledger_url: str | None, fs: CacheFileSystem) -> str | None:
    """Say where the ledger is: answers of models, and who writes; None for a cache in memory.

    For a cache that isn't on this machine's disk, and has no ledger, it's a file on it: what was paid for here is better
    kept here than not at all, and runs on one machine see each other.

    Args:
        ledger_url: what the pipeline was given.
        fs: the cache's files.

    Raises:
        CacheDirectoryError: the ledger in the cache is a link that leads out of it.
    """
    if ledger_url is not None:
        return ledger_url
    if fs.is_local:
        for name in layout.LEDGER_FILES:  # SQLite would follow a link out of the cache
            fs.exists(name)
        return fs.full_path(layout.LEDGER_FILE)
    if fs.url.startswith("memory:"):
        return None
    name = hashlib.sha256(fs.url.encode()).hexdigest()[:16]
    return str(Path("~/.cache/distilabel/ledgers").expanduser() / f"{name}.sqlite")
