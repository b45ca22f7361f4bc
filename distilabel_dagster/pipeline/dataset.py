"""Rows given to `run(dataset=...)` as a generator step."""

from typing import Any

from distilabel_dagster.batch import Rows
from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.steps import LoadDataFromDicts


def make_generator_step(dataset: Any, pipeline: Any, batch_size: int) -> LoadDataFromDicts:
    """Make the step that gives the rows of `dataset`, in `pipeline`.

    Args:
        dataset: a list of dicts, a `datasets.Dataset`, or a pandas or polars DataFrame.
        pipeline: where the step is added.
        batch_size: rows per batch.

    Raises:
        PipelineDefinitionError: `dataset` is of another type, or has several splits.
    """
    name = pipeline.free_step_name("load_dataset")
    return LoadDataFromDicts(name=name, data=_list_rows(dataset), batch_size=batch_size, pipeline=pipeline)


def _list_rows(dataset: Any) -> Rows:
    if isinstance(dataset, list):
        return dataset
    if isinstance(dataset, dict):
        raise PipelineDefinitionError(
            f"`dataset=` has the splits {list(dataset)}; a pipeline starts from one. Pass one, such as `dataset['train']`."
        )
    for method, arguments in (("to_dicts", ()), ("to_list", ()), ("to_dict", ("records",))):
        convert = getattr(dataset, method, None)
        if callable(convert):
            rows: Rows = convert(*arguments)
            return rows
    raise PipelineDefinitionError(
        f"`dataset=` is a {type(dataset).__name__}; expected a list of dicts, a `datasets.Dataset`, or a DataFrame."
    )
