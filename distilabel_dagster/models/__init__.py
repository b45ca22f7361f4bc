"""Language and embedding models: the contracts, and those that come with this package."""

from typing import TYPE_CHECKING

from distilabel_dagster.base.lazy_names import load_names_lazily

if TYPE_CHECKING:
    from distilabel_dagster.models.azure import AzureOpenAILLM
    from distilabel_dagster.models.embeddings import AsyncEmbeddings, Embeddings, OpenAIEmbeddings
    from distilabel_dagster.models.llm import LLM, AsyncLLM, ChatItem, ChatType, GenerateOutput
    from distilabel_dagster.models.offline import OfflineExtractiveLLM
    from distilabel_dagster.models.openai import OpenAILLM
else:
    __getattr__, __dir__ = load_names_lazily(
        __name__,
        {
            ".azure": ["AzureOpenAILLM"],
            ".embeddings": ["AsyncEmbeddings", "Embeddings", "OpenAIEmbeddings"],
            ".llm": ["LLM", "AsyncLLM", "ChatItem", "ChatType", "GenerateOutput"],
            ".offline": ["OfflineExtractiveLLM"],
            ".openai": ["OpenAILLM"],
        },
    )

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
