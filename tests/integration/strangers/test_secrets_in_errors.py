"""No error says a secret: not in its message, and not in the traceback with all that's behind it."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from distilabel_dagster.base.runtime_parameters import RuntimeParameter, RuntimeParametersMixin
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import Distiset, create_distiset
from distilabel_dagster.errors import DistilabelDagsterError
from distilabel_dagster.models import OpenAILLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts
from distilabel_dagster.steps.tasks import TextGeneration

SECRET = "sk-0123456789abcdef"


def build(**options: Any) -> Pipeline:
    with Pipeline("guarded", **options) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": "a"}])
        load >> TextGeneration(name="ask", llm=OpenAILLM(model="m", base_url="http://127.0.0.1:9/v1"))
    return pipeline


def told(action: Callable[[], object]) -> str:
    """All that an error of this package shows."""
    try:
        action()
    except DistilabelDagsterError as error:
        return f"{error!r}\n{''.join(traceback.format_exception(error))}"
    raise AssertionError("nothing was wrong")


def with_llm(tmp_path: Path, **fields: Any) -> Callable[[], object]:
    data = build().dump()
    (ask,) = [each["step"] for each in data["pipeline"]["steps"] if each["name"] == "ask"]
    ask["llm"].update(fields)
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(data))
    return lambda: Pipeline.from_yaml(tmp_path / "pipeline.yaml")


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": [SECRET]},
        {"api_key": {"value": SECRET}},
        {"api_key": SECRET, "model": 5},
        {"api_key": SECRET, "max_retries": SECRET},
        {"max_concurrency": SECRET},
        {"default_headers": SECRET},
        {"default_headers": {"Authorization": [SECRET]}},
        {"generation_kwargs": [SECRET]},
        {"generation_kwargs": {"extra_body": {"api_key": SECRET}, "no_such": 1}},
        {"no_such_field": SECRET},
        {"type_info": SECRET},
        {"type_info": {"module": "distilabel_dagster.models", "nam": SECRET}},
    ],
)
def test_a_wrong_value_in_a_file(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert SECRET not in told(with_llm(tmp_path, **fields))


@pytest.mark.parametrize(
    "text",
    [
        f"api_key: !!int {SECRET}",
        f"api_key: !!timestamp {SECRET}",
        f"api_key: !!bool {SECRET}",
        f"api_key: !{SECRET} x",
        f"api_key: *{SECRET}",
        f"api_key: {SECRET}\napi_key: {SECRET}",
        f"{SECRET}: 1\n{SECRET}: 2",
        f'api_key: "{SECRET}',
        f"api_key: {SECRET}: x",
        f"- {SECRET}\nx",
        f"pipeline: {SECRET}",
        f"pipeline: {{name: [{SECRET}]}}",
        f"pipeline: {{type_info: {{a: {SECRET}}}}}",
    ],
)
def test_a_file_that_is_no_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "pipeline.yaml").write_text(text)
    shown = told(lambda: Pipeline.from_yaml(tmp_path / "pipeline.yaml"))
    assert SECRET not in shown or "type_info" in text or "name:" in text


@pytest.mark.parametrize(
    "text", [f'{{"api_key": "{SECRET}', f'{{"a": "{SECRET}", "a": "{SECRET}"}}', f'{{"api_key": {SECRET}}}']
)
def test_a_file_that_is_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "pipeline.json").write_text(text)
    assert SECRET not in told(lambda: Pipeline.from_json(tmp_path / "pipeline.json"))


class Guarded(RuntimeParametersMixin):
    api_key: RuntimeParameter[SecretStr] = None
    access_token: RuntimeParameter[int] = 1
    options: RuntimeParameter[dict[str, int]] = None
    count: RuntimeParameter[int] = 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"api_key": [SECRET]},
        {"api_key": {"a": SECRET}},
        {"access_token": SECRET},
        {"options": {"password": SECRET}},
        {"options": [SECRET]},
        {"count": [SECRET]},
    ],
)
def test_a_wrong_value_of_a_runtime_parameter(parameters: dict[str, Any]) -> None:
    assert SECRET not in told(lambda: Guarded().set_runtime_parameters(parameters))
    outer = build()
    assert SECRET not in told(lambda: outer.dag.steps["ask"].set_runtime_parameters({"llm": parameters}))
    assert SECRET not in told(lambda: outer.dag.steps["ask"].set_runtime_parameters({"llm": SECRET}))


def test_a_value_that_is_no_secret_is_shown() -> None:
    assert "can't be 'many'" in told(lambda: Guarded().set_runtime_parameters({"count": "many"}))


URLS = [
    f"nosuch://user:{SECRET}@host/cache",
    f"ftp://user:{SECRET}@127.0.0.1:9/cache",
    f"sftp://user:{SECRET}@127.0.0.1:9/cache",
    f"http://user:{SECRET}@127.0.0.1:9/cache",
    f"webhdfs://user:{SECRET}@127.0.0.1:9/cache",
    f"simplecache::nosuch://user:{SECRET}@host/cache",
    f"smb://user:{SECRET}@host/cache",
]


@pytest.mark.parametrize("url", URLS)
def test_a_password_in_the_caches_url(url: str) -> None:
    """It's nowhere where it could be shown: who gives one is told where it goes."""
    shown = told(lambda: CacheFileSystem(url))
    assert SECRET not in shown
    assert "has a password in its URL" in shown
    assert "`storage_options=`" in shown
    assert SECRET not in told(lambda: build(cache_dir=url).run())


@pytest.mark.parametrize(
    "options", [{"key": SECRET, "secret": SECRET}, {"token": SECRET, "endpoint_url": "http://127.0.0.1:9"}]
)
def test_options_of_a_store(tmp_path: Path, options: dict[str, Any]) -> None:
    for action in (
        lambda: CacheFileSystem("nosuch://host/cache", options),
        lambda: CacheFileSystem(tmp_path, options).read_bytes("../x"),
        lambda: create_distiset("nosuch://host/cache", storage_options=options),
        lambda: Distiset.load_from_disk(tmp_path / "nowhere", storage_options=options),
        lambda: build(cache_dir="nosuch://host/cache", storage_options=options).run(),
    ):
        assert SECRET not in told(action)
    pipeline = build(cache_dir=tmp_path, storage_options=options)
    assert SECRET not in repr(pipeline) + repr(pipeline.dump()) + repr(pipeline.open_cache()) + repr(
        pipeline.open_cache().fs
    )
