"""A server that counts every call, and runs against it: in this process, or in others that are killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.pipeline import Pipeline
from tests.integration.generation import pipelines
from tests.llm_server import Call, LLMServer

_ROOT = Path(__file__).parents[3]
PATIENCE_S = 120


@pytest.fixture(scope="session")
def server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMServer]:
    with LLMServer(tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture(scope="session")
def other_server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMServer]:
    with LLMServer(tmp_path_factory.mktemp("other_server")) as served:
        yield served


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(server_process: LLMServer) -> LLMServer:
    server_process.reset()
    return server_process


@pytest.fixture
def other_server(other_server_process: LLMServer) -> LLMServer:
    other_server_process.reset()
    return other_server_process


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@dataclass(frozen=True, slots=True)
class Paid:
    """What a run gave, and the calls that it made."""

    rows: list[dict[str, Any]]
    calls: list[Call]

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows]


Pay = Callable[..., Paid]


@pytest.fixture
def pay(server: LLMServer) -> Pay:
    """Run a pipeline in this process; give its rows and the calls that it made."""

    def run(pipeline: Pipeline, **options: Any) -> Paid:
        before = len(server.calls())
        rows = pipelines.run(pipeline, **options)
        server.wait_until_idle()
        return Paid(rows, server.calls()[before:])

    return run


@dataclass
class Processes:
    """Runs of pipelines in processes of their own."""

    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, pipeline: str, **arguments: Any) -> subprocess.Popen[str]:
        """Start a run in a session of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", pipelines.__name__, pipeline, json.dumps(arguments)],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def wait_for(self, server: LLMServer, is_reached: Callable[[dict[str, int]], bool]) -> None:
        """Wait until the server's state is as wanted, while what was started last runs."""
        process = self.started[-1]
        server.wait_for(lambda state: is_reached(state) or process.poll() is not None)
        assert process.poll() is None, f"ended before it could be stopped: {process.communicate()}"

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill it, so that it can do nothing about it."""
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()}"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def finish(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        """Wait for the end; give the rows."""
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        rows: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
        return rows

    def end_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.end_all()
