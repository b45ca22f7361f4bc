"""Types for annotations, under distilabel's path."""

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.models.llm import ChatItem, ChatType, GenerateOutput
from distilabel_dagster.steps.step import GeneratorStepOutput, StepInput, StepOutput

__all__ = [
    "ChatItem",
    "ChatType",
    "GenerateOutput",
    "GeneratorStepOutput",
    "StepColumns",
    "StepInput",
    "StepOutput",
]
