"""Tasks: the steps that ask a language model."""

from typing import TYPE_CHECKING

from distilabel_dagster.base.lazy_names import load_names_lazily

if TYPE_CHECKING:
    from distilabel_dagster.models.llm import ChatItem, ChatType
    from distilabel_dagster.steps.tasks.chat_generation import ChatGeneration
    from distilabel_dagster.steps.tasks.rate import Rate
    from distilabel_dagster.steps.tasks.structured_generation import StructuredGeneration
    from distilabel_dagster.steps.tasks.task import GeneratorTask, GlobalTask, Task
    from distilabel_dagster.steps.tasks.text_classification import TextClassification
    from distilabel_dagster.steps.tasks.text_generation import TextGeneration
else:
    __getattr__, __dir__ = load_names_lazily(
        __name__,
        {
            "distilabel_dagster.models.llm": ["ChatItem", "ChatType"],
            ".chat_generation": ["ChatGeneration"],
            ".rate": ["Rate"],
            ".structured_generation": ["StructuredGeneration"],
            ".task": ["GeneratorTask", "GlobalTask", "Task"],
            ".text_classification": ["TextClassification"],
            ".text_generation": ["TextGeneration"],
        },
    )

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
