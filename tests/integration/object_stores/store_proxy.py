"""Between a run and an S3 server: some requests fail on the way, and listings tell of yesterday."""

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

import aiohttp
from aiohttp import web
from yarl import URL

Fault = Literal["error", "slow_down", "drop", "lose_answer", "truncate", "delay", "hang", "refuse"]
_ERRORS: dict[str, tuple[int, str]] = {
    "error": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "refuse": (403, "AccessDenied"),
}
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_SIGNED = frozenset({"authorization", "x-amz-date", "x-amz-content-sha256"})
_HOP_BY_HOP = frozenset({"connection", "content-length", "expect", "host", "keep-alive", "transfer-encoding"})


@dataclass
class Weather:
    """What happens on the way; may be changed at any time.

    Attributes:
        shares: fault -> the share of requests that meet it.
        always: gives the fault that a request meets in any case, told its method and key; None for none.
        stale_s: for how long a listing says what was the case before an object was written or removed.
        delay_s: how long a delayed request waits.
        seed: what is drawn with.
    """

    shares: dict[Fault, float] = field(default_factory=dict)
    always: Callable[[str, str], Fault | None] = lambda method, key: None
    stale_s: float = 0.0
    delay_s: float = 0.2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A request that came: its method, its bucket and key, and what it met."""

    method: str
    key: str
    fault: Fault | None


class StoreProxy:
    """A proxy on loopback in a thread of its own; a context manager.

    Args:
        target: the server's address.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="store-proxy", daemon=True)
        self.url = ""
        self.reset()

    def reset(self, **weather: Any) -> None:
        """Begin anew, with fair weather but for what is given."""
        self.weather = Weather(**weather)
        self.requests: list[Request] = []
        self._random = random.Random(self.weather.seed)
        self._before: dict[str, tuple[float, bytes]] = {}

    def __enter__(self) -> "StoreProxy":
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> str:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        key = unquote(request.rel_url.raw_path).lstrip("/")
        fault = self.weather.always(request.method, key) or self._draw()
        self.requests.append(Request(request.method, key, fault))
        if request.headers.get("Expect", "").lower() == "100-continue" and fault != "hang":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        body = await request.content.read() if fault != "hang" else b""
        if fault in _ERRORS:
            return _refuse(fault)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "delay":
            await asyncio.sleep(self.weather.delay_s)
        if fault == "drop":
            return _drop(request)
        answer, content = await self._pass_on(request, key, body)
        if fault == "lose_answer":
            return _drop(request)
        if fault == "truncate" and len(content) > 1 and request.method == "GET":
            return await _truncate(request, answer, content)
        if request.method == "HEAD":
            return await _answer_head(request, answer)
        return web.Response(status=answer.status, headers=_end_to_end(answer.headers), body=content)

    def _draw(self) -> Fault | None:
        drawn = self._random.random()
        for fault, share in self.weather.shares.items():
            drawn -= share
            if drawn < 0:
                return fault
        return None

    async def _pass_on(
        self, request: web.BaseRequest, key: str, body: bytes
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        if request.method in ("DELETE", "PUT") and self.weather.stale_s:
            await self._remember(key, request.headers)
        async with self._session.request(
            request.method,
            URL(self._target + request.raw_path, encoded=True),
            headers=_end_to_end(request.headers),
            data=body or None,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
        query = parse_qs(request.query_string)
        if request.method == "GET" and "list-type" in query and self.weather.stale_s:
            prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
            content = self._make_stale(content, key.rstrip("/"), prefix, delimiter)
        return answer, content

    async def _remember(self, key: str, headers: Any) -> None:
        """Keep what a listing says of an object that is about to be changed; nothing where there's none yet."""
        if self._before.get(key, (0.0, b""))[0] > time.monotonic() - self.weather.stale_s:
            return
        said = b""
        # The server only looks whether there's a signature.
        signed = {name: value for name, value in headers.items() if name.lower() in _SIGNED}
        async with self._session.head(URL(f"{self._target}/{key}"), headers=signed) as found:
            if found.status == 200:
                _, _, name = key.partition("/")
                said = (
                    f"<Contents><Key>{name}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
                    f"<ETag>{found.headers['ETag']}</ETag><Size>{found.headers['Content-Length']}</Size>"
                    "<StorageClass>STANDARD</StorageClass></Contents>"
                ).encode()
        self._before[key] = (time.monotonic(), said)

    def _make_stale(self, content: bytes, bucket: str, prefix: str, delimiter: str) -> bytes:
        """Say of what was changed lately what was the case before."""
        oldest = time.monotonic() - self.weather.stale_s
        before = {
            key.removeprefix(f"{bucket}/"): said for key, (at, said) in self._before.items() if at > oldest
        }

        def keep(entry: "re.Match[bytes]") -> bytes:
            name = _KEY.search(entry.group()).group(1).decode()  # type: ignore[union-attr]  # each has a key
            return b"" if name in before else entry.group()

        old = b"".join(
            said
            for name, said in before.items()
            if name.startswith(prefix) and not (delimiter and delimiter in name[len(prefix) :])
        )
        return _CONTENTS.sub(keep, content).replace(b"</ListBucketResult>", old + b"</ListBucketResult>")

    def count(self, fault: Fault | None = None) -> int:
        """How many requests met a fault, or any."""
        return sum(each.fault is not None and fault in (None, each.fault) for each in self.requests)


def _end_to_end(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def _refuse(fault: str) -> web.Response:
    status, code = _ERRORS[fault]
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>made up</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")


def _drop(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _answer_head(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
    response.content_length = int(answer.headers.get("Content-Length", 0))
    await response.prepare(request)
    return response


async def _truncate(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, content: bytes
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
    response.content_length = len(content)
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
