"""The contracts of language models: `LLM`, and `AsyncLLM` for those that are reached over a network."""

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, ClassVar, TypedDict, TypeVar, cast

from pydantic import Field, field_validator

from distilabel_dagster.base.error_texts import tell_error, writable
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.errors import ModelOutputError, suggest
from distilabel_dagster.models.caller import find_caller
from distilabel_dagster.models.event_loops import run_apart
from distilabel_dagster.models.limits import EndpointLimiter
from distilabel_dagster.models.model import Model, RemoteModel
from distilabel_dagster.models.retries import call_with_retries

NO_ANSWER = "the model gave no text"
_NOT_OPTIONS = frozenset({"self", "input", "inputs", "num_generations", "structured_output"})
_T = TypeVar("_T")


class ChatItem(TypedDict):
    """One message of a conversation; `content` is text, or a list of parts such as text and images."""

    role: str
    content: str | list[dict[str, Any]]


ChatType = list[ChatItem]
"""A conversation in the form that OpenAI's chat API takes."""
ChatInput = ChatType | tuple[ChatType, dict[str, Any]]
"""A conversation, alone or with the structure that its answer is to have: `{"schema": <class or JSON schema>}`."""


class GenerateOutput(TypedDict, total=False):
    """What a model gave for one input: lists with one item per generation, of values that JSON has.

    Any further key must be such a list too; a task makes a column `llm_<step>_<key>` of it.
    """

    generations: list[str | None]
    statistics: dict[str, list[int]]
    errors: list[str | None]
    finish_reasons: list[str | None]


