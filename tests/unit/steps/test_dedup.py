"""MinHashDedup: near duplicates are marked, the same ones each time."""

import copy
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_dagster.errors import MissingDependencyError, StepProcessError
from distilabel_dagster.steps import FilterRows, MinHashDedup

KEEP = "keep_row_after_minhash_filtering"
LONG = (
    "the quick brown fox jumps over the lazy dog while a dozen other animals watch from beyond the old fence"
)


def marks(texts: list[Any], **fields: Any) -> list[bool]:
    step = MinHashDedup(**fields)
    step.load()
    rows = [{"text": text, "id": index} for index, text in enumerate(texts)]
    before = copy.deepcopy(rows)
    marked = step.run_process(rows)
    assert rows == before
    assert [{name: value for name, value in row.items() if name != KEEP} for row in marked] == rows
    return [row[KEEP] for row in marked]


@pytest.mark.parametrize("tokenizer", ["words", "ngrams"])
def test_first_of_similar_texts_is_kept(tokenizer: Any) -> None:
    texts = [LONG, "something else altogether", LONG + " now", LONG, "Something unlike the others, really"]
    assert marks(texts, tokenizer=tokenizer, threshold=0.7) == [True, True, False, False, True]


def test_threshold_says_how_near() -> None:
    texts = [LONG, LONG.replace("animals", "creatures")]
    assert marks(texts, threshold=0.5) == [True, False]
    assert marks(texts, threshold=1.0) == [True, True]
    assert marks([LONG, LONG], threshold=1.0) == [True, False]


def test_texts_without_words_and_rows_without_text() -> None:
    assert marks(["", None, "", None, "a"]) == [True, True, False, True, True]
    assert marks(["ab", "cd", "ab", ""], tokenizer="ngrams", n=5) == [True, True, False, True]


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["a b c", "d e f", "g h i", "j k l m n o"]), max_size=8))
def test_one_of_each_text_is_kept(texts: list[str]) -> None:
    marked = marks(texts, num_perm=32)
    assert [text for text, keep in zip(texts, marked, strict=True) if keep] == list(dict.fromkeys(texts))


def test_kept_rows_are_what_a_filter_leaves() -> None:
    rows = MinHashDedup().run_process([{"text": LONG}, {"text": LONG}, {"text": "other"}])
    left = FilterRows(column=KEEP, op="==", value=True).run_process(rows)
    assert [row["text"] for row in left] == [LONG, "other"]


def test_text_may_be_another_column() -> None:
    step = MinHashDedup(input_mappings={"text": "passage"}, output_mappings={KEEP: "is_new"})
    assert step.is_global
    assert step.run_process([{"passage": "a"}, {"passage": "a"}]) == [
        {"passage": "a", "is_new": True},
        {"passage": "a", "is_new": False},
    ]


def test_text_that_is_none_is_named() -> None:
    step = MinHashDedup(name="dedup", input_mappings={"text": "passage"})
    with pytest.raises(StepProcessError, match=r"`dedup`: row 1 has a int in `text` \(column `passage`\)"):
        step.run_process([{"passage": "a"}, {"passage": 5}])


@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": 1.5},
        {"threshold": -1},
        {"n": 0},
        {"num_perm": 1},
        {"tokenizer": "x"},
        {"storage": "disk"},
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        MinHashDedup(**fields)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingDependencyError, match=r"distilabel-dagster\[dedup\]"):
        MinHashDedup().load()
