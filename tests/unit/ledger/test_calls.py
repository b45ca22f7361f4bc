import pytest

from distilabel_dagster.ledger.calls import clean_text


@pytest.mark.parametrize(
    ("text", "expected"), [("é🙂", "é🙂"), ("a\0b", "a\N{REPLACEMENT CHARACTER}b"), ("\ud83d!", "?!")]
)
def test_text_is_made_fit_for_a_database(text: str, expected: str) -> None:
    assert clean_text(text) == expected
