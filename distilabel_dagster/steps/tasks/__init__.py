"""Tasks: the steps that ask a language model."""

from distilabel_dagster.models.llm import ChatItem, ChatType
from distilabel_dagster.steps.tasks.chat_generation import ChatGeneration
from distilabel_dagster.steps.tasks.rate import Rate
from distilabel_dagster.steps.tasks.structured_generation import StructuredGeneration
from distilabel_dagster.steps.tasks.task import GeneratorTask, GlobalTask, Task
from distilabel_dagster.steps.tasks.text_classification import TextClassification
from distilabel_dagster.steps.tasks.text_generation import TextGeneration

__all__ = [
    "ChatGeneration",
    "ChatItem",
    "ChatType",
    "GeneratorTask",
    "GlobalTask",
    "Rate",
    "StructuredGeneration",
    "Task",
    "TextClassification",
    "TextGeneration",
]
