"""`OpenAILLM`: any endpoint that speaks OpenAI's chat completions, or its text completions."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from distilabel_dagster.base.environment import openai_setting
from distilabel_dagster.models.llm import AsyncLLM, ChatType, GenerateOutput
from distilabel_dagster.models.model import without_secrets
from distilabel_dagster.models.openai_endpoint import OpenAIEndpoint
from distilabel_dagster.models.openai_requests import (
    OPTIONS,
    PATHS,
    Api,
    build_parameters,
    check_options,
    render_prompt,
)
from distilabel_dagster.models.openai_responses import find_choice, read_completion
from distilabel_dagster.models.structured_output import check_structured_output

_MAKE_THE_ANSWER = ("acall", "agenerate", "build_request", "post")


class OpenAILLM(OpenAIEndpoint, AsyncLLM):
    """A model behind OpenAI's API: OpenAI itself, vLLM, llama.cpp, Ollama, TGI, OpenRouter, a router of Hugging Face.

    Needs the extra `openai`. What isn't given is taken from the environment when the object is made, so that the
    signature of a pipeline holds the model and the endpoint that really answer. Each of `num_generations` is a call
    of its own: not every endpoint honours `n`, and so the tokens of each are known. Images and other parts of
    messages are passed on as they are.

    Attributes:
        model: the model's name at the endpoint; from `OPENAI_MODEL` by default.
        api: `"chat"`, or `"completion"` for models that continue a text: it gets the texts of the messages, with an
            empty line between two of them and without their roles.
        base_url: the endpoint, up to and without `/chat/completions`; from `OPENAI_BASE_URL` by default, else
            OpenAI's own.
        api_key: from `OPENAI_API_KEY` by default; never written to a file, log or signature. Endpoints other than
            OpenAI's may need none.
        default_headers: HTTP headers that each call gets besides, as secret as the key.
        timeout_s: seconds that one attempt may take, from its beginning to the last byte of the answer.
        structured_output: `{"schema": <pydantic class or JSON schema>}` sends the schema along, so that the endpoint
            holds the model to it. Also in it: `name`, and `strict` (by default strict mode is asked for where the
            schema can have it). A class is turned into its JSON schema when the model is made.
        generation_kwargs: the options of `agenerate`.
        max_concurrency: calls in flight at the same time; see `RemoteModel` for the other limits and retries.

    Runtime parameters:
        - `base_url`, `api_key`, `default_headers`, `timeout_s`, `structured_output`, `generation_kwargs`: see above.
        - `max_concurrency`, `requests_per_minute`, `tokens_per_minute`, `max_retries`: see `RemoteModel`.
        - `input_price_usd_per_million`, `output_price_usd_per_million`: see `Model`.

    References:
        - [Chat completions](https://platform.openai.com/docs/api-reference/chat)

    Examples:
        >>> llm = OpenAILLM(model="qwen", base_url="http://localhost:8000/v1", generation_kwargs={"temperature": 0})
        >>> llm.model_name
        'qwen'
    """

    model: str = Field(default_factory=lambda: openai_setting("model") or "")
    api: Api = "chat"

    one_call_per_generation: ClassVar[bool] = True
    supports_structured_output: ClassVar[bool] = True

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        if not value:
            raise ValueError("no model is named: pass `model=`, or set OPENAI_MODEL")
        return value

    @field_validator("structured_output")
    @classmethod
    def _check_structure(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else check_structured_output(value)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        options = self.generation_kwargs or {}
        # A subclass may have options of its own, which `generation_parameters` knows.
        check_options(OPTIONS.intersection(options), self.api, options.get("extra_body"))
        if self.structured_output is not None and options.get("response_format") is not None:
            raise ValueError(
                "`structured_output` and the `response_format` of `generation_kwargs` both say what answers look like: "
                "pass one of them"
            )
        return self

    @property
    def model_name(self) -> str:
        """The model's name at the endpoint."""
        return self.model

    def describe_provider(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Say what is sent besides the question and changes the answer.

        Not in it: keys, headers, time-outs, limits and retries. A subclass that makes requests or calls in its own way
        is described as any model of one's own, with its code.
        """
        if self._is_customized(*_MAKE_THE_ANSWER):
            return super().describe_provider(kwargs)
        parameters = self._build_parameters(kwargs)
        return {
            **self._describe_place(),
            "api": self.api,
            "model": self.model,
            "schema": parameters.pop("response_format", None),
            # 0.0 and 0 are the same temperature.
            "parameters": without_secrets({name: _simplify(value) for name, value in parameters.items()}),
        }

    def _describe_place(self) -> dict[str, Any]:
        return {"provider": "openai", "base_url": self.endpoint}

    def _build_parameters(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        options = {name: value for name, value in kwargs.items() if name != "structured_output"}
        structure = kwargs.get("structured_output")
        return build_parameters(options, self.api, self.structured_output if structure is None else structure)

    def build_request(self, messages: ChatType, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Make what is sent: the whole body of a request.

        Args:
            messages: the conversation.
            kwargs: the options of `agenerate`.

        Raises:
            ValueError: an option is unknown, or the API can't send such a message.
        """
        question: dict[str, Any] = (
            {"messages": messages} if self.api == "chat" else {"prompt": render_prompt(messages)}
        )
        return {"model": self.model, **question, **self._build_parameters(kwargs)}

    async def acall(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        """Make one attempt of a call, and give the response as it came, with all that is in it but secrets.

        Args:
            input: the conversation.
            num_generations: 1; more are more calls.
            kwargs: the options of `agenerate`.

        Raises:
            ModelCallError: the attempt failed, or what came back is no completion.
            ValueError: an option is unknown, or the API can't send such a message.
        """
        if self._is_customized("agenerate") and not self._is_customized("acall"):
            return await super().acall(input, num_generations, **kwargs)
        return await self._call(input, kwargs)

    async def _call(self, messages: ChatType, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        body = self.build_request(messages, kwargs)
        response = await self.post(PATHS[self.api], body)
        choice = find_choice(response)
        if choice is None:
            raise self._failure("malformed", said="no choice with an answer is in it")
        if choice.get("error"):
            # A host that passes calls on says so where the model behind it broke off.
            raise self.read_failure(choice["error"], body)
        return response

    def read_response(self, response: dict[str, Any]) -> GenerateOutput:
        """Make the output of a response: text, tokens, reason of its end, and `logprobs` where they were asked for.

        An answer of tool calls without text gives the calls as JSON text: `[{"id": …, "function": …}]`, as they stand
        in the response.
        """
        if "generations" in response:
            # From a subclass whose `agenerate` is its own.
            return super().read_response(response)
        return read_completion(response, self.model)

    def is_paid(self, response: dict[str, Any]) -> bool:
        """A refusal and an answer without text are paid as well: they're kept, and would be given again."""
        return "generations" not in response or super().is_paid(response)

    async def agenerate(  # type: ignore[override]  # noqa: PLR0917 (the options by name, so that an unknown one is refused)
        self,
        input: ChatType,  # noqa: A002 (distilabel's name)
        num_generations: int = 1,
        structured_output: dict[str, Any] | None = None,
        max_new_tokens: int | None = None,
        max_completion_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        reasoning_effort: str | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Ask the endpoint once and give its first choice.

        Args:
            input: the conversation.
            num_generations: 1; more are more calls.
            structured_output: the structure of this answer; the model's own by default.
            max_new_tokens: most tokens of the answer, sent as `max_tokens`; the endpoint's default if None.
            max_completion_tokens: the same under the name that OpenAI's newer models want (chat only).
            temperature: how freely is sampled.
            top_p: share of probability that is sampled from.
            frequency_penalty: how much repeated tokens are held back.
            presence_penalty: how much tokens that occurred at all are held back.
            stop: texts that end the answer.
            seed: makes sampling repeatable, where the endpoint can; each generation of an input gets the same.
            reasoning_effort: how long a reasoning model may think (chat only).
            logprobs: give for each token how likely it was: a list per token, first the token itself, then others.
            top_logprobs: how many of the likeliest tokens are in those lists.
            tools: what the model may call, in OpenAI's words (chat only).
            tool_choice: which of the tools it may or must call (chat only).
            response_format: what the answer must look like, in OpenAI's words.
            extra_body: further fields of the request, for endpoints that know more.

        Raises:
            ModelCallError: the attempt failed.
        """
        options = {
            "structured_output": structured_output,
            "max_new_tokens": max_new_tokens,
            "max_completion_tokens": max_completion_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "stop": stop,
            "seed": seed,
            "reasoning_effort": reasoning_effort,
            "logprobs": logprobs,
            "top_logprobs": top_logprobs,
            "tools": tools,
            "tool_choice": tool_choice,
            "response_format": response_format,
            "extra_body": extra_body,
        }
        given = {name: value for name, value in options.items() if value is not None}
        if self._is_customized("acall"):
            return self.read_response(await self.acall(input, num_generations, **given))
        return self.read_response(await self._call(input, given))


def _simplify(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
