import datetime as dt
import decimal
import enum
import uuid
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, Field

from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.base.signature import (
    NON_IDENTITY_FIELDS,
    canonical_json,
    compute_signature,
    describe_identity,
    is_signature,
)
from distilabel_dagster.errors import SerializationError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts, Step, StepResources


class Color(enum.Enum):
    RED = "red"


class Speak(Step):
    template: str = "Say {{ text }}"
    options: dict[str, Any] = Field(default_factory=dict)
    api_key: str | None = None
    timeout: float = 1.0
    level: RuntimeParameter[int] = 1

    def process(self, inputs: Any) -> Any:
        yield inputs


def identity(**fields: Any) -> str:
    return compute_signature(describe_identity(Speak(name="speak", **fields)))


def test_equal_values_are_written_equally() -> None:
    assert canonical_json({"b": 1, "a": [True, None, 1.5, "ü"]}) == '{"a":[true,null,1.5,"ü"],"b":1}'
    assert canonical_json({"x": {"b", "a"}}) == canonical_json({"x": {"a", "b"}})


@pytest.mark.parametrize(
    "value",
    [
        b"x", bytearray(b"x"), dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc), dt.time(3), dt.timedelta(seconds=1), decimal.Decimal("1.50"),
        uuid.UUID(int=1), {1, 2}, Color.RED, PurePosixPath("a/b"), np.array([1, 2]), np.float32(1.5),
    ],
)  # fmt: skip
def test_data_of_many_kinds_has_a_signature(value: Any) -> None:
    assert is_signature(compute_signature({"value": value}))


def test_values_that_print_alike_are_told_apart() -> None:
    different = [
        "1",
        1,
        b"1",
        [1],
        {1},
        "1.0",
        1.5,
        decimal.Decimal(1),
        np.array([1], "int32"),
        np.array([1], "int64"),
    ]
    assert len({compute_signature(value) for value in different}) == len(different)


@pytest.mark.parametrize("value", [object(), lambda: 1, {1: "a", "b": 2}])
def test_what_is_no_data_has_none(value: Any) -> None:
    with pytest.raises(SerializationError):
        compute_signature({"value": value})


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a" * 40, True),
        ("A" * 40, False),
        ("a" * 39, False),
        ("g" * 40, False),
        ("../" + "a" * 37, False),
        ("", False),
    ],
)
def test_what_is_written_as_a_signature(text: str, is_one: bool) -> None:
    assert is_signature(text) is is_one


@pytest.mark.parametrize(
    "fields",
    [
        {"template": "Shout"},
        {"options": {"temperature": 0.5}},
        {"options": {"eos_token": "</s>"}},
        {"level": 2},
        {"input_mappings": {"text": "token"}},
        {"output_mappings": {"said": "told"}},
        {"code_version": "2"},
        {"options": {"schema": Color}},
    ],
)
def test_what_can_change_the_rows_is_identity(fields: dict[str, Any]) -> None:
    assert identity(**fields) != identity()


@pytest.mark.parametrize(
    "fields",
    [
        {"input_batch_size": 7},
        {"resources": StepResources(replicas=3, cpus=2)},
        {"use_cache": False},
        {"api_key": "hunter2"},
        {"timeout": 9.0},
    ],
)
def test_what_cannot_change_the_rows_is_none(fields: dict[str, Any]) -> None:
    assert identity(**fields) == identity()


def test_secrets_deep_in_the_options_are_none() -> None:
    assert identity(options={"headers": {"Authorization": "a"}}) == identity(
        options={"headers": {"Authorization": "b"}}
    )


def test_every_excluded_field_has_its_reason() -> None:
    assert all(len(reason) > 10 for reason in NON_IDENTITY_FIELDS.values())


def test_rows_are_identity_whatever_their_columns_are_called() -> None:
    def of(rows: list[dict[str, Any]]) -> str:
        return compute_signature(describe_identity(LoadDataFromDicts(name="load", data=rows)))

    assert of([{"token": "a"}]) != of([{"token": "b"}])
    assert of([{"a": 1, "b": 2}]) == of([{"b": 2, "a": 1}])
    assert of([{"a": 1}, {"a": 2}]) != of([{"a": 2}, {"a": 1}])


def test_the_schema_of_a_model_class_is_identity() -> None:
    def schema_of(annotation: Any) -> str:
        made = type("Answer", (BaseModel,), {"__annotations__": {"n": annotation}, "__module__": __name__})
        return identity(options={"format": made})

    assert schema_of(int) != schema_of(str)


def test_a_field_that_is_no_data_is_named_with_its_step() -> None:
    with Pipeline("test") as pipeline:
        LoadDataFromDicts(name="load", data=[{"n": 1}]) >> Speak(name="speak", options={"x": object()})
    with pytest.raises(SerializationError, match="Step `speak`, field `options`: A object"):
        _ = pipeline.signature
