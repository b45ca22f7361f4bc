"""Tasks: the steps that ask a language model."""

from distilabel_dagster.models.llm import ChatItem, ChatType
from distilabel_dagster.steps.tasks.task import Task
from distilabel_dagster.steps.tasks.text_generation import TextGeneration

__all__ = ["ChatItem", "ChatType", "Task", "TextGeneration"]
