"""Language and embedding models: the contracts, and those that come with this package."""

from distilabel_dagster.models.azure import AzureOpenAILLM
from distilabel_dagster.models.embeddings import AsyncEmbeddings, Embeddings, OpenAIEmbeddings
from distilabel_dagster.models.llm import LLM, AsyncLLM, ChatItem, ChatType, GenerateOutput
from distilabel_dagster.models.offline import OfflineExtractiveLLM
from distilabel_dagster.models.openai import OpenAILLM

__all__ = [
    "LLM",
    "AsyncEmbeddings",
    "AsyncLLM",
    "AzureOpenAILLM",
    "ChatItem",
    "ChatType",
    "Embeddings",
    "GenerateOutput",
    "OfflineExtractiveLLM",
    "OpenAIEmbeddings",
    "OpenAILLM",
]
