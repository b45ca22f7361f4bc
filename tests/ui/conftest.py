"""One `dagster dev` for all tests of this folder, spoken to as its own web page speaks to it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.orchestration.pipelines import BUILDERS
from tests.orchestration.project import PATIENCE_S, ROOT, Project

_DEFINITIONS = """\
import dagster as dg
from distilabel_dagster import build_definitions
from tests.orchestration.pipelines import BUILDERS

NAMES = ("line", "long_line", "third-line")
defs = dg.Definitions.merge(*(build_definitions(BUILDERS[name]({cache!r})) for name in NAMES))
"""


@dataclass
class Server:
    """A `dagster dev` that's up, and its project."""

    path: Path
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def project(self, pipeline: str) -> Project:
        return Project(self.path, BUILDERS[pipeline](str(self.path / "cache")))

    def set_pace(self, batch_s: float) -> None:
        """From now on a batch takes this long, in whichever process."""
        (self.path / "side" / "batch_s").write_text(str(batch_s))

    def forget_what_was_given(self) -> None:
        """Let the next run begin to count."""
        for file in self.path.glob("side/*.txt"):
            file.unlink()

    def ask(self, query: str, **variables: Any) -> Any:
        """Send a GraphQL request and give its data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.loads(response.read())
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def wait_until(self, is_reached: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := is_reached()):
            assert self.process.poll() is None, self.log.read_text()[-5000:]
            assert time.monotonic() < deadline, f"waited in vain; {self.log.read_text()[-5000:]}"
            time.sleep(0.25)
        return found

    def launch(self, job: str, partition: str, assets: list[list[str]], config: Any = None) -> str:
        """Do what the Materialize button does; give the run's id."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "definitions",
            "pipelineName": job,
            "assetSelection": [{"path": path} for path in assets],
        }
        answer = self.ask(
            _LAUNCH,
            params={
                "selector": selector,
                "mode": "default",
                "runConfigData": json.dumps(config or {}),
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
            },
        )["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def status(self, run_id: str) -> str:
        return str(self.ask(_STATUS, id=run_id)["runOrError"]["status"])

    def wait_for_end(self, run_id: str) -> str:
        ends = ("SUCCESS", "FAILURE", "CANCELED")
        return str(self.wait_until(lambda: status if (status := self.status(run_id)) in ends else None))

    def is_up(self) -> bool:
        try:
            return bool(self.ask("{ version }")["version"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


_LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def serve(path: Path, definitions: str, **environment: str) -> Iterator[Server]:
    """Keep a `dagster dev` up for the length of the block.

    Args:
        path: the project's directory, with its dagster.yaml.
        definitions: its definitions.py.
        environment: what its processes find beside the present environment.
    """
    (path / "definitions.py").write_text(definitions)
    (path / "workspace.yaml").write_text((ROOT / "workspace.yaml").read_text())
    port, log = _free_port(), path / "dev.log"
    inherited = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    inherited |= {"PYTHONPATH": str(ROOT), "SIDE_DIR": str(path / "side")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dagster",
                "dev",
                "-w",
                "workspace.yaml",
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
            ],
            cwd=path,
            env={**inherited, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    made = Server(path, port, process, log)
    try:
        made.wait_until(made.is_up)
        yield made
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left behind, if anything


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("dev") / "project"
    Project.create(path, "line")
    with serve(path, _DEFINITIONS.format(cache=str(path / "cache"))) as made:
        yield made
