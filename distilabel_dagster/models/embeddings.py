"""Models that make lists of numbers of texts: the contracts, and `OpenAIEmbeddings`."""

import asyncio
import base64
import binascii
import struct
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict, cast

from pydantic import Field, PositiveInt, PrivateAttr, field_validator

from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.errors import ModelCallError, ModelError, ModelUnavailableError
from distilabel_dagster.models.caller import find_caller
from distilabel_dagster.models.event_loops import run_apart
from distilabel_dagster.models.limits import EndpointLimiter
from distilabel_dagster.models.llm import describe_failure
from distilabel_dagster.models.model import Model, RemoteModel
from distilabel_dagster.models.openai_endpoint import OpenAIEndpoint
from distilabel_dagster.models.provider_errors import FAILURE_KINDS
from distilabel_dagster.models.retries import call_with_retries

_PATH = "/embeddings"


class EmbeddingOutput(TypedDict, total=False):
    """What came of one text: its embedding, or None and why; token counts where they're known."""

    embedding: list[float] | None
    error: str | None
    statistics: dict[str, list[int]]


class Embeddings(Model):
    """A model that makes embeddings; override `model_name` and `encode`.

    Examples:
        >>> class Lengths(Embeddings):
        ...     @property
        ...     def model_name(self):
        ...         return "lengths"
        ...     def encode(self, inputs):
        ...         return [[float(len(text))] for text in inputs]
        >>> Lengths().encode(["a", "bcd"])
        [[1.0], [3.0]]
    """

    is_sampled: ClassVar[bool] = False

    @abstractmethod
    def encode(self, inputs: list[str]) -> list[list[float]]:
        """Give the embedding of each text, in their order; an exception fails all of them."""

    def encode_outputs(self, inputs: list[str]) -> list[EmbeddingOutput]:
        """Give what came of each text, in their order: where a model can tell, one text's failure is its own only.

        Raises:
            Exception: what `encode` raises, of a model that can't tell.
        """
        return [{"embedding": [float(each) for each in vector]} for vector in self.encode(inputs)]


