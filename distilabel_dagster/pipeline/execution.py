"""A run of a pipeline: the engine between the frozen pipeline, the lease and the log."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.events import RunEvent, RunStopped
from distilabel_dagster.engine.run_state import RunOptions, WriteLease
from distilabel_dagster.pipeline.run_log import HeldBackWarnings, RunLog

if TYPE_CHECKING:
    from distilabel_dagster.ledger.responses import ResponseLedger


class _Runnable(Protocol):
    dag: DAG
    ledger_url: str | None
    responses_url: str | None

    def freeze(self, cache: PipelineCache) -> dict[str, Any]: ...


def iter_run(
    pipeline: _Runnable, cache: PipelineCache, stages: list[list[str]], options: RunOptions
) -> Iterator[RunEvent]:
    """Freeze the pipeline, take the leases, run the stages, and write each event to the log.

    Raises:
        StepInUseError: another process runs one of the steps that aren't complete.
    """

    def acquire(steps: list[str]) -> WriteLease | None:
        url = _ledger_url(pipeline, cache)
        if url is None:
            return None
        from distilabel_dagster.ledger.leases import Leases

        return Leases(url).acquire(layout.step_dir(name, cache.step_signatures[name]) for name in steps)

    engine = Engine(
        pipeline.dag,
        cache,
        stages,
        options,
        acquire=acquire,
        open_ledger=lambda: open_responses(pipeline, cache),
    )
    events = engine.run()
    log: RunLog | None = None
    held_back = HeldBackWarnings()
    try:
        for event in events:
            if log is None:
                cache.write_pipeline_file(pipeline.freeze(cache))
                log = RunLog(cache.fs, cache.signature)
            log.add(event)
            held_back.release()
            if isinstance(event, RunStopped):
                log.write()  # a signal that stopped the run may end the process before this generator goes on
            yield event
    finally:
        held_back.release()
        events.close()
        if log is not None:
            log.write()


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


def _ledger_url(pipeline: _Runnable, cache: PipelineCache) -> str | None:
    if pipeline.ledger_url is not None:
        return pipeline.ledger_url
    return cache.fs.full_path(layout.LEDGER_FILE) if cache.fs.is_local else None


def find_responses(ledger_url: str | None, fs: CacheFileSystem) -> str | None:
    """Say where answers of models are kept: beside the leases; None for a cache in memory.

    For a cache that isn't on this machine's disk, and has no ledger, it's a file on it: what was paid for here is better
    kept here than not at all.

    Args:
        ledger_url: what the pipeline was given.
        fs: the cache's files.
    """
    if ledger_url is not None:
        return ledger_url
    if fs.is_local:
        return fs.full_path(layout.LEDGER_FILE)
    if fs.url.startswith("memory:"):
        return None
    name = hashlib.sha256(fs.url.encode()).hexdigest()[:16]
    return str(Path("~/.cache/distilabel/ledgers").expanduser() / f"{name}.sqlite")
