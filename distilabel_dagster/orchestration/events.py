"""Run events in Dagster's words."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.engine.events import RunEvent, StepFinished
from distilabel_dagster.orchestration.metadata import (
    BATCHES_COMPUTED,
    BATCHES_REUSED,
    DURATION_S,
    ROWS_FAILED,
    STEP_SIGNATURE,
)

FAILED_ROWS_CHECK = "no_failed_rows"


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


def translate_event(
    event: RunEvent,
    context: dg.AssetExecutionContext,
    output: StepOutput | None,
    asset_key: dg.AssetKey | None,
) -> Iterator["dg.MaterializeResult[StepOutput]"]:
    """Log an event, and give the materialization that it stands for, if it's a step's end.

    Args:
        event: what happened.
        context: the op's context.
        output: the finished step's output.
        asset_key: the finished step's asset.
    """
    log = context.log.warning if event.level == "warning" else context.log.info
    log(str(event))
    if isinstance(event, StepFinished) and output is not None and asset_key is not None:
        yield dg.MaterializeResult(
            asset_key=asset_key,
            value=output,
            metadata={
                BATCHES_COMPUTED: event.batches_computed,
                BATCHES_REUSED: event.batches_reused,
                ROWS_FAILED: event.rows_failed,
                DURATION_S: round(event.duration_s, 3),
                STEP_SIGNATURE: output.cache.step_signatures[event.step],
            },
            check_results=[_check_failed_rows(event, asset_key)],
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
