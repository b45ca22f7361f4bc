"""A server on loopback that keeps what it was asked, and replies as a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], str | bytes | Iterator[bytes]]
"""Status, headers and body; a body in pieces is sent as they come, under the content-length of the headers."""

JSON = {"content-type": "application/json"}


def completion(text: str | None, **choice: Any) -> Reply:
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return 200, JSON, json.dumps(body)


def answer_of(content: Any) -> Reply:
    return 200, JSON, json.dumps(content)


def failure(status: int, message: str = "no", code: Any = None, **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "type": "x", "code": code}})
    return status, {**JSON, "retry-after-ms": "1", **headers}, body


class Endpoint:
    """The server. `reply` takes the request and the number of the call; `paths` and `headers` are those asked with."""

    def __init__(self) -> None:
        self.reply: Callable[[dict[str, Any], int], Reply] = lambda request, _: completion(
            request["messages"][-1]["content"].upper()
        )
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self.connections: set[Any] = set()
        self._at_once = 0
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with endpoint._lock:
                    endpoint.requests.append(request)
                    endpoint.paths.append(self.path)
                    endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                    endpoint.connections.add(self.client_address)
                    number = len(endpoint.requests)
                    endpoint._at_once += 1
                    endpoint.most_at_once = max(endpoint.most_at_once, endpoint._at_once)
                status, headers, body = endpoint.reply(request, number)
                with endpoint._lock:
                    endpoint._at_once -= 1
                self._send(status, headers, body)

            def _send(
                self, status: int, headers: dict[str, str], body: str | bytes | Iterator[bytes]
            ) -> None:
                if status == 0:
                    self.close_connection = True
                    return
                content = body.encode() if isinstance(body, str) else body
                length = {"content-length": str(len(content))} if isinstance(content, bytes) else {}
                self.send_response(status)
                for name, value in {**length, **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in [content] if isinstance(content, bytes) else content:
                        self.wfile.write(piece)
                        self.wfile.flush()
                except OSError:
                    self.close_connection = True
                if not isinstance(content, bytes):
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.url = f"{self.host}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def keys(self) -> set[str | None]:
        return {headers.get("authorization") for headers in self.headers}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
