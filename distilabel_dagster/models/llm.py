"""The contracts of language models: `LLM`, and `AsyncLLM` for those that are reached over a network."""

import asyncio
import inspect
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypedDict, cast

from pydantic import Field, PositiveInt, field_validator

from distilabel_dagster.base.runtime_parameters import RuntimeParameter, RuntimeParametersMixin
from distilabel_dagster.errors import ModelOutputError, suggest

NO_ANSWER = "the model gave no text"
_NOT_OPTIONS = frozenset({"self", "input", "inputs", "num_generations"})


class ChatItem(TypedDict):
    """One message of a conversation; `content` is text, or a list of parts such as text and images."""

    role: str
    content: str | list[dict[str, Any]]


ChatType = list[ChatItem]
"""A conversation in the form that OpenAI's chat API takes."""


class GenerateOutput(TypedDict, total=False):
    """What a model gave for one input: lists with one item per generation.

    Any further key must be such a list too; a task makes a column `llm_<step>_<key>` of it.
    """

    generations: list[str | None]
    statistics: dict[str, list[int]]
    errors: list[str | None]


class LLM(RuntimeParametersMixin):
    """A language model; override `model_name` and `generate`.

    One object may serve several tasks: `load` and `unload` are then called once for each of them, and `generate`
    from several threads at the same time.

    Attributes:
        generation_kwargs: keyword arguments for `generate` (for an `AsyncLLM`: `agenerate`). A name that it doesn't
            take is refused when the model is made.

    Runtime parameters:
        - `generation_kwargs`: see above.

    Examples:
        >>> class Parrot(LLM):
        ...     @property
        ...     def model_name(self):
        ...         return "parrot"
        ...     def generate(self, inputs, num_generations=1, mark: str = "!"):
        ...         said = [messages[-1]["content"] + mark for messages in inputs]
        ...         return [{"generations": [text] * num_generations, "statistics": {}} for text in said]
        >>> parrot = Parrot(generation_kwargs={"mark": "?"})
        >>> parrot.generate_outputs([[{"role": "user", "content": "hey"}]], **parrot.get_generation_kwargs())
        [{'generations': ['hey?'], 'statistics': {}}]
    """

    generation_kwargs: RuntimeParameter[dict[str, Any]] = Field(
        default_factory=dict, description="Keyword arguments of each generation, such as the temperature."
    )

    generation_method: ClassVar[str] = "generate"

    @field_validator("generation_kwargs")
    @classmethod
    def _check_generation_kwargs(cls, value: dict[str, Any] | None) -> dict[str, Any]:
        value = value or {}
        parameters = cls.generation_parameters()
        if parameters is not None:
            for name in value:
                if name not in parameters:
                    known = ", ".join(f"`{each}`" for each in parameters) or "none"
                    raise ValueError(
                        f"`{cls.__name__}.{cls.generation_method}` takes no `{name}`.{suggest(name, parameters)} It "
                        f"takes: {known}."
                    )
        return value

    @classmethod
    def generation_parameters(cls) -> list[str] | None:
        """Names that `generation_kwargs` may have; None where the model takes any."""
        parameters = inspect.signature(getattr(cls, cls.generation_method)).parameters.values()
        if any(each.kind is each.VAR_KEYWORD for each in parameters):
            return None
        return [each.name for each in parameters if each.name not in _NOT_OPTIONS]

    @property
    @abstractmethod
    def model_name(self) -> str:
        """The model's name, as the column `model_name` of a task says it."""

    def load(self) -> None:
        """Get what `generate` needs, and fail here where it can't work; safe to repeat."""

    def unload(self) -> None:
        """Give back what `load` got; safe to repeat."""

    def get_generation_kwargs(self) -> dict[str, Any]:
        """Give the keyword arguments that a task passes to `generate_outputs`."""
        return dict(self.generation_kwargs or {})

    @abstractmethod
    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Answer each conversation `num_generations` times; one output per input, in their order.

        An exception fails all inputs. To fail some of them, give None for their generations and say why in
        `errors`.
        """

    def generate_outputs(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Answer each conversation: what tasks call, and what custom tasks should call.

        Args:
            inputs: the conversations.
            num_generations: how many answers each gets.
            kwargs: options of this call; tasks pass `get_generation_kwargs()`.

        Returns:
            One output per input, in order, each with exactly `num_generations` generations. A generation that
            failed is None, and `errors` says why at the same index; `errors` is absent where none failed.

        Raises:
            ModelOutputError: `generate` gave something else than its contract says.
        """
        if not inputs:
            return []
        outputs = self.generate(inputs=inputs, num_generations=num_generations, **kwargs)
        if not isinstance(outputs, list) or len(outputs) != len(inputs):
            found = f"{len(outputs)} outputs" if isinstance(outputs, list) else f"a {type(outputs).__name__}"
            raise ModelOutputError(
                f"`{type(self).__name__}.generate` gave {found}, expected a list of {len(inputs)} outputs, one per "
                "input.",
                model=self.model_name,
            )
        return [self._complete(output, num_generations) for output in outputs]

    def _complete(self, output: Any, num_generations: int) -> GenerateOutput:
        """Give `output` with a reason for each generation that's missing."""
        texts = output.get("generations") if isinstance(output, dict) else None
        if not isinstance(texts, list) or len(texts) > num_generations:
            found = f"{len(texts)} generations" if isinstance(texts, list) else repr(output)[:200]
            raise ModelOutputError(
                f"`{type(self).__name__}.{self.generation_method}` gave {found} for one input, expected a dict with "
                f'"generations": a list of {num_generations} strings or None.',
                model=self.model_name,
            )
        short = num_generations - len(texts)
        generations = texts + [None] * short
        if all(text is not None for text in generations):
            return cast(GenerateOutput, output)
        said = [*(output.get("errors") or []), *[None] * num_generations][: len(texts)]
        said += [f"{num_generations} generations were asked for and {len(texts)} came"] * short
        errors = [
            (why or NO_ANSWER) if text is None else None for text, why in zip(generations, said, strict=True)
        ]
        extra = {key: [*values, *[None] * short] for key, values in output.items() if key not in _OWN_KEYS}
        completed = {
            **extra,
            "generations": generations,
            "statistics": output.get("statistics") or {},
            "errors": errors,
        }
        return cast(GenerateOutput, completed)

    @property
    def _logger(self) -> logging.Logger:
        return logging.getLogger(f"distilabel_dagster.llm.{self.model_name}")


