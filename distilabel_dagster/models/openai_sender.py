"""Sends requests of OpenAI's API as the SDK prepares them, for less than it takes the SDK to prepare each."""

import contextlib
import importlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What all requests of a path have in common, in the words of the HTTP library that the SDK uses."""

    library: Any
    build: Callable[..., Any]
    url: Any
    headers: list[tuple[bytes, bytes]]
    extensions: Any


class OpenAISender:
    """One client of the SDK, whose first request of a path is the pattern of all that follow.

    The SDK decides on address, headers and key, and these are the same for each call of a model. To find that out anew
    takes it 0.6 ms of CPU, more than all the rest of a call. So its HTTP client sends the first request again, with other
    bodies, and its exceptions say what went wrong. A redirect is left to the SDK, which knows who may get the key.

    Args:
        build_client: makes the client of the SDK around an HTTP client.
        http: that HTTP client; belongs to the running event loop.
    """

    def __init__(self, build_client: Callable[[Any], Any], http: Any) -> None:
        self._http = http
        self._client = build_client(http)
        self._patterns: dict[str, _Pattern] = {}
        self._wanted: set[str] = set()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a request, once; give the JSON data that came back, or the text where it's said to be none.

        Args:
            path: of the API, after the base URL.
            body: JSON data.

        Raises:
            openai.OpenAIError: the endpoint can't be reached, or it answered with an error.
            ValueError: what should be JSON isn't, or the body can't be written as JSON.
        """
        pattern = self._patterns.get(path)
        if pattern is None:
            self._wanted.add(path)
            self._http.event_hooks = {"request": [self._note]}
            return await self._client.post(path, cast_to=object, body=body)
        response = await self._send(pattern, body)
        if response.is_redirect:
            return await self._client.post(path, cast_to=object, body=body)
        if response.is_error:
            raise _build_status_error(response)
        return response.json() if "json" in response.headers.get("content-type", "") else response.text

    async def _note(self, request: Any) -> None:
        """Keep the first request of a path, before any redirect of it."""
        for path in [each for each in self._wanted if request.url.path.endswith(each)]:
            self._wanted.discard(path)
            self._patterns[path] = _Pattern(
                library=importlib.import_module(type(request).__module__.partition(".")[0]),
                build=type(request),
                url=request.url,
                headers=[each for each in request.headers.raw if each[0].lower() != b"content-length"],
                extensions=request.extensions,
            )
        if not self._wanted:
            self._http.event_hooks = {}

    async def _send(self, pattern: _Pattern, body: dict[str, Any]) -> Any:
        from openai import APIConnectionError, APITimeoutError

        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        request = pattern.build(
            "POST", pattern.url, headers=pattern.headers, content=content, extensions=pattern.extensions
        )
        try:
            return await self._http.send(request, follow_redirects=False)
        except pattern.library.TimeoutException as error:
            raise APITimeoutError(request=request) from error
        except (pattern.library.RequestError, ssl.SSLError) as error:
            raise APIConnectionError(request=request) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _build_status_error(response: Any) -> Exception:
    """Make the SDK's error of a response, with what the provider said as its body."""
    from openai import APIStatusError

    body: Any = response.text.strip()
    with contextlib.suppress(ValueError):  # some answer in plain text or HTML
        body = json.loads(body)
    if isinstance(body, dict):
        body = body.get("error", body)
    return APIStatusError(f"Error code: {response.status_code}", response=response, body=body)
