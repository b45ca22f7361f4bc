import json
from typing import Any

import pytest

from distilabel_dagster.base.json_data import load_json


@pytest.mark.parametrize("data", [None, 1, "ü 😀", [1.5, {"a": [True]}], {"": {}}])
def test_json_is_read(data: Any) -> None:
    for text in (json.dumps(data), json.dumps(data, ensure_ascii=False)):
        assert load_json(text) == data
        assert load_json(text.encode()) == data


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "a": 1}', "twice"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "Infinity is no number"),
        ('{"a": "sk-1', r"Unterminated string starting at \(line 1, column 7\)"),
        ("", "Expecting value"),
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('"\\ud800"', "aren't Unicode's"),
        (b"\xff", "aren't Unicode's"),
        ("1" * 5000, "digits"),
        ("[" + "[]," * 4_000_001 + "0]", "more than 4,000,000 lists"),
    ],
)
def test_what_is_no_json_is_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        load_json(text)
    assert "sk-1" not in str(caught.value)


def test_bounds_are_as_asked_for() -> None:
    assert load_json("[" * 100 + "]" * 100) is not None
    with pytest.raises(ValueError, match="more than 3 bytes"):
        load_json("[1, 2]", most_bytes=3)
    assert load_json('"\\ud800"', allows_surrogates=True) == "\ud800"
