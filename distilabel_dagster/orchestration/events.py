"""Run events in Dagster's words."""

import time
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import dagster as dg

from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.engine.events import RowsFailed, RunEvent, StepFinished, StepStarted, StepStopped
from distilabel_dagster.orchestration.metadata import (
    BATCHES_COMPUTED,
    BATCHES_REUSED,
    DURATION_S,
    ROWS_FAILED,
    STEP_SIGNATURE,
    describe_calls,
)

FAILED_ROWS_CHECK: Final = "no_failed_rows"
_FAILURES_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class StepOutput:
    """A finished step's output: not its rows, but where they are. The IO manager seals it.

    Attributes:
        cache: the pipeline's place in the cache.
        step: the step.
        lineage: columns of the step -> columns of its predecessors, filled in when it's sealed.
    """

    cache: PipelineCache
    step: str
    lineage: "LineageSource | None" = None


@dataclass(frozen=True, slots=True)
class LineageSource:
    """What column lineage is made of.

    Attributes:
        inputs: columns that the step reads.
        outputs: columns that it adds.
        predecessors: predecessor -> its asset key.
    """

    inputs: list[str]
    outputs: list[str]
    predecessors: dict[str, dg.AssetKey]


class EventLog:
    """Tells events to the log of the run, a line each.

    Each line is a row in Dagster's database and a commit of its own, which takes longer than a small batch. So of batches
    with failed rows a step gets one at most every 10 s, and how many were left out is told at its end. Steps that were
    loaded are told together, before whatever comes next.

    Args:
        log: the op's `context.log`.
    """

    def __init__(self, log: dg.DagsterLogManager) -> None:
        self._log = log
        self._told_at: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()
        self._loaded: list[StepStarted] = []

    def tell(self, event: RunEvent) -> None:
        """Add the event's line."""
        if isinstance(event, StepStarted):
            self._loaded.append(event)
            return
        self._tell_loaded()
        if isinstance(event, RowsFailed):
            now = time.monotonic()
            if now - self._told_at.get(event.step, -_FAILURES_EVERY_S) < _FAILURES_EVERY_S:
                self._left_out[event.step] += event.count
                return
            self._told_at[event.step] = now
        elif isinstance(event, StepFinished | StepStopped) and (count := self._left_out.pop(event.step, 0)):
            self._log.warning(
                f"Step `{event.step}`: {count} more rows failed; `pipeline.log` in the cache has a line for each batch"
            )
        self._add(event)

    def _add(self, event: RunEvent) -> None:
        (self._log.warning if event.level == "warning" else self._log.info)(str(event))

    def _tell_loaded(self) -> None:
        loaded, self._loaded = self._loaded, []
        if len(loaded) == 1:
            self._add(loaded[0])
        elif loaded:
            told = ", ".join(
                f"`{each.step}`" + (f" ({each.replicas} replicas)" if each.replicas > 1 else "")
                for each in loaded
            )
            self._log.info(f"Steps {told}: loaded")


def describe_step_end(
    event: StepFinished,
    output: StepOutput,
    asset_key: dg.AssetKey,
    checks: AbstractSet[dg.AssetCheckKey],
) -> "dg.MaterializeResult[StepOutput]":
    """Give the materialization of a finished step.

    Args:
        event: its end.
        output: where its rows are.
        asset_key: its asset.
        checks: the asset checks that the run is to make.
    """
    is_checked = dg.AssetCheckKey(asset_key, FAILED_ROWS_CHECK) in checks
    return dg.MaterializeResult(
        asset_key=asset_key,
        value=output,
        metadata={
            BATCHES_COMPUTED: event.batches_computed,
            BATCHES_REUSED: event.batches_reused,
            ROWS_FAILED: event.rows_failed,
            DURATION_S: round(event.duration_s, 3),
            STEP_SIGNATURE: output.cache.step_signatures[event.step],
            **(describe_calls(event.usage) if event.usage is not None else {}),
        },
        check_results=[_check_failed_rows(event, asset_key)] if is_checked else [],
    )


def _check_failed_rows(event: StepFinished, asset_key: dg.AssetKey) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=FAILED_ROWS_CHECK,
        asset_key=asset_key,
        passed=event.rows_failed == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={ROWS_FAILED: event.rows_failed},
        description=(
            f"{event.rows_failed} rows have no outputs, since the step failed on them. Materialize the partition again "
            "to try just these."
            if event.rows_failed
            else None
        ),
    )
