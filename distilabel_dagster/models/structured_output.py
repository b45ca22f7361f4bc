"""JSON schemas that answers follow: made of pydantic classes, put into requests, and checked against answers."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from distilabel_dagster.errors import suggest

Schema = type[BaseModel] | Mapping[str, Any]
"""What an answer is to look like: a pydantic class, or a JSON schema."""

_KEYS: Final = ("schema", "name", "strict", "format")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FENCED: Final = re.compile(r"\s*```(?:json)?[ \t]*\r?\n(.*)\r?\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)
_MOST_PROBLEMS: Final = 5
_LONGEST_PROBLEM: Final = 300
# What OpenAI's strict mode takes. Any other keyword is refused there, so a schema with one is sent without it.
_STRICT_KEYWORDS: Final = frozenset(
    {
        "$defs",
        "$ref",
        "additionalProperties",
        "anyOf",
        "const",
        "definitions",
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maximum",
        "maxItems",
        "minimum",
        "minItems",
        "multipleOf",
        "pattern",
        "properties",
        "required",
        "type",
    }
)
_STRICT_FORMATS: Final = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
)
_SAYS_NOTHING: Final = frozenset({"$schema", "$id", "$comment", "default", "examples", "title"})
"""Keywords that hold for people only: left out of a strict schema, where they're refused."""


def schema_of(schema: Schema) -> dict[str, Any]:
    """Give the JSON schema of a class, or a JSON schema as it is.

    Raises:
        ValueError: it's neither, or not a valid schema.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if not isinstance(schema, Mapping):
        raise ValueError(  # noqa: TRY004 (a validator's error, which pydantic takes as a ValueError)
            f"expected a pydantic class or a JSON schema (a dict), found {_kind_of(schema)}"
        )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a JSON schema is made of what JSON has: {error}") from error
    _check_schema(plain)
    return plain


def _kind_of(value: Any) -> str:
    return f"the class `{value.__name__}`" if isinstance(value, type) else f"a {type(value).__name__}"


def _check_schema(schema: dict[str, Any]) -> None:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "the top"
        raise ValueError(f"not a valid JSON schema: at {where}: {error.message}") from error


def check_structured_output(value: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a model's `structured_output` holds as data: with the JSON schema in place of a class.

    So it's equal whether it comes from code or from pipeline.yaml.

    Args:
        value: `schema`, and if wanted `name` (of the schema), `strict` (None: where the schema can be) and `format`
            (`"json"` is the only one).

    Raises:
        ValueError: a key is unknown or missing, or the schema is none.
    """
    for key in value:
        if key not in _KEYS:
            known = ", ".join(f"`{each}`" for each in _KEYS)
            raise ValueError(f"it takes no `{key}`.{suggest(str(key), _KEYS)} It takes: {known}")
    if value.get("schema") is None:
        raise ValueError("it has no `schema`: pass a pydantic class or a JSON schema under that key")
    if value.get("format", "json") != "json":
        raise ValueError(f'its `format` is {value["format"]!r}, and only "json" can be asked for')
    checked: dict[str, Any] = {"schema": schema_of(value["schema"])}
    name = value.get("name")
    if name is not None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"its `name` is {name!r}; letters, digits, `_` and `-` may be in it, at most 64")
        checked["name"] = name
    if value.get("strict") is not None:
        if not isinstance(value["strict"], bool):
            raise ValueError(f"its `strict` is {value['strict']!r}, expected True, False or None")
        checked["strict"] = value["strict"]
    return checked


def build_response_format(structured_output: Mapping[str, Any]) -> dict[str, Any]:
    """Make OpenAI's `response_format` of a structure: `{"schema": …}`, with `name` and `strict` if wanted.

    Strict mode makes endpoints hold the model to the schema token by token. It's asked for where the schema can be
    brought into its form by narrowing it: what the narrower schema allows, the given one does as well.

    Raises:
        ValueError: the structure isn't one, or `strict` is True and the schema can't be.
    """
    checked = check_structured_output(structured_output)
    schema, strict = checked["schema"], checked.get("strict")
    narrowed = None if strict is False else build_strict_schema(schema)
    if strict and narrowed is None:
        raise ValueError(
            "its schema can't be strict: it has keywords, or optional or further properties, that strict mode doesn't "
            "know. Leave `strict` out"
        )
    return {
        "type": "json_schema",
        "json_schema": {
            "name": checked.get("name") or _name_of(schema),
            "schema": schema if narrowed is None else narrowed,
            "strict": narrowed is not None,
        },
    }


def _name_of(schema: Mapping[str, Any]) -> str:
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", str(schema.get("title") or "")).strip("_")
    return name[:64] or "answer"


