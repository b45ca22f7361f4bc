"""The language models, under distilabel's path."""

from distilabel_dagster.models.azure import AzureOpenAILLM
from distilabel_dagster.models.llm import LLM, AsyncLLM
from distilabel_dagster.models.offline import OfflineExtractiveLLM
from distilabel_dagster.models.openai import OpenAILLM

__all__ = ["LLM", "AsyncLLM", "AzureOpenAILLM", "OfflineExtractiveLLM", "OpenAILLM"]
