import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.ledger.calls import (
    StoredResponse,
    StoredResponses,
    clean_text,
    decode_row,
    encode_row,
)
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
    row[-1].encode()
    assert "\0" not in row[-1]
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
    }
    assert decode_row(tuple(row.values()), "ledger") == stored({})


def test_responses_are_read_when_they_are_asked_for() -> None:
    good, bad = encode_row(stored({"a": 1})), (*encode_row(stored({}))[:-1], "{")
    found = StoredResponses({b"good": good, b"bad": bad}, "/cache/ledger.sqlite")
    assert found[b"good"].response == {"a": 1}
    assert sorted(found) == [b"bad", b"good"]
    assert b"none" not in found
    with pytest.raises(KeyError):
        found[b"none"]
    with pytest.raises(DamagedFileError, match="is not JSON") as caught:
        found[b"bad"]
    assert caught.value.path == "/cache/ledger.sqlite"


@pytest.mark.parametrize(
    ("text", "expected"), [("é🙂", "é🙂"), ("a\0b", "a\N{REPLACEMENT CHARACTER}b"), ("\ud83d!", "?!")]
)
def test_text_is_made_fit_for_a_database(text: str, expected: str) -> None:
    assert clean_text(text) == expected
