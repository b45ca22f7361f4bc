"""The connection to an endpoint that speaks OpenAI's API: where it is, its key, and single attempts of calls."""

import asyncio
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PrivateAttr, SecretBytes, SecretStr, field_validator

from distilabel_dagster.base.environment import openai_setting
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.base.serializable import PACKAGE, is_secret
from distilabel_dagster.errors import MissingDependencyError, ModelCallError, ModelError
from distilabel_dagster.models.deadlines import within
from distilabel_dagster.models.model import RemoteModel
from distilabel_dagster.models.openai_sender import OpenAISender
from distilabel_dagster.models.prices import estimate_cost_usd
from distilabel_dagster.models.provider_errors import (
    build_call_error,
    classify_status,
    read_error_body,
    translate_openai_error,
)

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"
_STRUCK: Final = "***"
_NO_KEY: Final = "no-key"
# Below the 5 s after which many servers close a connection that's idle, so that no call goes into one being closed.
_KEEP_ALIVE_S: Final = 4.0
_LEAST_CONNECTIONS: Final = 16
_NAMES_KEY: Final = re.compile(r"auth|cookie|credential|key|pass|secret|session|token", re.IGNORECASE)
_SHORTEST_SECRET: Final = 8
_PLACEHOLDERS: Final = frozenset(
    {"lm-studio", "no-key", "not-needed", "no-key-required", "sk-no-key-required", "token-abc123"}
)
"""Keys that examples for local servers use: nothing is given away by them, and an answer may well hold these words."""


def _api_key_from_environment() -> SecretStr | None:
    key = openai_setting("api_key")
    return SecretStr(key) if key else None


