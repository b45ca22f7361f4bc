"""The result of a pipeline: a `DatasetDict` per leaf step, with the files that tell how it was made."""

from distilabel_dagster.distiset.distiset import Distiset
from distilabel_dagster.distiset.loading import create_distiset

__all__ = ["Distiset", "create_distiset"]
