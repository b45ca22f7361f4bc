import datetime as dt
from typing import Any

import pytest
import yaml

from distilabel_dagster.base import yaml_data
from distilabel_dagster.base.yaml_data import dump_yaml, load_yaml


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("---\n", None),
        ("a: 1", {"a": 1}),
        ("a: [1, -2.5, true, null, ~, 'x', \"y\", 0x10, 1:30]", {"a": [1, -2.5, True, None, None, "x", "y", 16, 90]}),
        ("a: 2024-01-02", {"a": dt.date(2024, 1, 2)}),
        ("a: !!str 5\nb: !!int '5'\nc: !!map {d: !!seq [1]}", {"a": "5", "b": 5, "c": {"d": [1]}}),
        ("a: !", {"a": ""}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "mine": {"x": 1, "y": 3}}),
        ("<<: [{x: 1}, {x: 2, y: 2}]\nz: 3", {"x": 1, "y": 2, "z": 3}),
        ("'<<': 1", {"<<": 1}),
        ("a: '='\nb: =", {"a": "=", "b": "="}),
        ("2: a\ntrue: b\nnull: c", {2: "a", True: "b", None: "c"}),
    ],
)  # fmt: skip
def test_plain_data_is_read(text: str, data: Any) -> None:
    assert load_yaml(text) == data
    assert load_yaml(text.encode()) == data


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2", "line 2: a key stands in one mapping twice"),
        ("? [1]\n: 2", "can't be a key"),
        ("a: &x {b: *x}", "an alias stands for what isn't there"),
        ("a: *gone", "alias"),
        ("<<: 5", "takes a mapping"),
        ("<<: {a: 1}\n<<: {b: 1}", "`<<` stands in one mapping twice"),
        ("a: 1\n---\nb: 2", "a second document"),
        ("a: !!python/name:os.system x", "stands for no plain data"),
        ("a: !!python/object/apply:os.system [x]", "stands for no plain data"),
        ("a: !mine x", "stands for no plain data"),
        ("a: !!binary aGV5", "stands for no plain data"),
        ("a: !!set {b}", "stands for no plain data"),
        ("a: !!map [1]", "stands for no plain data"),
        ("a: !!int x", "is no whole number"),
        ("a: !!int ''", "is no whole number"),
        ("a: !!bool x", "is no boolean"),
        ("a: !!timestamp x", "is no date"),
        ("a: 2024-13-45", "is no date"),
        ("a: 1" + ":30" * 200 + ".5", "is no number"),
        ("a: " + "9" * 5000, "more than 4,000 digits"),
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ("a: [1", "line 2"),
        ('"\\ud800"', "Unicode"),
        ("\ud800", "aren't Unicode's"),
    ],
)
def test_what_is_more_than_plain_data_is_refused(text: str, told: str) -> None:
    with pytest.raises(yaml.YAMLError, match=told):
        load_yaml(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(b"a: \xff\xfe\x00")


def test_as_much_as_is_promised_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_yaml("[" * 100 + "]" * 100) is not None
    monkeypatch.setattr(yaml_data, "MOST_VALUES", 10)
    assert load_yaml("[1, 2, 3, 4, 5, 6, 7, 8, 9]") == list(range(1, 10))
    assert load_yaml("- &a [1, 2]\n- *a\n- *a") == [[1, 2]] * 3
    for text in ("[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]", "- &a [1, 2]\n- *a\n- *a\n- *a"):
        with pytest.raises(yaml.YAMLError, match="more than 10 values"):
            load_yaml(text)
    monkeypatch.setattr(yaml_data, "MOST_CHARACTERS", 5)
    with pytest.raises(yaml.YAMLError, match="more than 5 characters"):
        load_yaml("a: 'xx'")


def test_what_is_written_holds_no_alias() -> None:
    """One that is read again counts each value once."""
    shared = {"x": [1]}
    assert load_yaml(dump_yaml({"a": shared, "b": shared})) == {"a": shared, "b": shared}
