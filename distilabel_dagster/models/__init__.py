"""Language models: the contracts, and those that come with this package."""

from distilabel_dagster.models.llm import LLM, AsyncLLM, ChatItem, ChatType, GenerateOutput
from distilabel_dagster.models.offline import OfflineExtractiveLLM
from distilabel_dagster.models.openai import OpenAILLM

__all__ = ["LLM", "AsyncLLM", "ChatItem", "ChatType", "GenerateOutput", "OfflineExtractiveLLM", "OpenAILLM"]
