"""distilabel's path of the local pipeline; here it's the only one."""

from distilabel_dagster.pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]
