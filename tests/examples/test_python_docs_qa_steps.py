"""The example's own steps, and the dataset that they and the offline model make of this Python's reference."""

import re
from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import Any

import pytest

from distilabel_dagster.batch import Rows
from distilabel_dagster.models import OfflineExtractiveLLM, OpenAILLM
from distilabel_dagster.steps import Step
from examples.python_docs_qa.passages import MIN_WORDS, iter_passages
from examples.python_docs_qa.pipeline import build_llm, build_pipeline
from examples.python_docs_qa.steps import LoadPythonTopics, ScorePairs, SplitPassages

TOPIC = """The "try" statement
*******************

   try_stmt ::= "try" ":" suite

The "try" statement specifies exception handlers and/or cleanup code for a group of statements, which run in
the order that they are written in, one by one:

   try:
       pass

See section Exceptions.


Methods
=======

object.__enter__(self)

   Enter the context of "self[0]" and be built-
   in, which says that a line that was divided at its hyphen is whole again in "{"a": 1}".

   Note:

     This is said of *object* too, in words that are enough to fill the passage on to its end [1].

See also:

  **PEP 343** - never to be seen

+-----+-----+
| a   | b   |
+-----+-----+

-[ Footnotes ]-

[1] never to be seen either, although these are quite a few words, more than eighteen of them, in one sentence.
"""


def iter_chain(max_topics: int | None = None) -> Iterator[tuple[str, Rows]]:
    rows: Rows = []
    for step in build_pipeline(max_topics=max_topics).dag.steps.values():
        step.load()
        rows = (
            step.run_process(rows) if isinstance(step, Step) else [r for rs, _ in step.process() for r in rs]
        )
        yield step.name, rows


def test_passages_are_prose_under_their_headings() -> None:
    first, second = iter_passages(TOPIC)
    assert first == (
        "The `try` statement\n\nThe `try` statement specifies exception handlers and/or cleanup code for a group of "
        "statements, which run in the order that they are written in, one by one:\n\n    try:\n        pass\n\n"
        "See section Exceptions."
    )
    assert second == (
        "`object.__enter__(self)`\n\nEnter the context of `self[0]` and be built-in, which says that a line that was "
        'divided at its hyphen is whole again in `{"a": 1}`.\n\nThis is said of *object* too, in words that are enough '
        "to fill the passage on to its end."
    )


def test_passages_of_the_reference_can_be_read() -> None:
    passages = [passage for text in topics.values() for passage in iter_passages(text)]
    assert len(passages) > 400
    for passage in passages:
        heading, _, body = passage.partition("\n\n")
        assert heading
        assert len(body.split()) >= MIN_WORDS
        assert "::=" not in body.split("\n    ")[0]
        assert len(body.split()) < 700


@pytest.mark.parametrize("offset", [0, 1, 10, 39, 40])
def test_topics_are_loaded_from_the_offset_on(offset: int) -> None:
    step = LoadPythonTopics(name="load", batch_size=10, max_topics=40)
    batches = list(step.process(offset=offset))
    rows = [row for rows, _ in batches for row in rows]
    assert [row["topic"] for row in rows] == sorted(topics)[offset:40]
    assert [last for _, last in batches] == [False] * (len(batches) - 1) + [True]
    assert all(len(rows) <= 10 for rows, _ in batches)


def test_other_topics_are_other_data() -> None:
    def fingerprint(**fields: Any) -> str:
        return LoadPythonTopics(name="load", **fields).data_fingerprint()

    assert fingerprint() == fingerprint(batch_size=7)
    assert fingerprint() != fingerprint(max_topics=3)


def test_passages_are_numbered_in_their_topic() -> None:
    rows = SplitPassages(name="split").run_process(
        [{"topic": "a", "text": TOPIC}, {"topic": "b", "text": TOPIC}]
    )
    assert [(row["topic"], row["passage_index"]) for row in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


@pytest.mark.parametrize(
    ("question", "answer", "score"),
    [
        ("How are exceptions identified?", "Exceptions are identified by class instances.", 1.0),
        ("How are exceptions eaten?", "Exceptions are identified by class instances.", 0.7),
        ("How are exceptions identified?", "Cheese is made of milk.", 0.4),
        ("How are exceptions identified", "Exceptions are identified by class instances.", 0.0),
        ("What does the passage say?", "Exceptions are identified by class instances.", 0.0),
        ("Exceptions?", "Exceptions are identified by class instances.", 0.0),
        ("How are exceptions identified?", "Class instances.", 0.0),
        ("How are exceptions identified?", "Exceptions are identified. " * 60, 0.0),
        (None, "Exceptions are identified by class instances.", None),
    ],
)
def test_pairs_are_scored_by_their_words(question: str | None, answer: str, score: float | None) -> None:
    row = {
        "instruction": question,
        "response": answer,
        "passage": "Exceptions are identified by class instances.",
    }
    assert ScorePairs(name="score").run_process([row])[0]["pair_score"] == score


def test_the_dataset_is_large_grounded_and_free_of_duplicates() -> None:
    chain = dict(iter_chain())
    dataset = chain["instruction_dataset"]
    assert len(dataset) >= 300
    assert len(chain["answer_question"]) > len(chain["drop_duplicates"]) > len(dataset)
    assert list(dataset[0]) == ["instruction", "response", "topic", "passage", "model_name"]
    assert {row["model_name"] for row in dataset} == {"offline-extractive"}
    assert len({row["instruction"] for row in dataset}) == len(dataset)
    for row in dataset:
        assert re.match(r"(What|When|How|In|For) ", row["instruction"]), row
        assert row["instruction"].endswith("?")
        words = row["response"].casefold().split()
        assert set(words[1:-1]) <= set(row["passage"].casefold().split()) | {word + ":" for word in words}, (
            row
        )


def test_no_row_fails_and_the_same_rows_come_again() -> None:
    first, again = dict(iter_chain(max_topics=12)), dict(iter_chain(max_topics=12))
    assert first == again
    assert not any("error" in str(list(row["distilabel_metadata"])) for row in first["answer_question"])


def test_the_model_is_the_users_only_when_all_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "tiny")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert isinstance(build_llm("question"), OfflineExtractiveLLM)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    llm = build_llm("question")
    assert isinstance(llm, OpenAILLM)
    assert llm.model_name == "tiny"
