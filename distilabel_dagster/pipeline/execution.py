"""A run of a pipeline: the engine between the frozen pipeline, the lease and the log."""

from collections.abc import Iterator
from typing import Any, Protocol

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.events import RunEvent, RunStopped
from distilabel_dagster.engine.run_state import RunOptions, WriteLease
from distilabel_dagster.pipeline.run_log import HeldBackWarnings, RunLog


class _Runnable(Protocol):
    dag: DAG
    ledger_url: str | None

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

    engine = Engine(pipeline.dag, cache, stages, options, acquire)
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


def _ledger_url(pipeline: _Runnable, cache: PipelineCache) -> str | None:
    if pipeline.ledger_url is not None:
        return pipeline.ledger_url
    return cache.fs.full_path(layout.LEDGER_FILE) if cache.fs.is_local else None
