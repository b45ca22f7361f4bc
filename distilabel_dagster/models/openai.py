"""`OpenAILLM`: any endpoint that speaks OpenAI's chat completions."""

import asyncio
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeInt, PositiveFloat, PrivateAttr, SecretStr, field_validator

from distilabel_dagster.base.environment import openai_setting
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.errors import MissingDependencyError, ModelError
from distilabel_dagster.models.llm import AsyncLLM, ChatType, GenerateOutput
from distilabel_dagster.models.provider_errors import build_call_error, translate_openai_error

OPENAI_BASE_URL = "https://api.openai.com/v1"
_NO_KEY = "no-key"


def _api_key_from_environment() -> SecretStr | None:
    key = openai_setting("api_key")
    return SecretStr(key) if key else None


class OpenAILLM(AsyncLLM):
    """A model behind OpenAI's chat completions API: OpenAI itself, vLLM, llama.cpp, Ollama, TGI, OpenRouter.

    Needs the extra `openai`. What isn't given is taken from the environment when the object is made, so that the
    signature of a pipeline holds the model and the endpoint that really answer. Each of `num_generations` is a call
    of its own: not every endpoint honours `n`, and so the tokens of each are known.

    Attributes:
        model: the model's name at the endpoint; from `OPENAI_MODEL` by default.
        base_url: the endpoint, up to and without `/chat/completions`; from `OPENAI_BASE_URL` by default, else
            OpenAI's own.
        api_key: from `OPENAI_API_KEY` by default; never written to a file, log or signature. Endpoints other than
            OpenAI's may need none.
        timeout: seconds that one attempt may take.
        max_retries: how often a call is made again after 408, 409, 429, 5xx and broken connections, with
            exponential back-off; Retry-After is honoured.
        max_concurrency: calls in flight at the same time.
        generation_kwargs: the options of `agenerate`.

    Runtime parameters:
        - `base_url`, `api_key`, `timeout`, `max_retries`, `max_concurrency`, `generation_kwargs`: see above.

    References:
        - [Chat completions](https://platform.openai.com/docs/api-reference/chat)

    Examples:
        >>> llm = OpenAILLM(model="qwen", base_url="http://localhost:8000/v1", generation_kwargs={"temperature": 0})
        >>> llm.model_name
        'qwen'
    """

    model: str = Field(default_factory=lambda: openai_setting("model") or "")
    base_url: RuntimeParameter[str] = Field(
        default_factory=lambda: openai_setting("base_url") or OPENAI_BASE_URL,
        description="The endpoint, up to and without /chat/completions.",
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default_factory=_api_key_from_environment, description="The key for the endpoint."
    )
    timeout: RuntimeParameter[PositiveFloat] = Field(
        default=120, description="The number of seconds that one attempt of a call may take."
    )
    max_retries: RuntimeParameter[NonNegativeInt] = Field(
        default=6, description="How often a failed call is made again."
    )

    one_call_per_generation: ClassVar[bool] = True

    _clients: dict[Any, Any] = PrivateAttr(default_factory=dict)

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        if not value:
            raise ValueError("no model is named: pass `model=`, or set OPENAI_MODEL")
        return value

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str | None) -> str:
        value = (value or OPENAI_BASE_URL).rstrip("/")
        try:
            parts = urlsplit(value)
        except ValueError:
            parts = urlsplit("")
        # What is wrong with it may be a secret in the wrong place, so it isn't quoted.
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL such as `http://localhost:8000/v1`")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "it is written to pipeline.yaml, so it may hold no user, password or query: pass `api_key=`"
            )
        return value

    @property
    def model_name(self) -> str:
        """The model's name at the endpoint."""
        return self.model

    @property
    def _endpoint(self) -> str:
        return self.base_url or OPENAI_BASE_URL

    def load(self) -> None:
        """Check that calls can be made; makes none.

        Raises:
            MissingDependencyError: the extra `openai` isn't installed.
            ModelError: OpenAI's own endpoint is to be called without a key.
        """
        try:
            import openai  # noqa: F401 (only whether it's there)
        except ImportError as error:
            raise MissingDependencyError("OpenAILLM", "openai", "openai") from error
        if self.api_key is None and self._endpoint == OPENAI_BASE_URL:
            raise ModelError(
                f"Model `{self.model}` at {OPENAI_BASE_URL} needs an API key. Set OPENAI_API_KEY, pass `api_key=`, or "
                "pass the `base_url=` of an endpoint that needs none.",
                model=self.model,
            )

    def _client(self) -> Any:
        """The client of the running event loop: its connections belong to that loop."""
        from openai import AsyncOpenAI

        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = AsyncOpenAI(
                base_url=self._endpoint,
                api_key=self._secret() or _NO_KEY,
                timeout=self.timeout,
                max_retries=self.max_retries or 0,
            )
        return self._clients[loop]

    def _secret(self) -> str | None:
        return self.api_key.get_secret_value() if self.api_key is not None else None

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def agenerate(  # type: ignore[override]  # noqa: PLR0917 (the options by name, so that an unknown one is refused)
        self,
        input: ChatType,  # noqa: A002 (distilabel's name)
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        max_completion_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        reasoning_effort: str | None = None,
        response_format: dict[str, Any] | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Ask the endpoint once and give its first choice.

        Args:
            input: the conversation.
            num_generations: 1; more are more calls.
            max_new_tokens: most tokens of the answer, sent as `max_tokens`; the endpoint's default if None.
            max_completion_tokens: the same under the name that OpenAI's newer models want.
            temperature: how freely is sampled.
            top_p: share of probability that is sampled from.
            frequency_penalty: how much repeated tokens are held back.
            presence_penalty: how much tokens that occurred at all are held back.
            stop: texts that end the answer.
            seed: makes sampling repeatable, where the endpoint can; each generation of an input gets the same.
            reasoning_effort: how long a reasoning model may think.
            response_format: what the answer must look like, in OpenAI's words.
            extra_body: further fields of the request, for endpoints that know more.

        Raises:
            ModelCallError: the call failed, after its retries.
        """
        options = {
            "max_tokens": max_new_tokens,
            "max_completion_tokens": max_completion_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "stop": stop,
            "seed": seed,
            "reasoning_effort": reasoning_effort,
            "response_format": response_format,
            "extra_body": extra_body,
        }
        given = {name: value for name, value in options.items() if value is not None}
        from openai import OpenAIError

        try:
            completion = await self._client().chat.completions.create(
                model=self.model, messages=input, **given
            )
        except (OpenAIError, ValueError) as error:
            translated = translate_openai_error(
                error, endpoint=self._endpoint, model=self.model, secret=self._secret()
            )
            if translated is None:
                raise
            raise translated from error
        return self._read(completion)

    def _read(self, completion: Any) -> GenerateOutput:
        """Take text and tokens from a completion; an endpoint may answer with anything."""
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if message is None:
            raise build_call_error(
                "malformed", endpoint=self._endpoint, model=self.model, secret=self._secret()
            )
        usage = getattr(completion, "usage", None)
        output: GenerateOutput = {
            "generations": [message.content],
            "statistics": {
                "input_tokens": [int(getattr(usage, "prompt_tokens", None) or 0)],
                "output_tokens": [int(getattr(usage, "completion_tokens", None) or 0)],
            },
        }
        if message.content is None:
            refusal = getattr(message, "refusal", None)
            reason = getattr(choice, "finish_reason", None)
            output["errors"] = [
                f"Model `{self.model}` refused: {refusal}"
                if refusal
                else f"Model `{self.model}` gave no text (finish_reason: {reason})."
            ]
        return output