_OWN_KEYS = frozenset(GenerateOutput.__annotations__)


class AsyncLLM(LLM):
    """A model whose calls wait for someone else; override `model_name` and `agenerate`.

    Attributes:
        max_concurrency: calls in flight at the same time, per running `generate`.

    Runtime parameters:
        - `generation_kwargs`: keyword arguments of `agenerate`.
        - `max_concurrency`: see above.
    """

    max_concurrency: RuntimeParameter[PositiveInt] = Field(
        default=16, description="The number of calls that are in flight at the same time."
    )

    generation_method: ClassVar[str] = "agenerate"
    one_call_per_generation: ClassVar[bool] = False
    """True where `agenerate` is to be called once for each of `num_generations`, each time asked for one."""

    @abstractmethod
    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:  # noqa: A002 (distilabel's name)
        """Answer one conversation `num_generations` times.

        An exception fails this input's generations and no others; its text is what the row's error says.
        """

    async def aclose(self) -> None:
        """Give back what `agenerate` opened in the running event loop; called once when its calls are done."""

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Call `agenerate` for each input, `max_concurrency` at a time, in an event loop of its own.

        Safe to call from several threads, and from a thread whose own event loop is running: that one is blocked
        until all are answered.
        """
        if not _is_loop_running():
            return asyncio.run(self._generate_all(inputs, num_generations, kwargs))
        with ThreadPoolExecutor(max_workers=1) as executor:
            return executor.submit(asyncio.run, self._generate_all(inputs, num_generations, kwargs)).result()

    async def _generate_all(
        self, inputs: list[ChatType], num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        limit = asyncio.Semaphore(self.max_concurrency or 1)
        calls, count = (num_generations, 1) if self.one_call_per_generation else (1, num_generations)

        async def call(messages: ChatType) -> GenerateOutput:
            async with limit:
                output = await self.agenerate(input=messages, num_generations=count, **kwargs)
            return self._complete(output, count)

        try:
            results = await _gather([call(messages) for messages in inputs for _ in range(calls)])
        finally:
            await self.aclose()
        outputs = [_failed(result, count) if isinstance(result, Exception) else result for result in results]
        return [_merge(outputs[start : start + calls]) for start in range(0, len(outputs), calls)]


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _gather(calls: Sequence[Awaitable[GenerateOutput]]) -> list[GenerateOutput | Exception]:
    """Wait for all; what failed stands in the list as its exception, but a stop of the process stops all."""
    results: list[GenerateOutput | Exception] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
        results.append(result)
    return results


def _failed(error: Exception, count: int) -> GenerateOutput:
    return {"generations": [None] * count, "statistics": {}, "errors": [describe_failure(error)] * count}


def describe_failure(error: Exception) -> str:
    """Say what went wrong as a row's error does: our own messages as they are, others with their class."""
    package = __name__.partition(".")[0]
    if type(error).__module__.partition(".")[0] == package:
        return str(error)
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _merge(outputs: list[GenerateOutput]) -> GenerateOutput:
    """Put the outputs of several calls for one input together, in order."""
    if len(outputs) == 1:
        return outputs[0]
    counts = [len(output["generations"]) for output in outputs]
    extra_keys = sorted({key for output in outputs for key in output} - _OWN_KEYS)
    merged: dict[str, Any] = {"generations": [text for output in outputs for text in output["generations"]]}
    statistics = [output.get("statistics") or {} for output in outputs]
    merged["statistics"] = {
        key: [
            number
            for each, count in zip(statistics, counts, strict=True)
            for number in each.get(key) or [0] * count
        ]
        for key in sorted({key for each in statistics for key in each})
    }
    for key in [*extra_keys, *(["errors"] if any("errors" in output for output in outputs) else [])]:
        given = [cast(dict[str, Any], output).get(key) for output in outputs]
        merged[key] = [
            item for each, count in zip(given, counts, strict=True) for item in each or [None] * count
        ]
    return cast(GenerateOutput, merged)