class LLM(Model):
    """A language model; override `model_name` and `generate`.

    One object may serve several tasks: `load` and `unload` are then called once for each of them, and `generate`
    from several threads at the same time.

    Attributes:
        generation_kwargs: keyword arguments for `generate` (for an `AsyncLLM`: `agenerate`). A name that it doesn't
            take is refused when the model is made.
        structured_output: `{"schema": <pydantic class or JSON schema>}` that all answers are to follow, for models
            that can do it (`supports_structured_output`).

    Runtime parameters:
        - `generation_kwargs`, `structured_output`: see above.

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

    structured_output: RuntimeParameter[dict[str, Any]] | None = Field(
        default=None, description="The JSON schema that answers are to follow, under the key `schema`."
    )

    generation_method: ClassVar[str] = "generate"
    supports_structured_output: ClassVar[bool] = False
    """True where the method above takes `structured_output=`, as it stands in `ChatInput`."""
    one_call_per_generation: ClassVar[bool] = False
    """True where each of `num_generations` is a call of its own, asked for one: then a further one costs one."""

    @field_validator("structured_output")
    @classmethod
    def _check_structured_output(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and not cls.supports_structured_output:
            raise ValueError(
                f"`{cls.__name__}` can't be held to a schema. Say in the prompt what is expected"
            )
        return value

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
        self, inputs: Sequence[ChatInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Answer each conversation: what tasks call, and what custom tasks should call.

        In a run, what the ledger has an answer to isn't asked again, and what is asked is in the ledger before it's
        given back.

        Args:
            inputs: the conversations; one that comes with a structure is held to it, where the model can do that.
            num_generations: how many answers each gets.
            kwargs: options of this call; tasks pass `get_generation_kwargs()`.

        Returns:
            One output per input, in order, each with exactly `num_generations` generations. A generation that
            failed is None, and `errors` says why at the same index; `errors` is absent where none failed.

        Raises:
            ModelOutputError: `generate` gave something else than a list with an output for each input.
        """
        if not inputs:
            return []
        caller = find_caller(self)
        if caller is not None:
            return caller.answer(self, list(inputs), num_generations, kwargs)
        return self.ask(inputs, num_generations, **kwargs)

    def ask(
        self, inputs: Sequence[ChatInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Answer each conversation as `generate_outputs` does, without a ledger."""
        outputs = self.generate(
            inputs=[self.messages_of(each) for each in inputs], num_generations=num_generations, **kwargs
        )
        if not isinstance(outputs, list) or len(outputs) != len(inputs):
            found = f"{len(outputs)} outputs" if isinstance(outputs, list) else f"a {type(outputs).__name__}"
            raise ModelOutputError(
                f"`{type(self).__name__}.generate` gave {found}, expected a list of {len(inputs)} outputs, one per "
                "input.",
                model=self.model_name,
            )
        return [self._complete_or_fail(output, num_generations) for output in outputs]

    def _complete_or_fail(self, output: Any, num_generations: int) -> GenerateOutput:
        """Complete an output; one that's odd fails its input and no others."""
        try:
            return self.complete_output(output, num_generations)
        except ModelOutputError as error:
            return fail(error, num_generations)

    @staticmethod
    def messages_of(question: ChatInput) -> ChatType:
        """Give the conversation of an input, without the structure of its answer."""
        return question[0] if isinstance(question, tuple) else question

    def structure_of(self, question: ChatInput) -> dict[str, Any] | None:
        """Give the structure that the answer to an input is to have; None where there's none or the model can't."""
        if not self.supports_structured_output:
            return None
        return question[1] if isinstance(question, tuple) else None

    def calls_for(self, num_generations: int) -> tuple[int, int]:
        """Give how many calls make so many generations, and how many generations each is asked for."""
        return (num_generations, 1) if self.one_call_per_generation else (1, num_generations)

    def read_response(self, response: dict[str, Any]) -> GenerateOutput:
        """Make the output of what a call gave, now or from the ledger; by default that is the output."""
        return cast(GenerateOutput, response)

    def is_paid(self, response: dict[str, Any]) -> bool:
        """Tell whether a response is to be kept; one that isn't is asked for again by the next run.

        By default it's kept where no generation is missing: a model may say by None that a call failed.
        """
        output = self.read_response(response)
        texts = output.get("generations") if isinstance(output, dict) else None
        return isinstance(texts, list) and all(text is not None for text in texts)

    def complete_output(self, output: Any, num_generations: int) -> GenerateOutput:
        """Give `output` with a reason for each generation that's missing.

        Raises:
            ModelOutputError: it has another form than `GenerateOutput`, or too many generations.
        """
        texts = output.get("generations") if isinstance(output, dict) else None
        if not isinstance(texts, list) or len(texts) > num_generations:
            found = f"{len(texts)} generations" if isinstance(texts, list) else repr(output)[:200]
            raise ModelOutputError(
                f"`{type(self).__name__}.{self.generation_method}` gave {found} for one input, expected a dict with "
                f'"generations": a list of {num_generations} strings or None.',
                model=self.model_name,
            )
        odd = next((text for text in texts if text is not None and not isinstance(text, str)), None)
        if odd is not None:
            raise ModelOutputError(
                f"`{type(self).__name__}.{self.generation_method}` gave a generation that is a {type(odd).__name__}, "
                "expected text or None.",
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
        kept = {key: [*values, *[None] * short] for key, values in output.items() if key not in _COMPLETED}
        completed = {
            **kept,
            "generations": generations,
            "statistics": output.get("statistics") or {},
            "errors": errors,
        }
        return cast(GenerateOutput, completed)


_OWN_KEYS = frozenset(GenerateOutput.__annotations__)
_COMPLETED = frozenset({"generations", "statistics", "errors"})


class AsyncLLM(RemoteModel, LLM):
    """A model whose calls wait for someone else; override `model_name` and `agenerate`.

    Raise `ModelCallError` in `agenerate` where a call failed in a way that may pass, and it's made again.

    Attributes:
        max_concurrency: calls in flight at the same time; see `RemoteModel` for the other limits.

    Runtime parameters:
        - `generation_kwargs`: keyword arguments of `agenerate`.
        - `max_concurrency`, `requests_per_minute`, `tokens_per_minute`, `max_retries`: see `RemoteModel`.
    """

    generation_method: ClassVar[str] = "agenerate"

    @abstractmethod
    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:  # noqa: A002 (distilabel's name)
        """Answer one conversation `num_generations` times.

        An exception fails this input's generations and no others; its text is what the row's error says.
        """

    async def acall(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        """Make one attempt of a call, and give what came back as data that `read_response` takes.

        This is what the ledger keeps. By default it's what `agenerate` gives.

        Raises:
            ModelCallError: the attempt failed; its kind says whether another is made.
        """
        return cast(
            dict[str, Any], await self.agenerate(input=input, num_generations=num_generations, **kwargs)
        )

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Call `agenerate` for each input, `max_concurrency` at a time, in an event loop of its own.

        Safe to call from several threads, and from a thread whose own event loop is running: that one is blocked
        until all are answered. It's `generate_outputs`, so that in a run it's as good.
        """
        return self.generate_outputs(inputs, num_generations, **kwargs)

    def ask(
        self, inputs: Sequence[ChatInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Answer each conversation as `generate_outputs` does, without a ledger."""
        return run_apart(self._generate_all(inputs, num_generations, kwargs))

    async def _generate_all(
        self, inputs: Sequence[ChatInput], num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        limiter = EndpointLimiter(self.max_concurrency or 1)
        calls, count = self.calls_for(num_generations)

        async def call(question: ChatInput) -> GenerateOutput:
            answered = await call_with_retries(
                lambda: self.attempt([question], count, kwargs), limiter, max_retries=self.max_retries or 0
            )
            return self.complete_output(self.read_response(answered.value[0]), count)

        try:
            results = await _gather([call(question) for question in inputs for _ in range(calls)])
        finally:
            await self.aclose()
        outputs = [fail(result, count) if isinstance(result, Exception) else result for result in results]
        return [merge_outputs(outputs[start : start + calls]) for start in range(0, len(outputs), calls)]

    async def attempt(
        self, questions: list[Any], count: int, kwargs: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Make one attempt of the call for one input, with its structure where it has one."""
        (question,) = questions
        structure = self.structure_of(question)
        structured = {"structured_output": structure} if structure is not None else {}
        return [await self.acall(self.messages_of(question), count, **structured, **kwargs)]


async def _gather(calls: Sequence[Awaitable[_T]]) -> list[_T | Exception]:
    """Wait for all; what failed stands in the list as its exception, but a stop of the process stops all."""
    results: list[_T | Exception] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
        results.append(result)
    return results


def fail(error: BaseException | None, count: int) -> GenerateOutput:
    """Make the output of a call that failed: None for each generation, and why, if that's known."""
    return {"generations": [None] * count, "statistics": {}, "errors": [describe_failure(error)] * count}


def describe_failure(error: BaseException | None) -> str:
    """Say what went wrong as a row's error does: our own messages as they are, others with their class."""
    if error is None:
        return NO_ANSWER
    package = __name__.partition(".")[0]
    if type(error).__module__.partition(".")[0] == package:
        return writable(str(error))
    return tell_error(error).rstrip(": ")


def merge_outputs(outputs: list[GenerateOutput]) -> GenerateOutput:
    """Put the outputs of several calls for one input together, in order."""
    if len(outputs) == 1:
        return outputs[0]
    counts = [len(output["generations"]) for output in outputs]
    listed = sorted({key for output in outputs for key in output} - _COMPLETED)
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
    for key in [*listed, *(["errors"] if any("errors" in output for output in outputs) else [])]:
        given = [cast(dict[str, Any], output).get(key) for output in outputs]
        merged[key] = [
            item for each, count in zip(given, counts, strict=True) for item in each or [None] * count
        ]
    return cast(GenerateOutput, merged)
