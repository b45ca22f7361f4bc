"""`OfflineExtractiveLLM`: asks and answers by rules, without a model, a network or a download."""

import re
import time
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, NonNegativeFloat

from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.models.extraction import Passage
from distilabel_dagster.models.llm import LLM, ChatType, GenerateOutput

_LABEL: Final = re.compile(r"^(?P<label>Passage|Question|Topic):[ \t]*(?:\n|(?=\S))", re.MULTILINE)


class OfflineExtractiveLLM(LLM):
    r"""A stand-in for a language model that knows nothing but the passage it's shown.

    It's no language model and doesn't pass for one: `model_name` says so in every row. Questions are made from the
    form of single sentences, answers are sentences of the passage word for word. Equal messages give equal text, on
    any machine and Python version.

    It reads the last user message. A line that begins with `Passage:` starts the passage, one with `Question:` the
    question; each goes on to the next such label (`Topic:` is the third, and isn't read) or to the end. Without
    `Passage:` the whole message is the passage. The passage is prose in paragraphs; a first paragraph that is no
    sentence is its title.

    Attributes:
        mode: "question" asks a question that the passage answers; "answer" answers the question from the passage.
        delay_s: seconds to wait for each generation, as a real model would make one wait.

    Runtime parameters:
        - `delay_s`: see above.

    Examples:
        >>> messages = [{"role": "user", "content": "Passage:\nA lambda expression yields a function object."}]
        >>> OfflineExtractiveLLM(mode="question").generate_outputs([messages])[0]["generations"]
        ['What does a lambda expression yield?']
    """

    mode: Literal["question", "answer"]
    delay_s: RuntimeParameter[NonNegativeFloat] = Field(
        default=0.0, description="The number of seconds to wait for each generation."
    )

    # What the rules give is part of a step's signature: raise this with every change of them.
    code_version: ClassVar[str] = "1"

    @property
    def model_name(self) -> str:
        """Says what answers: no model, but extraction."""
        return "offline-extractive"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Ask or answer for each conversation.

        Further generations of a question are its next best ones; when they run out, the rest are None with the
        reason. An answer is the same each time.
        """
        return [self._generate_one(messages, num_generations) for messages in inputs]

    def _generate_one(self, messages: ChatType, num_generations: int) -> GenerateOutput:
        if self.delay_s:
            time.sleep(self.delay_s * num_generations)
        prompt = _last_user_text(messages)
        parts = read_parts(prompt)
        passage = Passage(parts.get("Passage", prompt))
        texts: list[str | None]
        if self.mode == "question":
            texts = [*(pair.question for pair in passage.pairs()[:num_generations])]
            missing = "the rules find no (further) question in the passage"
        else:
            texts = [passage.find_answer(parts.get("Question", ""))] * num_generations
            missing = "no sentence of the passage has a word of the question"
        texts += [None] * (num_generations - len(texts))
        words_read = len(prompt.split())
        output: GenerateOutput = {
            "generations": texts,
            # There are no tokens here; words are what comes nearest.
            "statistics": {
                "input_tokens": [words_read] * num_generations,
                "output_tokens": [len((text or "").split()) for text in texts],
            },
        }
        if None in texts:
            output["errors"] = [missing if text is None else None for text in texts]
        return output


def _last_user_text(messages: ChatType) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "\n".join(str(part.get("text", "")) for part in content)
    return ""


def read_parts(prompt: str) -> dict[str, str]:
    """Give the labelled parts of a prompt: "Passage", "Question", "Topic" -> text; the first of a label counts."""
    labels = list(_LABEL.finditer(prompt))
    parts: dict[str, str] = {}
    for index, label in enumerate(labels):
        end = labels[index + 1].start() if index + 1 < len(labels) else len(prompt)
        parts.setdefault(label["label"], prompt[label.end() : end].strip())
    return parts
