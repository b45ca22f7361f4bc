"""Models that say what a test tells them to, and remember what they were asked."""

from typing import Any, ClassVar

from pydantic import PrivateAttr

from distilabel_dagster.models import LLM, AsyncLLM, ChatType, GenerateOutput


class Scripted(LLM):
    """Gives its answers in turn, one per generation; the last one again and again."""

    answers: list[str | None]
    _asked: list[ChatType] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "scripted"

    @property
    def asked(self) -> list[ChatType]:
        return self._asked

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        return [self._answer(messages, num_generations) for messages in inputs]

    def _answer(self, messages: ChatType, count: int) -> GenerateOutput:
        start = len(self._asked)
        self._asked += [messages] * count
        texts = [self.answers[min(start + index, len(self.answers) - 1)] for index in range(count)]
        return {
            "generations": texts,
            "statistics": {"input_tokens": [10] * count, "output_tokens": [1] * count},
        }


class SchemaFollowing(AsyncLLM):
    """Takes a schema with the request, and always gives the same answer."""

    answer: str
    supports_structured_output: ClassVar[bool] = True
    _asked: list[tuple[ChatType, Any]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "schema-following"

    @property
    def asked(self) -> list[tuple[ChatType, Any]]:
        return self._asked

    async def agenerate(  # type: ignore[override]
        self,
        input: ChatType,  # noqa: A002 (distilabel's name)
        num_generations: int = 1,
        structured_output: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        self._asked.append((input, structured_output))
        return {"generations": [self.answer] * num_generations}
