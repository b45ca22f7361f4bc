"""The pipeline: where steps are declared, run, and written to files."""

from distilabel_dagster.dag.routing import routing_batch_function, sample_n_steps
from distilabel_dagster.pipeline.pipeline import Pipeline

__all__ = ["Pipeline", "routing_batch_function", "sample_n_steps"]
