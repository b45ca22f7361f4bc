"""JSON schemas that answers follow: of classes, in requests, and against answers."""

import datetime as dt
import socket
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from distilabel_dagster.models.structured_output import (
    build_response_format,
    build_strict_schema,
    check_structured_output,
    schema_of,
    validate,
)


class Kind(str, Enum):
    TOWN = "town"
    CITY = "city"


class Place(BaseModel):
    name: str
    kind: Kind = Kind.TOWN
    founded: dt.date | None = None
    tags: list[str] = Field(default=[])

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if value == "nowhere":
            raise ValueError("no such place")
        return value


class Node(BaseModel):
    value: int
    next: "Node | None" = None


class Trip(BaseModel):
    stops: list[Place]
    mode: Literal["foot", "train"]


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_a_class_gives_its_schema_and_a_schema_itself() -> None:
    assert schema_of(Place) == Place.model_json_schema()
    assert schema_of(SCHEMA) == SCHEMA


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (int, "found the class `int`"),
        ("string", "found a str"),
        ({"type": "strnig"}, "not a valid JSON schema: at type"),
        ({"properties": {"a": {"minimum": "x"}}}, "at properties/a/minimum"),
        ({"const": {1, 2}}, "made of what JSON has"),
        ({"const": float("nan")}, "made of what JSON has"),
    ],
)
def test_what_is_no_schema_is_refused(schema: Any, told: str) -> None:
    with pytest.raises(ValueError, match="schema") as raised:
        schema_of(schema)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "it has no `schema`"),
        ({"schema": SCHEMA, "mode": "x"}, "it takes no `mode`"),
        ({"schema": SCHEMA, "format": "regex"}, "its `format` is 'regex'"),
        ({"schema": SCHEMA, "name": "a b"}, "its `name` is 'a b'"),
        ({"schema": SCHEMA, "strict": "yes"}, "its `strict` is 'yes'"),
    ],
)
def test_what_is_no_structure_is_refused(value: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="it") as raised:
        check_structured_output(value)
    assert told in str(raised.value)


def test_what_says_nothing_is_left_out() -> None:
    given = {"schema": Place, "format": "json", "name": None, "strict": None}
    assert check_structured_output(given) == {"schema": Place.model_json_schema()}


def test_a_strict_schema_is_closed_and_wants_everything() -> None:
    assert build_strict_schema(Place.model_json_schema()) == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "kind": {"$ref": "#/$defs/Kind"},
            "founded": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "kind", "founded", "tags"],
        "additionalProperties": False,
        "$defs": {"Kind": {"type": "string", "enum": ["town", "city"]}},
    }
    nested = build_strict_schema(Trip.model_json_schema())
    assert nested is not None
    assert nested["$defs"]["Place"]["additionalProperties"] is False


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": SCHEMA},
        {**SCHEMA, "additionalProperties": {"type": "string"}},
        {**SCHEMA, "additionalProperties": True},
        {**SCHEMA, "required": []},
        {**SCHEMA, "required": ["n", "m"]},
        {**SCHEMA, "minProperties": 1},
        {"type": "object", "properties": {"n": {"type": "string", "minLength": 2}}, "required": ["n"]},
        {"type": "object", "properties": {"n": {"type": "string", "format": "uri"}}, "required": ["n"]},
        {"type": "object", "properties": {"n": {"oneOf": [{"type": "string"}]}}, "required": ["n"]},
        {"type": "object", "properties": {"n": {}}, "required": ["n"]},
        {"type": "object", "properties": {"n": True}, "required": ["n"]},
        {"type": "object"},
        Node.model_json_schema(),
    ],
)
def test_a_schema_without_a_strict_form_is_sent_as_it_is(schema: dict[str, Any]) -> None:
    assert build_strict_schema(schema) is None
    sent = build_response_format({"schema": schema})
    assert sent["json_schema"]["schema"] == schema
    assert sent["json_schema"]["strict"] is False
    with pytest.raises(ValueError, match="can't be strict"):
        build_response_format({"schema": schema, "strict": True})


def test_a_request_names_the_schema() -> None:
    assert build_response_format({"schema": Place, "strict": False}) == {
        "type": "json_schema",
        "json_schema": {"name": "Place", "schema": Place.model_json_schema(), "strict": False},
    }
    assert build_response_format({"schema": SCHEMA})["json_schema"]["name"] == "answer"
    titled = {**SCHEMA, "title": "Ein Ort, größer"}
    assert build_response_format({"schema": titled})["json_schema"]["name"] == "Ein_Ort_gr_er"


def test_answers_are_read_as_plain_data() -> None:
    read = validate('{"name": "Köln", "kind": "city", "founded": "1150-01-02"}', Place)
    assert read == {"name": "Köln", "kind": "city", "founded": "1150-01-02", "tags": []}
    assert validate('{"n": 1, "m": 2}', SCHEMA) == {"n": 1, "m": 2}
    assert validate(' ```json\n{"n": 1}\n``` ', SCHEMA) == {"n": 1}
    assert validate("```\r\n[1]\r\n```", {"type": "array"}) == [1]
    assert validate('{"value": 1, "next": {"value": 2}}', Node.model_json_schema())["next"] == {"value": 2}


@pytest.mark.parametrize(
    ("text", "schema", "told"),
    [
        ("", SCHEMA, "the answer is empty, expected JSON"),
        ("Sure! {", SCHEMA, "the answer isn't JSON: Expecting value: line 1"),
        ('{"n": NaN}', SCHEMA, "NaN is no JSON value"),
        ("{}", SCHEMA, "doesn't follow the schema: 'n' is a required property"),
        ('{"n": "1"}', SCHEMA, "`n`: '1' is not of type 'integer'"),
        ("{}", Place, "`name`: Field required"),
        ('{"name": "nowhere"}', Place, "`name`: Value error, no such place"),
        ('{"stops": [{"name": 1}], "mode": "foot"}', Trip, "`stops.0.name`: Input should be a valid string"),
        ("[]", Place, "Input should be an object"),
    ],
)
def test_answers_that_dont_follow_are_told_why(text: str, schema: Any, told: str) -> None:
    with pytest.raises(ValueError, match="answer") as raised:
        validate(text, schema)
    assert told in str(raised.value)


def test_many_and_long_problems_are_told_in_short() -> None:
    many = {"type": "array", "items": {"type": "integer"}}
    with pytest.raises(ValueError, match=r"\(and 4 more\)") as raised:
        validate(str(["x" * 5000] * 9).replace("'", '"'), many)
    assert len(str(raised.value)) < 2500


def test_a_reference_to_another_document_is_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a schema was asked for over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ValueError, match="refers to what it doesn't hold"):
        validate("1", {"$ref": "http://127.0.0.1:9/schema.json"})