class AsyncEmbeddings(RemoteModel, Embeddings):
    """A model behind a network that embeds several texts per call; override `model_name` and `acall_batch`.

    In a run, a text's embedding is kept in the ledger by itself, whichever texts it was sent with.

    Attributes:
        batch_size: the texts of a call.

    Runtime parameters:
        - `batch_size`: see above.
        - `max_concurrency`, `requests_per_minute`, `tokens_per_minute`, `max_retries`: see `RemoteModel`.
    """

    batch_size: RuntimeParameter[PositiveInt] = Field(
        default=32, description="The number of texts of a call."
    )

    _refused: set[str] = PrivateAttr(default_factory=set)

    @property
    def questions_per_call(self) -> int:
        """How many texts one call may carry."""
        return self.batch_size or 1

    @abstractmethod
    async def acall_batch(self, inputs: list[str]) -> list[dict[str, Any]]:
        """Make one attempt of a call for several texts, and give for each what `read_response` takes, in order.

        Raises:
            ModelCallError: the attempt failed; its kind says whether another is made.
        """

    def read_response(self, response: dict[str, Any]) -> EmbeddingOutput:
        """Make the output of what a call gave for a text, now or from the ledger; by default that is the output."""
        return cast(EmbeddingOutput, response)

    async def attempt(
        self, questions: list[Any], count: int, kwargs: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Make one attempt of a call for several texts."""
        try:
            return await self.acall_batch(list(questions))
        except ModelCallError as error:
            kind = FAILURE_KINDS[error.kind]
            if len(questions) > 1 and not kind.is_retried and not kind.ends_run:
                # One of them may be at fault for all.
                self._refused.update(questions)
            raise

    def encode(self, inputs: list[str]) -> list[list[float]]:
        """Give the embedding of each text, in their order.

        Raises:
            ModelError: there is none for one of the texts; what others got is kept in the ledger.
        """
        outputs = self.encode_outputs(inputs)
        for output in outputs:
            if output.get("embedding") is None:
                raise ModelError(
                    output.get("error") or f"Model `{self.model_name}` gave no embedding.",
                    model=self.model_name,
                )
        return [cast(list[float], output["embedding"]) for output in outputs]

    def encode_outputs(self, inputs: list[str]) -> list[EmbeddingOutput]:
        """Give what came of each text, in their order; texts that fail together are told apart by asking again.

        Safe to call from several threads, and where an event loop runs: that one is blocked until all are there.

        Raises:
            ModelUnavailableError: no call to the endpoint can succeed now.
        """
        size = self.questions_per_call
        outputs: list[EmbeddingOutput] = []
        for start in range(0, len(inputs), size * (self.max_concurrency or 1)):
            outputs += self._answer(inputs[start : start + size * (self.max_concurrency or 1)])
        return self._tell_apart(inputs, outputs)

    def _answer(self, inputs: list[str]) -> list[EmbeddingOutput]:
        if not inputs:
            return []
        caller = find_caller(self)
        answered = caller.answer(self, list(inputs), 1, {}) if caller else run_apart(self._ask(list(inputs)))
        return [_as_output(each) for each in answered]

    def _tell_apart(self, inputs: list[str], outputs: list[EmbeddingOutput]) -> list[EmbeddingOutput]:
        """Ask in halves about texts that were refused together, down to the one that's at fault."""
        outputs = list(outputs)
        refused = [
            index
            for index, text in enumerate(inputs)
            if outputs[index].get("embedding") is None and text in self._refused
        ]
        self._refused.difference_update(inputs[index] for index in refused)
        size = self.questions_per_call
        for start in range(0, len(refused), size):
            group = refused[start : start + size]
            for part in (group[: len(group) // 2], group[len(group) // 2 :]):
                texts = [inputs[index] for index in part]
                for index, output in zip(part, self._tell_apart(texts, self._answer(texts)), strict=True):
                    outputs[index] = output
        return outputs

    async def _ask(self, inputs: list[str]) -> list[Any]:
        """Answer without a ledger."""
        limiter = EndpointLimiter(self.max_concurrency or 1)

        async def call(texts: list[str]) -> list[Any]:
            try:
                answered = await call_with_retries(
                    lambda: self.attempt(texts, 1, {}), limiter, max_retries=self.max_retries or 0
                )
            except ModelUnavailableError:
                raise
            except ModelCallError as error:
                return [{"embedding": None, "error": describe_failure(error)}] * len(texts)
            return [self.read_response(response) for response in answered.value]

        size = self.questions_per_call
        try:
            answers = await asyncio.gather(
                *(call(inputs[start : start + size]) for start in range(0, len(inputs), size))
            )
        finally:
            await self.aclose()
        return [each for answer in answers for each in answer]


def _as_output(answered: Mapping[str, Any]) -> EmbeddingOutput:
    """Give an answer as an output; a run says of failed calls what failed in the words of language models."""
    if "embedding" in answered:
        return cast(EmbeddingOutput, answered)
    errors = answered.get("errors") or [None]
    return {"embedding": None, "error": errors[0]}


class OpenAIEmbeddings(OpenAIEndpoint, AsyncEmbeddings):
    """An embeddings model behind OpenAI's API: OpenAI itself, vLLM, llama.cpp, Ollama, TEI.

    Needs the extra `openai`.

    Attributes:
        model: the model's name at the endpoint.
        dimensions: how many numbers an embedding has, for models that can give fewer than they have.
        batch_size: the texts of a call.
        base_url: the endpoint, up to and without `/embeddings`; from `OPENAI_BASE_URL` by default, else OpenAI's own.
        api_key: from `OPENAI_API_KEY` by default; never written to a file, log or signature.
        default_headers: HTTP headers that each call gets besides, as secret as the key.
        timeout_s: seconds that one attempt may take, from its beginning to the last byte of the answer.

    Runtime parameters:
        - `dimensions`, `batch_size`, `base_url`, `api_key`, `default_headers`, `timeout_s`: see above.
        - `max_concurrency`, `requests_per_minute`, `tokens_per_minute`, `max_retries`: see `RemoteModel`.
        - `input_price_usd_per_million`: see `Model`.

    References:
        - [Embeddings](https://platform.openai.com/docs/api-reference/embeddings)

    Examples:
        >>> embeddings = OpenAIEmbeddings(model="bge-m3", base_url="http://localhost:8000/v1")
        >>> embeddings.model_name
        'bge-m3'
    """

    model: str
    dimensions: RuntimeParameter[PositiveInt] | None = Field(
        default=None, description="How many numbers an embedding has, where the model lets one choose."
    )

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        if not value:
            raise ValueError("no model is named: pass `model=`")
        return value

    @property
    def model_name(self) -> str:
        """The model's name at the endpoint."""
        return self.model

    def describe_provider(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Say what is sent besides the text and changes the embedding; of a subclass with calls of its own, its code."""
        if self._is_customized("acall_batch", "post"):
            return super().describe_provider(kwargs)
        return {
            "provider": "openai",
            "base_url": self.endpoint,
            "api": "embeddings",
            "model": self.model,
            "parameters": self._parameters(),
        }

    def _parameters(self) -> dict[str, Any]:
        return {} if self.dimensions is None else {"dimensions": self.dimensions}

    async def acall_batch(self, inputs: list[str]) -> list[dict[str, Any]]:
        """Make one attempt of a call, and give for each text its part of the response, with its share of the tokens.

        Raises:
            ModelCallError: the attempt failed, or what came back isn't an embedding for each text.
        """
        # As bytes an embedding is exact, and a third as long; the SDK asks for it in this form as well, and what an
        # endpoint sends as a list instead is taken as it is.
        body = {"model": self.model, "input": inputs, "encoding_format": "base64", **self._parameters()}
        response = await self.post(_PATH, body)
        found = _find_embeddings(response, len(inputs))
        if found is None:
            raise self._failure(
                "malformed", said=f"it doesn't hold an embedding for each of {len(inputs)} texts"
            )
        usage = response.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
        shares = split_tokens(tokens, inputs) if isinstance(tokens, int) else None
        return [
            {
                "model": response.get("model"),
                "embedding": embedding,
                **({} if shares is None else {"usage": {"prompt_tokens": shares[index]}}),
            }
            for index, embedding in enumerate(found)
        ]

    def read_response(self, response: dict[str, Any]) -> EmbeddingOutput:
        """Make the output of a text's part of a response: its embedding, and its tokens where they're known."""
        embedding = response["embedding"]
        usage = response.get("usage") or {}
        output: EmbeddingOutput = {
            "embedding": _decode(embedding) if isinstance(embedding, str) else [float(x) for x in embedding]
        }
        if "prompt_tokens" in usage:
            output["statistics"] = {"input_tokens": [usage["prompt_tokens"]], "output_tokens": [0]}
        return output


def _find_embeddings(response: Mapping[str, Any], count: int) -> list[Any] | None:
    """Give the embeddings of a response in the order of the texts; None where there isn't one for each."""
    data = response.get("data")
    if not isinstance(data, list) or len(data) != count or not all(isinstance(each, dict) for each in data):
        return None
    by_index = {each.get("index", place): each.get("embedding") for place, each in enumerate(data)}
    found = [by_index.get(index) for index in range(count)]
    return found if all(_is_embedding(each) for each in found) else None


def _is_embedding(value: Any) -> bool:
    if isinstance(value, str):
        try:
            return bool(_decode(value))
        except (binascii.Error, struct.error, ValueError):
            return False
    return isinstance(value, list) and bool(value) and all(isinstance(each, int | float) for each in value)


def _decode(text: str) -> list[float]:
    """Give the numbers of an embedding that was sent as bytes: 32-bit floats, the lowest byte first."""
    data = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def split_tokens(tokens: int, texts: Sequence[str]) -> list[int]:
    """Share the tokens of a call among its texts by their length; the shares add up to all of them."""
    lengths = [len(text) for text in texts]
    whole = sum(lengths) or 1
    shares, before, seen = [], 0, 0
    for length in lengths:
        seen += length
        until = tokens * seen // whole
        shares.append(until - before)
        before = until
    return shares
