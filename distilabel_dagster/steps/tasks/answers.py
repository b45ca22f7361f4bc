"""Answers of models read as named values: from JSON, or from lines such as `Score: 4` where a model wrote those."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from distilabel_dagster.models.structured_output import validate

_END_OF_REASONING: Final = "</think>"
_DECORATION: Final = r"[\s*_#>•-]*"


def without_reasoning(answer: str) -> str:
    """Leave out what a reasoning model thought aloud before its answer."""
    answer = answer.strip()
    # What begins as JSON is the answer already, and such a mark would be part of one of its texts.
    return answer if answer.startswith(("{", "[", "```")) else answer.rpartition(_END_OF_REASONING)[2].strip()


def read_fields(answer: str, names: Sequence[str], *, lines: bool = False) -> Mapping[str, Any]:
    """Give the named values of an answer.

    Args:
        answer: JSON, alone, in a block of code, or with words around it.
        names: names of the values; all must be there, further ones are passed over.
        lines: whether values may also stand on lines of their own, `name: value`; names are then found in any case,
            and with spaces for underscores.

    Raises:
        ValueError: it's neither, or a value is missing.
    """
    answer = without_reasoning(answer)
    schema = {"type": "object", "required": list(names)}
    try:
        return _validate_object(answer, schema)
    except ValueError:
        found = _read_lines(answer, names) if lines and "{" not in answer else {}
        if not found:
            raise
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise ValueError(f"the answer has no line `{missing}: …`")
    return found


def _validate_object(answer: str, schema: dict[str, Any]) -> Mapping[str, Any]:
    """Validate the answer, or the part of it from the first brace to the last."""
    try:
        found: Mapping[str, Any] = validate(answer, schema)
    except ValueError:
        start, end = answer.find("{"), answer.rfind("}")
        inner = answer[start : end + 1]
        if start < 0 or inner in ("", answer):
            raise
        found = validate(inner, schema)
    return found


def _read_lines(answer: str, names: Sequence[str]) -> dict[str, str]:
    choice = "|".join(re.escape(name).replace("_", "[_ ]") for name in names)
    heads = list(
        re.finditer(rf"^{_DECORATION}({choice}){_DECORATION}[:=]", answer, re.IGNORECASE | re.MULTILINE)
    )
    ends = [*(head.start() for head in heads[1:]), len(answer)]
    found: dict[str, str] = {}
    # Without a head there's one end, and nothing to go through.
    for head, end in zip(heads, ends, strict=False):
        name = head[1].lower().replace(" ", "_")
        if name in found:
            raise ValueError(f"the answer has two lines `{name}: …`")
        found[name] = re.sub(rf"^{_DECORATION}|[\s*_]+$", "", answer[head.end() : end])
    return found
