import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from distilabel_dagster.base.serializable import SerializableModel, is_secret_name, load_object, type_info_of
from distilabel_dagster.base.signature import canonical_json, describe_identity
from distilabel_dagster.errors import (
    PipelineDefinitionError,
    PipelineFileError,
    SerializationError,
    UntrustedClassError,
)
from distilabel_dagster.steps import KeepColumns

SECRET = "hunter2"


class Inner(SerializableModel):
    api_key: SecretStr | None = None
    depth: int = 1


class Thing(SerializableModel):
    name: str = ""
    inner: Inner | None = None
    password: str | None = None
    hf_token: str | None = None
    maybe: SecretStr | None = None
    raw: SecretBytes | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    many: list[Any] = Field(default_factory=list)
    max_tokens: int = 5
    tokenizer: str = "t"
    eos_token: str = "</s>"


@pytest.mark.parametrize(
    "name",
    [
        "api_key", "apikey", "apiKey", "OPENAI_API_KEY", "X-Api-Key", "api_keys", "token", "hf_token", "accessToken",
        "password", "db_password", "secret", "client_secret", "Authorization", "credentials", "private_key",
    ],
)  # fmt: skip
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "max_new_tokens", "tokenizer", "tokens_per_minute", "eos_token", "pad_token", "key", "keys", "monkey",
     "stop_token", "columns"],
)  # fmt: skip
def test_names_of_settings_are_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_no_secret_is_ever_written() -> None:
    thing = Thing(
        inner=Inner(api_key=SecretStr(SECRET), depth=2),
        password=SECRET,
        hf_token=SECRET,
        maybe=SecretStr(SECRET),
        raw=SecretBytes(SECRET.encode()),
        options={
            "headers": {"Authorization": SECRET, "accept": "json"},
            "apiKey": SECRET,
            "api_keys": [SECRET, SECRET],
            "nested": [{"secret": SECRET, "n": 1}],
            "wrapped": SecretStr(SECRET),
            "wrapped_list": [SecretStr(SECRET)],
        },
    )
    dumped = thing.dump()
    assert SECRET not in json.dumps(dumped)
    assert SECRET not in canonical_json(describe_identity(thing))
    assert dumped["options"] == {"headers": {"accept": "json"}, "nested": [{"n": 1}]}
    assert (dumped["max_tokens"], dumped["tokenizer"], dumped["eos_token"]) == (5, "t", "</s>")
    assert Thing.from_dict(dumped).inner == Inner(depth=2)


def test_a_column_may_be_called_like_a_secret() -> None:
    step = KeepColumns(name="keep", columns=["token"], input_mappings={"token": "word"})
    assert step.dump()["input_mappings"] == {"token": "word"}
    assert describe_identity(step)["fields"]["input_mappings"] == {"token": "word"}


def test_what_is_no_data_is_refused_with_its_place() -> None:
    with pytest.raises(SerializationError, match=r"`Thing\.options\.a\[1\]` is a object"):
        Thing(options={"a": [1, object()]}).dump()


def test_a_field_is_named_without_its_value_where_it_cannot_be_made() -> None:
    with pytest.raises(PipelineDefinitionError, match="`max_tokens`") as caught:
        Thing(max_tokens=SECRET)
    assert SECRET not in str(caught.value)


def test_objects_come_back_as_they_were() -> None:
    thing = Thing(
        name="x", inner=Inner(depth=3), many=[Inner(depth=4).dump()], options={"a": {"b": [1, None]}}
    )
    assert load_object(thing.dump(), "file").dump()["inner"]["depth"] == 3


def sentinel_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sentinel_module.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
        "from distilabel_dagster.base.serializable import SerializableModel\nclass Thing(SerializableModel): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sentinel_module", raising=False)
    return tmp_path / "imported"


def test_an_untrusted_class_is_refused_and_nothing_imported(tmp_path, monkeypatch) -> None:
    imported = sentinel_module(tmp_path, monkeypatch)
    info = {"module": "sentinel_module", "name": "Thing"}
    with pytest.raises(UntrustedClassError, match=r"trusted_modules=\[\"sentinel_module\"\]"):
        load_object({"type_info": info}, "pipeline.yaml")
    with pytest.raises(UntrustedClassError):
        load_object({"inner": {"type_info": info}, "type_info": type_info_of(Thing)}, "pipeline.yaml")
    with pytest.raises(UntrustedClassError):
        load_object({"type_info": info}, "pipeline.yaml", ["sentinel"])
    assert not imported.exists()


def test_a_trusted_module_is_imported(tmp_path, monkeypatch) -> None:
    imported = sentinel_module(tmp_path, monkeypatch)
    info = {"module": "sentinel_module", "name": "Thing"}
    assert type(load_object({"type_info": info}, "file", ["sentinel_module"])).__name__ == "Thing"
    assert imported.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("subprocess", "Popen"),
        ("os", "system"),
        ("builtins", "eval"),
        ("pydantic", "BaseModel"),
        ("distilabel_dagster.base.serializable", "importlib.import_module"),
        ("distilabel_dagster.cache.filesystem", "CacheFileSystem"),
        ("distilabel_dagster.base.serializable", "load_object"),
    ],
)
def test_only_classes_meant_for_files_are_made(module: str, name: str) -> None:
    __import__(module)
    with pytest.raises(UntrustedClassError):
        load_object({"type_info": {"module": module, "name": name}, "args": "true"}, "file")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "expected a mapping, found list"),
        ({}, "expected a `type_info`"),
        ({"type_info": "Thing"}, "expected a `type_info`"),
        ({"type_info": {"module": __name__}}, "expected a `type_info`"),
        ({"type_info": {"module": __name__, "name": "Gone"}}, "has no `Gone`"),
        ({"type_info": {"module": "distilabel_dagster.gone", "name": "X"}}, "can't be imported"),
    ],
)
def test_damaged_files_are_errors_that_name_the_file(data: Any, told: str) -> None:
    with pytest.raises(PipelineFileError, match=told) as caught:
        load_object(data, "pipeline.yaml")
    assert "pipeline.yaml" in str(caught.value)


def test_wrong_fields_are_an_error_of_the_file() -> None:
    with pytest.raises(PipelineFileError, match=r"pipeline\.yaml.*max_tokens"):
        load_object({"max_tokens": "many", "type_info": type_info_of(Thing)}, "pipeline.yaml")


def test_another_class_than_expected_is_refused() -> None:
    with pytest.raises(PipelineFileError, match="holds a `Inner`, expected a `Thing`"):
        Thing.from_dict(Inner().dump())


def test_models_of_pydantic_are_written_as_data() -> None:
    class Plain(BaseModel):
        n: int = 1
        api_key: str = SECRET

    assert Thing(options={"plain": Plain()}).dump()["options"] == {"plain": {"n": 1}}