class OpenAIEndpoint(RemoteModel):
    """Base of the models behind OpenAI's API; derive from `OpenAILLM` or `OpenAIEmbeddings`.

    Attributes:
        base_url: the endpoint, up to and without `/chat/completions` or the like; from `OPENAI_BASE_URL` by default,
            else OpenAI's own.
        api_key: from `OPENAI_API_KEY` by default; never written to a file, log or signature. Endpoints other than
            OpenAI's may need none.
        default_headers: HTTP headers that each call gets besides; their values are treated as secrets, so that they
            have to be given again to a pipeline that was read from a file.
        timeout_s: seconds that one attempt may take, from its beginning to the last byte of the answer. An answer that
            came while this process was paused counts, however long that was.

    Runtime parameters:
        - `base_url`, `api_key`, `default_headers`, `timeout_s`: see above.
    """

    base_url: RuntimeParameter[str] = Field(
        default_factory=lambda: openai_setting("base_url") or OPENAI_BASE_URL,
        description="The endpoint, up to and without /chat/completions.",
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default_factory=_api_key_from_environment, description="The key for the endpoint."
    )
    default_headers: RuntimeParameter[dict[str, SecretStr]] | None = Field(
        default=None, description="HTTP headers that each call gets besides."
    )
    timeout_s: RuntimeParameter[PositiveFloat] = Field(
        default=120, description="The number of seconds that one attempt of a call may take."
    )

    _senders: dict[Any, OpenAISender] = PrivateAttr(default_factory=dict)

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
    def endpoint(self) -> str:
        """The endpoint, as `base_url` has it."""
        return self.base_url or OPENAI_BASE_URL

    def load(self) -> None:
        """Check that calls can be made; makes none.

        Raises:
            MissingDependencyError: the extra `openai` isn't installed.
            ModelError: OpenAI's own endpoint is to be called without a key.
        """
        try:
            import aiohttp  # noqa: F401 (only whether it's there)
            import openai  # noqa: F401 (only whether it's there)
        except ImportError as error:
            raise MissingDependencyError(type(self).__name__, "openai[aiohttp]", "openai") from error
        self._check_credentials()

    def _check_credentials(self) -> None:
        if self.api_key is None and self.endpoint == OPENAI_BASE_URL and not self.default_headers:
            raise ModelError(
                f"Model `{self.model_name}` at {OPENAI_BASE_URL} needs an API key. Set OPENAI_API_KEY, pass `api_key=`, "
                "or pass the `base_url=` of an endpoint that needs none.",
                model=self.model_name,
            )

    def _listed_cost_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return estimate_cost_usd(self.model_name, self.endpoint, input_tokens, output_tokens)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make one attempt of a call, and give the JSON object that came back, without any secret of this model.

        Args:
            path: of the API, after `base_url`.
            body: the request.

        Raises:
            ModelCallError: the attempt failed, or no JSON object came back.
        """
        from openai import OpenAIError

        try:
            # The SDK's own time-outs are off: they count from byte to byte, so that a dripping answer would never end.
            answer = await within(self._sender().post(path, body), self.timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            failure = self._failure("timeout")
        except (OpenAIError, ValueError) as error:
            translated = translate_openai_error(
                error, endpoint=self.endpoint, model=self.model_name, secrets=self._secrets(body)
            )
            if translated is None:
                raise
            failure = translated
        else:
            return self._read_answer(answer, body)
        # Outside the handler: what the SDK raised may quote the key, and would be shown as this error's context.
        raise failure

    def _read_answer(self, answer: Any, body: dict[str, Any]) -> dict[str, Any]:
        if isinstance(answer, str):
            answer = self._parse(answer, body)
        if not isinstance(answer, dict):
            raise self._failure("malformed", said=f"JSON that is a {type(answer).__name__}, not an object")
        if answer.get("error") and not answer.get("choices"):
            raise self.read_failure(answer["error"], body)
        struck: dict[str, Any] = strike(answer, [each for each in self._secrets(body) if is_struck(each)])
        return struck

    def _parse(self, answer: str, body: dict[str, Any]) -> Any:
        """Read what came under another content type than JSON's; it may be JSON all the same."""
        try:
            return json.loads(answer)
        except ValueError:
            failure = self._failure("malformed", said=answer.strip(), body=body)
        raise failure

    def read_failure(self, error: Any, body: dict[str, Any]) -> ModelCallError:
        """Make our error of one that came with a status of success, as hosts that pass calls on to others do it."""
        said = read_error_body(error) or ""
        code = str(error.get("code")) if isinstance(error, Mapping) else ""
        status = int(code) if code.isdecimal() and 400 <= int(code) < 600 else 500
        return self._failure(classify_status(status, error, said, {}), said=said, body=body)

    def _failure(self, kind: str, said: str = "", body: dict[str, Any] | None = None) -> ModelCallError:
        return build_call_error(
            kind,
            endpoint=self.endpoint,
            model=self.model_name,
            said=said,
            secrets=self._secrets(body or {}),
        )

    def _sender(self) -> OpenAISender:
        """What sends requests in the running event loop: its connections belong to that loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._senders:
            self._senders[loop] = OpenAISender(self._build_client, self._build_http_client())
        return self._senders[loop]

    def _build_client(self, http: Any) -> Any:
        from openai import AsyncOpenAI

        return AsyncOpenAI(
            base_url=self.endpoint, api_key=self._key_or_placeholder(), **self._client_settings(http)
        )

    def _key_or_placeholder(self) -> str:
        # The SDK would look for a key elsewhere where it gets none.
        return _reveal(self.api_key) or _NO_KEY

    def _build_http_client(self) -> Any:
        from openai import DefaultAioHttpClient, Timeout

        # The HTTP library is another one in older versions of the SDK, which shows its classes as its own; their
        # methods still say where they're from. Its limits have the same names.
        library: Any = importlib.import_module(Timeout.__init__.__module__.partition(".")[0])
        connections = max(self.max_concurrency or 1, _LEAST_CONNECTIONS)
        limits = library.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEEP_ALIVE_S
        )
        return DefaultAioHttpClient(limits=limits, timeout=None)

    def _client_settings(self, http: Any) -> dict[str, Any]:
        return {
            "http_client": http,
            "timeout": None,
            # Retries are made around the attempt, where limits and the ledger are.
            "max_retries": 0,
            "default_headers": {name: _reveal(value) for name, value in (self.default_headers or {}).items()},
        }

    def _is_customized(self, *methods: str) -> bool:
        """Tell whether a class of the user's has one of these methods."""
        return any(getattr(type(self), name).__module__.partition(".")[0] != PACKAGE for name in methods)

    def _secrets(self, body: Mapping[str, Any]) -> list[str]:
        """Everything of a call that must show up nowhere."""
        headers = [
            _reveal(value) for name, value in (self.default_headers or {}).items() if _NAMES_KEY.search(name)
        ]
        # Of `Bearer <token>` the token alone is the secret as well.
        headers += [part for value in headers if value for part in value.split()[1:]]
        own = [_reveal(secret) for secret in (self.api_key, *self._further_secrets())]
        return [each for each in (*own, *headers, *_iter_secrets(body)) if each]

    def _further_secrets(self) -> list[SecretStr | None]:
        """Secrets of the model besides the key and the headers."""
        return []

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        sender = self._senders.pop(asyncio.get_running_loop(), None)
        if sender is not None:
            await sender.close()


def _reveal(secret: Any) -> str | None:
    return str(secret.get_secret_value()) if isinstance(secret, SecretStr | SecretBytes) else None


def _iter_secrets(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _iter_secrets(each, str(key))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _iter_secrets(each, name)
    elif isinstance(value, str) and is_secret(name, value):
        yield value


def is_struck(secret: str) -> bool:
    """Tell whether a secret is struck from answers: not a placeholder, nor as short as words that answers hold."""
    return len(secret) >= _SHORTEST_SECRET and secret.lower() not in _PLACEHOLDERS


def strike(value: Any, secrets: list[str]) -> Any:
    """Replace secrets wherever they stand in JSON data; gives the very same value where there are none."""
    if not secrets:
        return value
    if isinstance(value, str):
        for secret in secrets:
            if secret in value:
                value = value.replace(secret, _STRUCK)
        return value
    if isinstance(value, dict):
        return {strike(key, secrets): strike(each, secrets) for key, each in value.items()}
    return [strike(each, secrets) for each in value] if isinstance(value, list) else value
