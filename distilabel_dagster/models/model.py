"""What all models share: a name, a place, a price; and the settings of those that are reached over a network."""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeGuard

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from distilabel_dagster.base.runtime_parameters import RuntimeParameter, RuntimeParametersMixin
from distilabel_dagster.base.serializable import is_secret
from distilabel_dagster.base.signature import describe_identity

_PER_MILLION = 1_000_000
_MOST_TOKENS = 2**53


class Model(RuntimeParametersMixin):
    """Base of language and embedding models; derive from `LLM`, `AsyncLLM` or `Embeddings`.

    Attributes:
        input_price_usd_per_million: US dollars for a million tokens that the model reads; by default what the table
            of the extra `prices` says.
        output_price_usd_per_million: the same for tokens that it writes.

    Runtime parameters:
        - `input_price_usd_per_million`, `output_price_usd_per_million`: see above.
    """

    input_price_usd_per_million: RuntimeParameter[NonNegativeFloat] | None = Field(
        default=None,
        description="US dollars per million input tokens, where the price table isn't to be used.",
    )
    output_price_usd_per_million: RuntimeParameter[NonNegativeFloat] | None = Field(
        default=None,
        description="US dollars per million output tokens, where the price table isn't to be used.",
    )

    @property
    @abstractmethod
    def model_name(self) -> str:
        """The model's name, as the column `model_name` of a task says it."""

    is_sampled: ClassVar[bool] = True
    """False where equal questions have one and the same answer, as for embeddings."""

    @property
    def endpoint(self) -> str:
        """Where the model is reached; empty for one in this process. Limits are shared by endpoint and model name."""
        return ""

    def load(self) -> None:
        """Get what calls need, and fail here where they can't work; safe to repeat."""

    def unload(self) -> None:
        """Give back what `load` got; safe to repeat."""

    def describe_provider(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Say all that shapes an answer but the question: what the ledger takes for the same request.

        By default it's the model as in a signature, its class's code included (a class of one's own is what answers;
        a `code_version` on it stands in for the code), and the options of the call. Plain data, without secrets.

        Args:
            kwargs: options of the call.
        """
        identity = describe_identity(self)
        fields = {name: value for name, value in identity["fields"].items() if name != "generation_kwargs"}
        return {
            "provider": {**identity, "fields": fields},
            "model": self.model_name,
            "parameters": without_secrets(kwargs),
        }

    def is_paid(self, response: dict[str, Any]) -> bool:
        """Tell whether what a call gave is to be kept; what isn't is asked for again by the next run."""
        return True

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Give the price of a call in US dollars; None where it isn't known."""
        if self.input_price_usd_per_million is not None or self.output_price_usd_per_million is not None:
            read = input_tokens * (self.input_price_usd_per_million or 0.0)
            written = output_tokens * (self.output_price_usd_per_million or 0.0)
            return (read + written) / _PER_MILLION
        return self._listed_cost_usd(input_tokens, output_tokens)

    def _listed_cost_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Look the price up in a list; a model of one's own is in none."""
        return None

    @property
    def _logger(self) -> logging.Logger:
        return logging.getLogger(f"distilabel_dagster.llm.{self.model_name}")


def is_count(value: Any) -> TypeGuard[int]:
    """Tell whether a value can be a number of tokens; an endpoint may answer with anything."""
    return type(value) is int and 0 <= value < _MOST_TOKENS


def without_secrets(value: Any) -> Any:
    """Leave out what is secret by its type or name, at any depth."""
    if isinstance(value, Mapping):
        return {
            str(key): without_secrets(each) for key, each in value.items() if not is_secret(str(key), each)
        }
    if isinstance(value, list | tuple):
        return [without_secrets(each) for each in value]
    return value


class RemoteModel(Model):
    """Settings of a model whose calls wait for someone else.

    Attributes:
        max_concurrency: calls in flight at the same time; steps whose models have the same endpoint and name share
            it, and the smallest that was set among them counts.
        requests_per_minute: calls begun in a minute, over all runs that share a ledger.
        tokens_per_minute: tokens read and written in a minute, over all runs that share a ledger; what a call will
            use is estimated before it and corrected after it.
        max_retries: how often a call is made again after failures that pass (429, 5xx, time-outs, broken
            connections, torn answers), with growing, jittered pauses; Retry-After holds all calls to the endpoint.

    Runtime parameters:
        - `max_concurrency`, `requests_per_minute`, `tokens_per_minute`, `max_retries`: see above.
    """

    max_concurrency: RuntimeParameter[PositiveInt] = Field(
        default=16, description="The number of calls that are in flight at the same time."
    )
    requests_per_minute: RuntimeParameter[PositiveFloat] | None = Field(
        default=None, description="The number of calls that may be begun in a minute."
    )
    tokens_per_minute: RuntimeParameter[PositiveFloat] | None = Field(
        default=None, description="The number of tokens that calls may use in a minute."
    )
    max_retries: RuntimeParameter[NonNegativeInt] = Field(
        default=6, description="How often a failed call is made again."
    )

    @property
    def questions_per_call(self) -> int:
        """How many questions one call may carry."""
        return 1

    @abstractmethod
    async def attempt(
        self, questions: list[Any], count: int, kwargs: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Make one attempt of a call, and give what came back for each question, as data for `read_response`.

        Args:
            questions: as `generate_outputs` or `encode` takes them, at most `questions_per_call`.
            count: generations that each is asked for.
            kwargs: options of the call.

        Raises:
            ModelCallError: the attempt failed; its kind says whether another is made.
        """

    async def aclose(self) -> None:
        """Give back what calls opened in the running event loop; called once when they're done."""