def build_strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Narrow a schema to what strict mode takes; None where that can't be done.

    Objects are closed, and properties that have a default or may be null become required.
    """
    try:
        narrowed = _narrow(schema)
    except _NotStrictError:
        return None
    return narrowed if narrowed.get("type") == "object" else None


class _NotStrictError(Exception):
    """A schema has no strict form."""


def _narrow(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        raise _NotStrictError
    kept = {key: value for key, value in schema.items() if key not in _SAYS_NOTHING}
    if not kept or not _STRICT_KEYWORDS.issuperset(kept):
        raise _NotStrictError
    if kept.get("format", "date") not in _STRICT_FORMATS:
        raise _NotStrictError
    if "$ref" in kept and "$defs" not in kept:
        if set(kept) - {"$ref", "description"} or not str(kept["$ref"]).startswith("#"):
            raise _NotStrictError
        return {"$ref": kept["$ref"]}
    narrowed = {
        key: _narrow_all(value) if key in ("$defs", "definitions") else value for key, value in kept.items()
    }
    if "items" in kept:
        narrowed["items"] = _narrow(kept["items"])
    if "anyOf" in kept:
        narrowed["anyOf"] = [_narrow(each) for each in kept["anyOf"]]
    if "properties" in kept or "object" in _types_of(kept):
        narrowed.update(_close(kept))
    return narrowed


def _narrow_all(schemas: Any) -> dict[str, Any]:
    return {name: _narrow(each) for name, each in schemas.items()}


def _close(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Close an object: no further properties, and all of its own required."""
    properties = schema.get("properties")
    if not properties or schema.get("additionalProperties", False) is not False:
        raise _NotStrictError
    required = schema.get("required", [])
    for name, each in properties.items():
        # Any other optional property may be one that has to be left out, as where an object holds one of its kind.
        if name not in required and not (
            isinstance(each, Mapping) and ("default" in each or _may_be_null(each))
        ):
            raise _NotStrictError
    if set(required) - set(properties):
        raise _NotStrictError
    return {
        "properties": _narrow_all(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _types_of(schema: Mapping[str, Any]) -> list[Any]:
    kind = schema.get("type")
    return kind if isinstance(kind, list) else [kind]


def _may_be_null(schema: Mapping[str, Any]) -> bool:
    branches = [schema, *(each for each in schema.get("anyOf", []) if isinstance(each, Mapping))]
    return any("null" in _types_of(branch) for branch in branches)


def validate(text: str, schema: Schema) -> Any:
    """Read an answer as JSON and check it against a schema.

    A block of code around the JSON (three backticks) is taken off, since many models put one there.

    Args:
        text: the model's answer.
        schema: a pydantic class, whose validators run and whose defaults are filled in, or a JSON schema.

    Returns:
        The answer as plain data (dicts, lists, scalars).

    Raises:
        ValueError: it isn't JSON, or doesn't follow the schema; the message says where and why, for people and for
            a model that is asked to mend it.
    """
    data = _parse(text)
    if isinstance(schema, type):
        return _validate_by_class(data, schema)
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # With a registry of its own, a reference to another document is an error and never a download.
    validator = validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())
    try:
        problems = sorted(
            validator.iter_errors(data), key=lambda problem: list(map(str, problem.absolute_path))
        )
    except Unresolvable as error:
        raise ValueError(f"the schema refers to what it doesn't hold: {error}") from error
    if problems:
        raise ValueError(_tell([(list(problem.absolute_path), problem.message) for problem in problems]))
    return data


def _parse(text: str) -> Any:
    fenced = _FENCED.fullmatch(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_refuse_constant)
    except ValueError as error:
        if not text.strip():
            raise ValueError("the answer is empty, expected JSON") from error
        raise ValueError(f"the answer isn't JSON: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _validate_by_class(data: Any, schema: type[BaseModel]) -> Any:
    try:
        # As JSON, since a class may take dates, sets or enums in the form that JSON has for them only.
        return schema.model_validate_json(json.dumps(data)).model_dump(mode="json")
    except ValidationError as error:
        told = _tell([(list(problem["loc"]), problem["msg"]) for problem in error.errors()])
    # Outside the handler: pydantic's own text shows the values again.
    raise ValueError(told)


def _tell(problems: list[tuple[list[Any], str]]) -> str:
    told = []
    for path, message in problems[:_MOST_PROBLEMS]:
        # A message quotes what it's about, which may be the whole answer.
        short = message if len(message) <= _LONGEST_PROBLEM else f"{message[:_LONGEST_PROBLEM]}…"
        told.append(f"`{'.'.join(map(str, path))}`: {short}" if path else short)
    more = f" (and {len(problems) - len(told)} more)" if len(problems) > len(told) else ""
    return f"the answer doesn't follow the schema: {'; '.join(told)}{more}"
