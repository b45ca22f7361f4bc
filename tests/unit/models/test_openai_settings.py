"""OpenAILLM: where its settings come from, what of them is identity, and that no secret gets out."""

import json

import pytest
from pydantic import SecretStr

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.errors import ModelError, PipelineDefinitionError, RuntimeParameterError
from distilabel_dagster.models import OpenAILLM


def test_settings_come_from_the_environment_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "tiny")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment")
    found = OpenAILLM()
    monkeypatch.setenv("OPENAI_MODEL", "other")
    given = OpenAILLM(model="tiny", base_url="http://127.0.0.1:1/v1", api_key=SecretStr("another"))
    assert (found.model_name, found.base_url) == ("tiny", "http://127.0.0.1:1/v1")
    assert found.api_key == SecretStr("sk-from-environment")
    assert describe_identity(found) == describe_identity(given)
    assert describe_identity(found) != describe_identity(OpenAILLM())


def test_the_key_is_in_no_dump_identity_or_repr() -> None:
    llm = OpenAILLM(model="m", api_key=SecretStr("sk-very-secret"))
    everything = json.dumps([llm.dump(), describe_identity(llm)]) + repr(llm) + str(llm)
    assert "sk-very-secret" not in everything
    assert llm.dump()["base_url"] == "https://api.openai.com/v1"


def test_speed_is_no_identity() -> None:
    def signature(**fields: int) -> str:
        return compute_signature(describe_identity(OpenAILLM(model="m", **fields)))  # type: ignore[arg-type]

    assert signature() == signature(timeout=3, max_retries=0, max_concurrency=1)


def test_a_model_must_be_named() -> None:
    with pytest.raises(PipelineDefinitionError, match="pass `model=`, or set OPENAI_MODEL"):
        OpenAILLM()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("localhost:8000", "expected a URL"),
        ("http://[", "expected a URL"),
        ("http://user:hunter2@host/v1", "no user, password or query"),
        ("http://host/v1?api-key=hunter2", "no user, password or query"),
    ],
)
def test_base_urls_that_are_none_or_hold_secrets_are_refused(url: str, told: str) -> None:
    with pytest.raises(PipelineDefinitionError) as raised:
        OpenAILLM(model="m", base_url=url)
    assert told in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_openai_itself_needs_a_key_and_others_dont() -> None:
    with pytest.raises(ModelError, match="Set OPENAI_API_KEY"):
        OpenAILLM(model="m").load()
    OpenAILLM(model="m", base_url="http://127.0.0.1:1/v1").load()


def test_runtime_parameters_reach_it() -> None:
    llm = OpenAILLM(model="m")
    llm.set_runtime_parameters({"timeout": 5, "generation_kwargs": {"temperature": 0.5}, "api_key": "sk-x"})
    assert (llm.timeout, llm.generation_kwargs) == (5, {"temperature": 0.5})
    assert isinstance(llm.api_key, SecretStr)
    with pytest.raises(RuntimeParameterError, match="takes no `temprature`"):
        llm.set_runtime_parameters({"generation_kwargs": {"temprature": 0.5}})
