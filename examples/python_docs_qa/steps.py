"""The steps of one's own that `python_docs_qa` is made with."""

import re
from typing import Final

from pydantic import Field, PositiveInt

from distilabel_dagster.base.signature import compute_signature
from distilabel_dagster.mixins.runtime_parameters import RuntimeParameter
from distilabel_dagster.steps import GeneratorStep, GeneratorStepOutput, Step, StepInput, StepOutput
from examples.python_docs_qa.passages import iter_passages

_WORD: Final = re.compile(r"[A-Za-z_]{2,}")
_FUNCTION_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can do does for from has have how if in into is it its must not of on or should that the"
        " their them then these they this to was what when where which while who why will with",
    )
)


class LoadPythonTopics(GeneratorStep):
    """Load the topics of Python's language reference, which come with every Python as `pydoc_data.topics`.

    Attributes:
        max_topics: how many topics to load, in the order of their names; all by default.

    Runtime parameters:
        - `max_topics`: see above.
        - `batch_size`: topics in each batch.

    Output columns:
        - topic (`str`): the topic's name.
        - text (`str`): its text, as `help()` prints it.
    """

    max_topics: RuntimeParameter[PositiveInt] | None = Field(
        default=None, description="How many topics to load, in the order of their names; all by default."
    )

    @property
    def outputs(self) -> list[str]:
        return ["topic", "text"]

    def data_fingerprint(self) -> str:
        """Other versions of Python have other texts, and so another signature."""
        return compute_signature(self._load_topics())

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield the topics in the order of their names."""
        rows = [{"topic": topic, "text": text} for topic, text in self._load_topics()]
        size = self.batch_size or len(rows)
        for start in range(min(offset, len(rows) - 1), len(rows), size):
            yield rows[max(start, offset) : start + size], start + size >= len(rows)

    def _load_topics(self) -> list[tuple[str, str]]:
        from pydoc_data.topics import topics

        return sorted(topics.items())[: self.max_topics]


class SplitPassages(Step):
    """Cut each topic into passages that can be read alone: a row per passage.

    Grammar, tables and code without prose are left out.

    Input columns:
        - topic (`str`): the topic's name.
        - text (`str`): its text.

    Output columns:
        - topic (`str`): the topic's name.
        - passage_index (`int`): the passage's number in its topic, from 0.
        - passage (`str`): heading or signature, then paragraphs.
    """

    @property
    def inputs(self) -> list[str]:
        return ["topic", "text"]

    @property
    def outputs(self) -> list[str]:
        return ["topic", "passage_index", "passage"]

    def process(self, inputs: StepInput) -> StepOutput:  # type: ignore[override]  # it takes one predecessor
        """Yield the passages of all topics, in order."""
        yield [
            {"topic": row["topic"], "passage_index": index, "passage": passage}
            for row in inputs
            for index, passage in enumerate(iter_passages(row["text"]))
        ]


class ScorePairs(Step):
    """Score how well question and answer go with the passage, from 0 to 1.

    A pair scores 0 if the question is none, talks of the passage itself (so that nobody could understand it without),
    or if question or answer are too short or too long. Else the score is the share of the question's words that the
    passage has (0.4), of the answer's words that it has (0.4), and of the question's words that the answer has (0.2).

    Attributes:
        max_question_words: longer questions score 0.
        max_answer_words: longer answers score 0.

    Input columns:
        - instruction (`str`): the question.
        - response (`str`): the answer.
        - passage (`str`): the passage that both are about.

    Output columns:
        - pair_score (`float`): the score; None where question or answer is missing.
    """

    max_question_words: RuntimeParameter[PositiveInt] = Field(
        default=40, description="Longer questions score 0."
    )
    max_answer_words: RuntimeParameter[PositiveInt] = Field(
        default=150, description="Longer answers score 0."
    )

    @property
    def inputs(self) -> list[str]:
        return ["instruction", "response", "passage"]

    @property
    def outputs(self) -> list[str]:
        return ["pair_score"]

    def process(self, inputs: StepInput) -> StepOutput:  # type: ignore[override]  # it takes one predecessor
        """Yield the rows with their scores."""
        yield [
            {**row, "pair_score": self._score(row["instruction"], row["response"], row["passage"])}
            for row in inputs
        ]

    def _score(self, question: str | None, answer: str | None, passage: str) -> float | None:
        if question is None or answer is None:
            return None
        if not question.endswith("?") or "the passage" in question.lower():
            return 0.0
        if not 3 < len(question.split()) <= (self.max_question_words or 0):
            return 0.0
        if not 3 < len(answer.split()) <= (self.max_answer_words or 0):
            return 0.0
        asked, told, given = _content_words(question), _content_words(answer), _content_words(passage)
        score = 0.4 * _share(asked, given) + 0.4 * _share(told, given) + 0.2 * _share(asked, told)
        return round(score, 3)


def _content_words(text: str) -> set[str]:
    """Words that carry meaning, cut to seven letters so that "raise" and "raises" are nearly one."""
    return {word.lower().rstrip("s")[:7] for word in _WORD.findall(text)} - _FUNCTION_WORDS


def _share(words: set[str], among: set[str]) -> float:
    return len(words & among) / len(words) if words else 0.0
