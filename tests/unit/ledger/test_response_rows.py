import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.ledger.calls import StoredResponse
from distilabel_dagster.ledger.response_encoding import COLUMNS, decode_row, decode_rows, encode_row
from distilabel_dagster.ledger.response_rows import StoredResponses
from distilabel_dagster.ledger.schema import RESPONSES_TABLE

texts = st.text(st.characters())  # halves of surrogate pairs among them
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def stored(response: dict[str, Any]) -> StoredResponse:
    return StoredResponse(bytes(32), response, "gpt", "http://x", "stop", 1, 2, 0.5, 1.5, 3, 9.0, "run-1")


@given(st.dictionaries(texts, values, max_size=4))
def test_a_response_is_read_as_json_would_read_it(response: dict[str, Any]) -> None:
    row = encode_row(stored(response))
    text = row[COLUMNS.index("response")]
    text.encode()
    assert "\0" not in text
    assert repr(decode_row(row, "ledger").response) == repr(json.loads(json.dumps(response)))


def test_what_json_is_lax_about_is_kept() -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    response = {"infinite": float("inf"), "large": 10**400, "deep": deep}
    assert decode_row(encode_row(stored(response)), "ledger").response == response


def test_a_row_has_the_columns_of_the_table() -> None:
    row = dict(zip(RESPONSES_TABLE.columns.keys(), encode_row(stored({})), strict=True))
    assert row == {
        "key": bytes(32),
        "model": "gpt",
        "endpoint": "http://x",
        "finish_reason": "stop",
        "input_tokens": 1,
        "output_tokens": 2,
        "cost_usd": 0.5,
        "latency_s": 1.5,
        "attempts": 3,
        "created_at": 9.0,
        "run_id": "run-1",
        "response": "{}",
        "checksum": 2_324_361_415,  # for ever: ledgers outlive releases
    }
    assert decode_row(tuple(row.values()), "ledger") == stored({})


def test_responses_are_read_when_they_are_asked_for() -> None:
    good, bad = encode_row(stored({"a": 1})), (*encode_row(stored({}))[:-2], "{", None)
    found = StoredResponses({b"good": good, b"bad": bad}, "/cache/ledger.sqlite")
    assert found[b"good"].response == {"a": 1}
    assert sorted(found) == [b"bad", b"good"]
    assert b"none" not in found
    with pytest.raises(KeyError):
        found[b"none"]
    with pytest.raises(DamagedFileError, match="is not a JSON object") as caught:
        found[b"bad"]
    assert caught.value.path == "/cache/ledger.sqlite"


ROW = encode_row(stored({"text": "Ünïcode 🙂"}))
OTHER_VALUES: dict[str, list[Any]] = {
    "key": [bytes(31) + b"\1"],
    "model": ["gpt2", ""],
    "endpoint": ["http://y"],
    "finish_reason": ["stoq", "", None],
    "input_tokens": [0, 2, None, 2**40],
    "output_tokens": [1, None],
    "cost_usd": [0.5000000000000001, None, float("inf")],
    "latency_s": [-1.5, 0.0],
    "attempts": [2],
    "created_at": [9.000000000000002],
    "run_id": ["run-0"],
    "response": ['{"text":"Ünïcode 🙁"}', "{}", "", '{"text":"Ünïcode 🙂"} '],
    "checksum": [0, 2**32 - 1, ROW[-1] ^ 1],
}


def test_all_columns_have_other_values() -> None:
    assert OTHER_VALUES.keys() == set(COLUMNS)


@pytest.mark.parametrize(
    ("column", "value"), [(column, value) for column, values in OTHER_VALUES.items() for value in values]
)
def test_another_value_than_was_written_is_damage(column: str, value: Any) -> None:
    row = list(ROW)
    row[COLUMNS.index(column)] = value
    with pytest.raises(DamagedFileError, match="does not have the checksum that it was written with"):
        decode_row(tuple(row), "ledger")


def test_each_bit_counts() -> None:
    text = ROW[COLUMNS.index("response")].encode()
    for place in range(len(text) * 8):
        flipped = bytearray(text)
        flipped[place // 8] ^= 1 << place % 8
        row = (*ROW[:-2], bytes(flipped), ROW[-1])
        with pytest.raises(DamagedFileError):
            decode_row(row, "ledger")


def test_values_do_not_run_into_one_another() -> None:
    ours = encode_row(stored({}))
    for changed in ({"model": "gpt\n", "endpoint": "http://x"}, {"model": "gpt\nhttp:", "endpoint": "//x"}):
        theirs = list(ours)
        for column, value in changed.items():
            theirs[COLUMNS.index(column)] = value
        with pytest.raises(DamagedFileError):
            decode_row(tuple(theirs), "ledger")


@pytest.mark.parametrize("checksum", [None, ROW[-1]])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("key", "text"),
        ("key", None),
        ("model", None),
        ("model", b"gpt"),
        ("endpoint", 5),
        ("finish_reason", b"stop"),
        ("input_tokens", "many"),
        ("output_tokens", 1.5),
        ("cost_usd", "0.5"),
        ("latency_s", None),
        ("attempts", "3"),
        ("created_at", "yesterday"),
        ("run_id", 1),
        ("response", 5),
        ("response", None),
    ],
)
def test_values_of_a_stranger_are_damage(column: str, value: Any, checksum: int | None) -> None:
    row = list(ROW)
    row[COLUMNS.index(column)] = value
    row[-1] = checksum
    with pytest.raises(DamagedFileError, match="the response under"):
        decode_row(tuple(row), "ledger")


@pytest.mark.parametrize(
    "text", ["5", "[]", "null", '"text"', "{", "[" * 100_000, '{"a":' * 100_000, b"\xff{}"]
)
def test_a_response_that_is_no_object_is_damage(text: Any) -> None:
    with pytest.raises(DamagedFileError, match="is not a JSON object"):
        decode_row((*ROW[:-2], text, None), "ledger")


def test_a_row_of_before_checksums_is_believed() -> None:
    assert decode_row((*ROW[:-1], None), "ledger").response == {"text": "Ünïcode 🙂"}


def test_what_a_database_keeps_otherwise_is_written_as_it_gives_it_back() -> None:
    odd = stored({})._replace(cost_usd=float("nan"), latency_s=-0.0, created_at=7)
    row = encode_row(odd)
    assert row[COLUMNS.index("cost_usd")] is None
    assert str(row[COLUMNS.index("latency_s")]) == "0.0"
    assert type(row[COLUMNS.index("created_at")]) is float
    assert decode_row(row, "ledger") == odd._replace(cost_usd=None)


def test_rows_are_told_apart() -> None:
    good, bad = encode_row(stored({"a": 1})), (bytes(31) + b"\1", *ROW[1:])
    whole, damaged = decode_rows([good, bad], "ledger")
    assert (whole.keys(), damaged.keys()) == ({good[0]}, {bad[0]})
