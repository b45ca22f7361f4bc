"""AzureOpenAILLM: where its settings come from, and what it's known by."""

import json
from typing import Any

import pytest

from distilabel_dagster.base.signature import describe_identity
from distilabel_dagster.errors import ModelError, PipelineDefinitionError
from distilabel_dagster.models import AzureOpenAILLM


def make(**fields: Any) -> AzureOpenAILLM:
    given = {
        "model": "mine",
        "base_url": "https://x.openai.azure.com/",
        "api_version": "2024-10-21",
        **fields,
    }
    return AzureOpenAILLM(**given)


@pytest.fixture(autouse=True)
def no_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "API_KEY", "AD_TOKEN", "DEPLOYMENT"):
        monkeypatch.delenv(f"AZURE_OPENAI_{name}", raising=False)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-secret-key")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "azure-secret-token")
    monkeypatch.setenv("AZURE_OPENAI_DEPLOYMENT", "mine")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    llm = AzureOpenAILLM()
    assert llm.describe_provider({}) == make().describe_provider({})
    assert describe_identity(llm) == describe_identity(make())
    assert "azure-secret" not in json.dumps([llm.dump(), describe_identity(llm)]) + repr(llm)
    llm.load()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": ""}, "set AZURE_OPENAI_DEPLOYMENT"),
        ({"base_url": ""}, "set AZURE_OPENAI_ENDPOINT"),
        ({"base_url": "https://x.azure.com?key=hunter2"}, "no user, password or query"),
        ({"api_version": ""}, "set OPENAI_API_VERSION"),
    ],
)
def test_what_is_missing_is_told(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(PipelineDefinitionError) as raised:
        make(**fields)
    assert told in str(raised.value)


def test_it_needs_a_key_or_a_token() -> None:
    with pytest.raises(ModelError, match="Set AZURE_OPENAI_API_KEY or AZURE_OPENAI_AD_TOKEN"):
        make().load()
    make(azure_ad_token="t").load()


def test_the_version_of_the_api_is_part_of_a_request() -> None:
    assert make().describe_provider({}) == {
        "provider": "azure-openai",
        "base_url": "https://x.openai.azure.com",
        "api_version": "2024-10-21",
        "api": "chat",
        "model": "mine",
        "schema": None,
        "parameters": {},
    }


def test_the_name_of_a_deployment_is_no_price() -> None:
    assert make(model="gpt-4o-mini").cost_usd(1000, 1000) is None
    assert make(input_price_usd_per_million=1).cost_usd(1000, 0) == 1e-3
