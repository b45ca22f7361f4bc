"""An OpenAI-compatible server whose answers and failures are made to order. Run as a program:

    python -m tests.llm_server.server <log file> <settings as JSON> <port, 0 for a free one>

It prints its port when it listens, and ends when its standard input does. Each call is written to the log, one JSON
object a line, when it arrives and again when it has ended, so that who reads it knows what was on the wire at a moment.
"""

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.llm_server.answers import ANSWERS
from tests.llm_server.failures import BROKEN, KINDS, REFUSALS, choose_failure, draw_latency
from tests.llm_server.settings import Settings

_JSON: Final = "application/json"


class _DroppedError(Exception):
    """The caller is gone."""


@dataclass(slots=True)
class _Call:
    """A call from its arrival on, and what the log will say of its end."""

    http: web.BaseRequest
    body: bytes
    number: int
    key: str
    occurrence: int
    is_in_flight: bool = True
    end: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.end = {
            "event": "end",
            "number": self.number,
            "occurrence": self.occurrence,
            "outcome": "dropped",
        }


class Server:
    """The state of the server: its settings, what it has counted, and the log."""

    def __init__(self, log: str, settings: Settings) -> None:
        self._log_path = log
        self._log = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
        self._start_anew(settings)

    def _start_anew(self, settings: Settings) -> None:
        os.ftruncate(self._log, 0)
        self.settings = settings
        self.arrived = self.ended = self.in_flight = self.most_at_once = 0
        self.generation = time.monotonic_ns()
        self.came: Counter[tuple[str, bytes]] = Counter()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        if request.path.startswith("/control/"):
            return await self._control(request)
        if request.path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": "tiny", "object": "model"}]})
        if request.path not in ANSWERS:
            return web.json_response({"error": {"message": f"no {request.path}"}}, status=404)
        body = await request.read()
        return await self._call(request, body)

    async def _call(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        call = self._arrive(request, body)
        generation = self.generation
        try:
            kind = choose_failure(call.number, body, self.settings)
            return await (self._answer(call) if kind is None else self._fail(call, kind))
        except _DroppedError:
            return web.Response()
        finally:
            if generation == self.generation:
                self._leave(call)
                self.ended += 1
                self._write(json.dumps({**call.end, "at": time.time()}).encode() + b"\n")

    def _arrive(self, request: web.BaseRequest, body: bytes) -> "_Call":
        self.arrived += 1
        self.in_flight += 1
        self.most_at_once = max(self.most_at_once, self.in_flight)
        self.came[request.path, body] += 1
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        call = _Call(request, body, self.arrived, key, self.came[request.path, body])
        head = {
            "event": "arrival",
            "number": call.number,
            "at": time.time(),
            "path": request.path,
            "key": key,
            "headers": {name: request.headers.get(name) for name in self.settings.logged_headers},
        }
        # A line break can't stand inside a JSON string, so none of these says anything.
        self._write(json.dumps(head)[:-1].encode() + b', "request": ' + body.replace(b"\n", b" ") + b"}\n")
        return call

    def _leave(self, call: "_Call") -> None:
        """Count the call as over: before its answer is sent, since the caller may then send its next one at once."""
        if call.is_in_flight:
            self.in_flight -= 1
        call.is_in_flight = False

    async def _answer(self, call: "_Call") -> web.StreamResponse:
        request = json.loads(call.body)
        said = ANSWERS[call.http.path](request, call.occurrence, self.settings, call.key)
        latency_s = draw_latency(call.number, self.settings)
        if latency_s:
            await asyncio.sleep(latency_s)
        response = web.Response(body=json.dumps(said).encode(), content_type=_JSON)
        await self._send(call, response)
        call.end.update(outcome="answered", status=200)
        return response

    async def _fail(self, call: "_Call", kind: str) -> web.StreamResponse:
        call.end["failure"] = kind
        if kind == "hang":
            await asyncio.Event().wait()
        # Who refuses a call for its rate does so at once; other failures come when the answer would have.
        if kind != "rate_limit":
            await asyncio.sleep(draw_latency(call.number, self.settings))
        if kind in BROKEN:
            response = await self._break(call, kind)
        else:
            response = self._refuse(call, kind)
            await self._send(call, response)
        call.end.update(outcome=kind, status=response.status)
        return response

    def _refuse(self, call: "_Call", kind: str) -> web.Response:
        refusal = REFUSALS[kind]
        message = refusal.message.format(key=call.key, model=json.loads(call.body).get("model"))
        if self.settings.echoes_key and call.key not in message:
            message += f" Your key is {call.key}."
        headers = {}
        wait_s = self.settings.retry_after_s
        if kind == "rate_limit" and wait_s is not None:
            is_in_ms = self.settings.retry_after_unit == "ms"
            headers["retry-after-ms" if is_in_ms else "retry-after"] = (
                f"{wait_s * 1000 if is_in_ms else wait_s:g}"
            )
            call.end["retry_after_s"] = wait_s
        said = {"error": {"message": message, "type": "error", "param": None, "code": refusal.code}}
        return web.json_response(said, status=refusal.status, headers=headers)

    async def _break(self, call: "_Call", kind: str) -> web.StreamResponse:
        half = (
            b'{"id": "call", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assi'
        )
        whole = {"truncated": half, "html": b"<html>Bad gateway</html>", "no_choices": b'{"choices": []}'}
        if kind in whole:
            response = web.Response(body=whole[kind], content_type="text/html" if kind == "html" else _JSON)
            await self._send(call, response)
            return response
        partial = web.StreamResponse(headers={"content-type": _JSON, "content-length": str(2 * len(half))})
        if kind != "reset":
            await partial.prepare(call.http)
            await partial.write(half)
        if kind == "stalled":
            await asyncio.Event().wait()
        self._leave(call)
        if call.http.transport is not None:
            call.http.transport.close()
        return partial

    async def _send(self, call: "_Call", response: web.Response) -> None:
        """Send the whole response now, so that what is logged after it has happened."""
        if call.http.transport is None or call.http.transport.is_closing():
            raise _DroppedError
        self._leave(call)
        await response.prepare(call.http)
        await response.write_eof()

    async def _control(self, request: web.BaseRequest) -> web.Response:
        asked = request.path.removeprefix("/control/")
        if asked in ("configure", "reset"):
            given = json.loads(await request.read())
            unknown = ({*given.get("failures", {}), *given.get("marked", {}).values()} - KINDS) or None
            names = {each.name for each in dataclasses.fields(Settings)}
            if unknown or not names.issuperset(given):
                return web.json_response({"error": f"unknown: {unknown or set(given) - names}"}, status=400)
            if asked == "reset":
                self._start_anew(Settings(**given))
            self.settings = dataclasses.replace(self.settings, **given)
        state = {
            "arrived": self.arrived,
            "ended": self.ended,
            "in_flight": self.in_flight,
            "most_at_once": self.most_at_once,
        }
        return web.json_response(state)

    def _write(self, line: bytes) -> None:
        os.write(self._log, line)


async def _wait_for_end_of_input() -> None:
    loop = asyncio.get_running_loop()
    is_ended = asyncio.Event()
    loop.add_reader(sys.stdin, lambda: is_ended.set() if not os.read(sys.stdin.fileno(), 64) else None)
    await is_ended.wait()


async def serve(log: str, settings: Settings, port: int) -> None:
    """Serve until standard input ends."""
    server = Server(log, settings)
    # A caller that hangs up, or is killed, ends its calls: they're logged as dropped.
    runner = web.ServerRunner(web.Server(server.handle, handler_cancellation=True, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024, shutdown_timeout=0, reuse_address=True)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await _wait_for_end_of_input()
    os._exit(0)  # whoever still waits sees the connection end, as with a server that dies


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Settings(**json.loads(sys.argv[2])), int(sys.argv[3])))
