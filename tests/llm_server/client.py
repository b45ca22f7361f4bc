"""The server from the outside, for tests and benchmarks."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.llm_server.calls import Call, read_calls

_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 60


class LLMServer:
    """A server in a process of its own, on a free port of loopback; ends with this process in any case.

    Example:
        >>> with LLMServer(tmp_path, latency_s=0.05) as server:
        ...     llm = OpenAILLM(model="tiny", base_url=server.url)
        ...     server.configure(failures={"rate_limit": 0.1})
        ...     [call.outcome for call in server.calls()]

    Settings are those of `Settings`.
    """

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._log = directory / "calls.jsonl"
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> "LLMServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What `base_url=` takes."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it; again on the same port, with a new log, if it was stopped."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.llm_server.server",
                str(self._log),
                json.dumps(self._settings),
                str(self.port),
            ],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        """End it at once: who calls it now is refused."""
        if self._process is not None:
            self._process.communicate("")
            self._process = None

    def configure(self, **settings: Any) -> None:
        """Change some settings for the calls that arrive from now on."""
        self._ask("configure", settings)

    def reset(self, **settings: Any) -> None:
        """Forget all calls and settings."""
        self._ask("reset", settings)

    def state(self) -> dict[str, int]:
        """Give the numbers of calls `arrived`, `ended`, `in_flight` now and `most_at_once`."""
        return self._ask("state", {})

    def calls(self) -> list[Call]:
        """Give all calls since the start or the last `reset`, in the order of their arrival."""
        return read_calls(self._log)

    def count(self) -> int:
        """Give the number of calls that have arrived."""
        return self.state()["arrived"]

    def wait_for(self, is_reached: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Wait until the state is as wanted; give it."""
        deadline = time.monotonic() + _PATIENCE_S
        while not is_reached(state := self.state()):
            assert time.monotonic() < deadline, f"never came about; the server's state: {state}"
            time.sleep(0.003)
        return state

    def wait_until_idle(self) -> None:
        """Wait until no call is on the wire, those of killed processes included."""
        self.wait_for(lambda state: state["arrived"] == state["ended"])

    def _ask(self, what: str, content: dict[str, Any]) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        try:
            connection.request("POST", f"/control/{what}", json.dumps(content))
            response = connection.getresponse()
            said = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(said)
        return dict(said)
