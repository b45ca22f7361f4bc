"""OpenAILLM: where its settings come from, what of them is identity, and that no secret gets out."""

import inspect
import json
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.errors import ModelError, PipelineDefinitionError, RuntimeParameterError
from distilabel_dagster.models import OpenAILLM
from distilabel_dagster.models.openai_requests import OPTIONS


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

    assert signature() == signature(timeout_s=3, max_retries=0, max_concurrency=1)


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
    llm.set_runtime_parameters({"timeout_s": 5, "generation_kwargs": {"temperature": 0.5}, "api_key": "sk-x"})
    assert (llm.timeout_s, llm.generation_kwargs) == (5, {"temperature": 0.5})
    assert isinstance(llm.api_key, SecretStr)
    with pytest.raises(RuntimeParameterError, match="takes no `temprature`"):
        llm.set_runtime_parameters({"generation_kwargs": {"temprature": 0.5}})


def make(**fields: Any) -> OpenAILLM:
    return OpenAILLM(**{"model": "m", "base_url": "http://127.0.0.1:1/v1", **fields})


def describe(llm: OpenAILLM) -> dict[str, Any]:
    return llm.describe_provider(llm.get_generation_kwargs())


def test_every_option_is_known_to_requests_and_to_the_class() -> None:
    parameters = set(inspect.signature(OpenAILLM.agenerate).parameters)
    assert parameters - {"self", "input", "num_generations", "structured_output"} == OPTIONS
    assert set(OpenAILLM.generation_parameters() or ()) == OPTIONS


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"generation_kwargs": {"n": 3}}, "takes no `n`"),
        ({"generation_kwargs": {"extra_body": {"n": 3}}}, "may not set `n`"),
        (
            {"generation_kwargs": {"extra_body": {"stream": True, "model": "x"}}},
            "may not set `model`, `stream`",
        ),
        (
            {"generation_kwargs": {"extra_body": [1]}},
            "`extra_body` is a dict of further fields, found a list",
        ),
        ({"generation_kwargs": {"structured_output": {}}}, "takes no `structured_output`"),
        ({"api": "completion", "generation_kwargs": {"tools": []}}, "`tools` is of the chat API"),
        ({"api": "responses"}, "Input should be 'chat' or 'completion'"),
        ({"structured_output": {"shema": {}}}, "it takes no `shema`. Did you mean `schema`?"),
        ({"structured_output": {"schema": {"type": "objekt"}}}, "not a valid JSON schema: at type: 'objekt'"),
        (
            {
                "structured_output": {"schema": {"type": "object"}},
                "generation_kwargs": {"response_format": {"type": "json_object"}},
            },
            "pass one of them",
        ),
    ],
)
def test_settings_that_cant_be_sent_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(PipelineDefinitionError) as raised:
        make(**fields)
    assert told in str(raised.value)


class Answer(BaseModel):
    value: int


def test_a_class_becomes_its_schema_so_that_a_file_gives_the_same_model() -> None:
    llm = make(structured_output={"schema": Answer, "name": "answer"})
    read = OpenAILLM.from_dict(json.loads(json.dumps(llm.dump())))
    assert read.structured_output == {"schema": Answer.model_json_schema(), "name": "answer"}
    assert describe_identity(read) == describe_identity(llm)
    assert describe(read) == describe(llm)


def test_what_is_sent_is_the_same_request_and_nothing_else() -> None:
    base = describe(make())
    assert base == {
        "provider": "openai",
        "base_url": "http://127.0.0.1:1/v1",
        "api": "chat",
        "model": "m",
        "schema": None,
        "parameters": {},
    }
    for fields in (
        {"timeout_s": 1},
        {"max_retries": 0},
        {"max_concurrency": 1},
        {"requests_per_minute": 1},
        {"tokens_per_minute": 1},
        {"api_key": "sk-other-key"},
        {"default_headers": {"x": "y"}},
        {"input_price_usd_per_million": 1},
        {"generation_kwargs": {"temperature": None}},
        {"generation_kwargs": {"extra_body": {"api_key": "sk-other-key"}}},
    ):
        assert describe(make(**fields)) == base, fields
    changed = [
        {"model": "n"},
        {"base_url": "http://127.0.0.1:2/v1"},
        {"api": "completion"},
        {"generation_kwargs": {"temperature": 0}},
        {"generation_kwargs": {"max_new_tokens": 1}},
        {"generation_kwargs": {"extra_body": {"top_k": 1}}},
        {"generation_kwargs": {"response_format": {"type": "json_object"}}},
        {"structured_output": {"schema": Answer}},
    ]
    described = [json.dumps(describe(make(**fields)), sort_keys=True) for fields in changed]
    assert len({*described, json.dumps(base, sort_keys=True)}) == len(changed) + 1
    zero = make(generation_kwargs={"temperature": 0.0})
    assert json.dumps(describe(zero)) == json.dumps(describe(make(generation_kwargs={"temperature": 0})))


class Own(OpenAILLM):
    def build_request(self, messages: Any, kwargs: Any) -> dict[str, Any]:
        return {**super().build_request(messages, kwargs), "mine": 1}


class OnlyReads(OpenAILLM):
    def read_response(self, response: dict[str, Any]) -> Any:
        return {"generations": ["x"]}


def test_a_subclass_that_asks_in_its_own_way_is_another_provider() -> None:
    llm = Own(model="m", base_url="http://127.0.0.1:1/v1")
    described = llm.describe_provider({"temperature": 1})
    assert described["provider"]["class"][1] == "Own"
    assert described["provider"]["code"]
    assert described["parameters"] == {"temperature": 1}
    assert describe(OnlyReads(model="m", base_url="http://127.0.0.1:1/v1")) == describe(make())


def test_a_price_that_is_given_counts_and_a_local_endpoint_has_none() -> None:
    assert make(model="gpt-4o-mini").cost_usd(1_000_000, 0) is None
    assert make(input_price_usd_per_million=2, output_price_usd_per_million=4).cost_usd(10, 5) == 4e-5
    listed = OpenAILLM(model="gpt-4o-mini").cost_usd(1_000_000, 1_000_000)
    assert listed is not None
    assert listed > 0
