"""The offline model: what its rules ask and answer, and that they do so the same way each time."""

from typing import Any

import pytest

from distilabel_dagster.models import ChatType, OfflineExtractiveLLM
from distilabel_dagster.models.extraction import Passage, split_sentences
from distilabel_dagster.models.offline import read_parts

LIST_DISPLAYS = """List displays

A list display is a possibly empty series of expressions enclosed in square brackets:

    [1, 2, 3]

When a comma-separated list of expressions is supplied, its elements are evaluated from left to right. They are \
placed into the list object in that order. Grammars vary, e.g. The tokenizer's.

Changed in version 3.8: Asynchronous comprehensions may be used."""
ZFILL = """`str.zfill(width)`

Return a copy of the string left filled with digits `'0'`. A leading sign is handled. The original string is \
returned if it is long enough."""


def ask(mode: Any, text: str, count: int = 1, **fields: Any) -> dict[str, Any]:
    messages: ChatType = [
        {"role": "system", "content": "Passage:\nnot this"},
        {"role": "user", "content": text},
    ]
    return dict(
        OfflineExtractiveLLM(mode=mode, **fields).generate_outputs([messages], num_generations=count)[0]
    )


@pytest.mark.parametrize(
    ("passage", "question", "answer"),
    [
        (LIST_DISPLAYS, "What is a list display?", "A list display is a possibly empty series of expressions enclosed in square brackets."),
        (ZFILL, "What does `str.zfill()` do?", ZFILL.split("\n\n")[1]),
        ("If a name is bound in a block, it is local to it.", "What happens if a name is bound in a block?", None),
        ("`object.__del__(self)`\n\nCalled when the instance is about to be destroyed.", "When is `object.__del__()` called, and what for?", "Called when the instance is about to be destroyed."),
        ("`function.__doc__`\n\nThe function's documentation string.", "What is `function.__doc__`?", "The function's documentation string."),
        ("Note that the `from` form binds the names, see PEP 328.", "What does the `from` form do?", "The `from` form binds the names, see PEP 328."),
        ("The `assert` statement can be used to test conditions.", "What can the `assert` statement be used for?", None),
        ("Frozen sets\n\nThese represent an immutable set. It is hashable.", "What are frozen sets?", "These represent an immutable set. It is hashable."),
        ("Exceptions are identified by class instances.", "How are exceptions identified?", None),
    ],
)  # fmt: skip
def test_a_question_is_answered_by_its_sentence(passage: str, question: str, answer: str | None) -> None:
    asked = ask("question", f"Topic: x\n\nPassage:\n{passage}")
    assert asked["generations"] == [question]
    told = ask("answer", f"Passage:\n{passage}\n\nQuestion: {question}")
    assert told["generations"] == [answer or passage]


def test_sentences_without_a_form_give_the_weak_question() -> None:
    passage = "It depends. This is so."
    assert ask("question", passage)["generations"] == ["What does the passage say about its subject?"]


def test_further_generations_are_the_next_best_questions_and_then_none() -> None:
    asked = ask("question", f"Passage:\n{LIST_DISPLAYS}", count=9)
    questions = [question for question in asked["generations"] if question is not None]
    assert questions[:2] == [
        "What is a list display?",
        "What happens when a comma-separated list of expressions is supplied?",
    ]
    assert len(questions) == len(set(questions)) < 9
    assert asked["errors"][len(questions) :] == ["the rules find no (further) question in the passage"] * (
        9 - len(questions)
    )


def test_foreign_questions_are_answered_by_what_shares_their_words() -> None:
    prompt = f"Passage:\n{LIST_DISPLAYS}\n\nQuestion: In which order are the elements of a list evaluated?"
    (answer,) = ask("answer", prompt)["generations"]
    assert answer.startswith(
        "When a comma-separated list of expressions is supplied, its elements are evaluated"
    )
    assert answer.endswith("placed into the list object in that order.")


def test_an_answer_that_the_passage_hasnt_is_none() -> None:
    told = ask("answer", f"Passage:\n{ZFILL}\n\nQuestion: Who invented bicycles?")
    assert told["generations"] == [None]
    assert told["errors"] == ["no sentence of the passage has a word of the question"]


def test_what_is_code_is_never_read() -> None:
    assert "1, 2, 3" not in str(Passage(LIST_DISPLAYS).pairs())


def test_a_continued_passage_isnt_taken_for_the_description() -> None:
    text = ZFILL.replace("`str.zfill(width)`", "`str.zfill(width)` (continued)")
    assert "What does `str.zfill()` do?" not in [pair.question for pair in Passage(text).pairs()]


def test_sentences_end_where_they_end() -> None:
    text = 'It is "so." Then (see x. Or y.) it stops, e.g. Here. Done'
    assert split_sentences(text) == ['It is "so."', "Then (see x. Or y.) it stops, e.g. Here.", "Done"]


def test_parts_are_read_by_their_labels() -> None:
    prompt = "Do it.\nTopic: t\nPassage:\nA Question: inside.\n\nB\nQuestion: q?\n"
    assert read_parts(prompt) == {"Topic": "t", "Passage": "A Question: inside.\n\nB", "Question": "q?"}


def test_statistics_count_words() -> None:
    told = ask("question", "Exceptions are identified by class instances.", count=2)
    assert told["statistics"]["input_tokens"] == [6, 6]
    assert told["statistics"]["output_tokens"][0] == 4


def test_it_says_what_it_is() -> None:
    assert OfflineExtractiveLLM(mode="answer").model_name == "offline-extractive"
