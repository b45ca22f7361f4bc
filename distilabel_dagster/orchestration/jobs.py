"""The job of a pipeline: all its assets, for its present signature."""

from typing import Any

import dagster as dg

from distilabel_dagster.orchestration.metadata import PARTITION_TAG
from distilabel_dagster.orchestration.translator import python_name
from distilabel_dagster.pipeline import Pipeline


def job_name(pipeline: Pipeline) -> str:
    """Name of the pipeline's job."""
    return f"{python_name(pipeline.name)}_job"


def build_distilabel_job(
    pipeline: Pipeline,
    assets: list[dg.AssetsDefinition],
    *,
    executor_def: dg.ExecutorDefinition | None = None,
) -> Any:
    """Make the job `<pipeline>_job`, tagged with the pipeline's present signature as partition.

    So it runs with no further argument; another partition given at launch takes precedence.

    Args:
        pipeline: the pipeline.
        assets: its ops and its `distiset`.
        executor_def: how ops run; in the run's process by default, in which steps stream.
    """
    keys = [key for each in assets for key in each.keys]
    return dg.define_asset_job(
        job_name(pipeline),
        selection=dg.AssetSelection.assets(*keys),
        tags={PARTITION_TAG: pipeline.signature},
        executor_def=executor_def or dg.in_process_executor,
        description=f"Materialize pipeline `{pipeline.name}` for a signature, or go on where an earlier run ended.",
    )
