"""Steps, and what they're made of."""

from typing import TYPE_CHECKING

from distilabel_dagster.base.lazy_names import load_names_lazily
from distilabel_dagster.steps.decorator import step
from distilabel_dagster.steps.resources import StepResources
from distilabel_dagster.steps.step import (
    GeneratorStep,
    GeneratorStepOutput,
    GlobalStep,
    Step,
    StepInput,
    StepOutput,
)

if TYPE_CHECKING:
    from distilabel_dagster.steps.columns import CombineOutputs, ExpandColumns, GroupColumns, KeepColumns
    from distilabel_dagster.steps.dedup import MinHashDedup
    from distilabel_dagster.steps.filtering import FilterRows
    from distilabel_dagster.steps.generators.data import LoadDataFromDicts, make_generator_step
    from distilabel_dagster.steps.generators.data_sampler import DataSampler
    from distilabel_dagster.steps.generators.file_system import LoadDataFromFileSystem
    from distilabel_dagster.steps.generators.huggingface import LoadDataFromDisk, LoadDataFromHub
    from distilabel_dagster.steps.tasks.embedding_generation import EmbeddingGeneration
else:
    __getattr__, __dir__ = load_names_lazily(
        __name__,
        {
            ".columns": ["CombineOutputs", "ExpandColumns", "GroupColumns", "KeepColumns"],
            ".dedup": ["MinHashDedup"],
            ".filtering": ["FilterRows"],
            ".generators.data": ["LoadDataFromDicts", "make_generator_step"],
            ".generators.data_sampler": ["DataSampler"],
            ".generators.file_system": ["LoadDataFromFileSystem"],
            ".generators.huggingface": ["LoadDataFromDisk", "LoadDataFromHub"],
            ".tasks.embedding_generation": ["EmbeddingGeneration"],
        },
    )

__all__ = [
    "CombineOutputs",
    "DataSampler",
    "EmbeddingGeneration",
    "ExpandColumns",
    "FilterRows",
    "GeneratorStep",
    "GeneratorStepOutput",
    "GlobalStep",
    "GroupColumns",
    "KeepColumns",
    "LoadDataFromDicts",
    "LoadDataFromDisk",
    "LoadDataFromFileSystem",
    "LoadDataFromHub",
    "MinHashDedup",
    "Step",
    "StepInput",
    "StepOutput",
    "StepResources",
    "make_generator_step",
    "step",
]
