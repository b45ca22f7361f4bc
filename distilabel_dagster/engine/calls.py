"""What a step asks of a model as calls with keys: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distilabel_dagster.ledger.keys import compute_call_key, digest_provider, digest_request
from distilabel_dagster.models.llm import LLM
from distilabel_dagster.models.model import Model


@dataclass(frozen=True, slots=True)
class Request:
    """A question to a model, as one or several calls.

    Attributes:
        content: the question, as `generate_outputs` or `encode` takes it.
        kwargs: options of its calls.
        count: generations that each call is asked for.
        digest: of the whole request.
        occurrence: how many equal requests the step made before it.
        keys: of its calls, in order.
    """

    content: Any
    kwargs: Mapping[str, Any] = field(repr=False)
    count: int
    digest: bytes
    occurrence: int
    keys: tuple[bytes, ...]


class Numbering(Protocol):
    """Numbers the requests of a batch among the equal ones of its step."""

    def number(self, digests: Sequence[bytes]) -> list[int]:
        """Give the next requests their numbers."""
        ...


def split_generations(model: Model, num_generations: int) -> tuple[int, int]:
    """Give how many calls make so many generations, and how many generations each is asked for."""
    return model.calls_for(num_generations) if isinstance(model, LLM) else (1, num_generations)


class RequestMaker:
    """Makes requests to one model with the same options.

    Args:
        model: the model.
        num_generations: answers that each question gets.
        kwargs: options of the calls.

    Raises:
        SerializationError: an option isn't data.
    """

    def __init__(self, model: Model, num_generations: int, kwargs: Mapping[str, Any]) -> None:
        self._model = model
        self._kwargs = kwargs
        self._calls, self._count = split_generations(model, num_generations)
        # Generations of one call hang together: the second of two isn't the second of three.
        provider = model.describe_provider(kwargs)
        self._provider = digest_provider({**provider, "generations": self._count})

    def make(self, contents: Sequence[Any], batch: Numbering) -> list[Request]:
        """Make a request of each question, numbered among the equal ones of the step."""
        digests = [self._digest(content) for content in contents]
        numbers = batch.number(digests) if self._model.is_sampled else [0] * len(digests)
        return [
            self._build(content, digest, number, range(self._calls))
            for content, digest, number in zip(contents, digests, numbers, strict=True)
        ]

    def follow_up(self, content: Any, sample: int, before: Request) -> Request:
        """Make the request that follows up one generation of another; it has that one's place among equal ones."""
        return self._build(content, self._digest(content), before.occurrence, [sample])

    def _digest(self, content: Any) -> bytes:
        return digest_request(self._provider, content)

    def _build(self, content: Any, digest: bytes, occurrence: int, samples: Sequence[int]) -> Request:
        keys = tuple(compute_call_key(digest, sample, occurrence) for sample in samples)
        return Request(content, self._kwargs, self._count, digest, occurrence, keys)
