"""Runs in sessions of their own that are told to stop, and what is left of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.integration.stopping import pipelines
from tests.llm_server import LLMServer
from tests.process_sessions import killed_afterwards, wait_for_empty_session

ROOT = Path(__file__).parents[3]
PATIENCE_S = 150.0
GRACE_S = 1.0
_DEFINITIONS = """\
import dagster as dg
from distilabel_dagster import build_definitions
from tests.integration.stopping.pipelines import BUILDERS

defs = build_definitions(BUILDERS[{name!r}]({cache!r}), {options})
"""
_CONFIG = """\
resources: {{{name}_distilabel: {{config: {{grace_period_s: {grace_s}}}}}}}
"""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        after_s: seconds from the signal to the end of the last of its processes.
    """

    returncode: int
    after_s: float
    terminal: str


@dataclass
class Stoppable:
    """A pipeline in a directory of its own, with a cache and a Dagster project."""

    path: Path
    name: str = "hanging"
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def cache(self) -> str:
        return str(self.path / "cache")

    def hangs(self) -> bool:
        return (self.path / "side" / "hangs").exists()

    def environment(self, hang_in: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SIDE_DIR": str(self.path / "side"),
            "HANG_IN": hang_in,
        }

    def start(self, hang_in: str = "", *, grace_s: float = GRACE_S) -> "subprocess.Popen[str]":
        """Start it in plain Python."""
        command = [sys.executable, "-m", pipelines.__name__, self.name, self.cache, str(grace_s)]
        return self._start(command, ROOT, hang_in)

    def start_job(
        self, hang_in: str = "", *, executor: str = "", grace_s: float = GRACE_S
    ) -> "subprocess.Popen[str]":
        """Start it as `dagster job execute`."""
        options = f"executor_def={executor}" if executor else ""
        (self.path / "definitions.py").write_text(
            _DEFINITIONS.format(name=self.name, cache=self.cache, options=options)
        )
        pipeline = pipelines.BUILDERS[self.name](self.cache).name
        (self.path / "config.yaml").write_text(_CONFIG.format(name=pipeline, grace_s=grace_s))
        settings = (ROOT / "dagster.yaml").read_text()
        (self.path / "dagster.yaml").write_text(
            settings.replace("base_dir: .dagster", f"base_dir: {self.path}/.dagster")
        )
        command = [*(sys.executable, "-m", "dagster", "job", "execute"), *("-m", "definitions")]
        return self._start([*command, "-j", f"{pipeline}_job", "-c", "config.yaml"], self.path, hang_in)

    def start_command(self, hang_in: str = "") -> "subprocess.Popen[str]":
        """Start it by the command line; its grace period is 30 s."""
        pipelines.BUILDERS[self.name](self.cache).save(self.path / "pipeline.yaml", overwrite=True)
        program = str(Path(sys.executable).with_name("distilabel-dagster"))
        options = ["--trusted-module", pipelines.__name__, "--cache-dir", self.cache]
        command = [program, "pipeline", "run", "--config", str(self.path / "pipeline.yaml"), *options]
        return self._start(command, self.path, hang_in)

    def _start(self, command: list[str], cwd: Path, hang_in: str) -> "subprocess.Popen[str]":
        output = (self.path / "terminal").open("w")
        self.stack.enter_context(output)
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=self.environment(hang_in),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.stack.enter_context(killed_afterwards(process.pid))
        return process

    def terminal(self) -> str:
        return (self.path / "terminal").read_text()

    def wait_until(self, process: "subprocess.Popen[str]", is_reached: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached():
            assert process.poll() is None, f"ended too early: {self.terminal()}"
            assert time.monotonic() < deadline, f"doesn't come on: {self.terminal()}"
            time.sleep(0.02)

    def stop(
        self,
        process: "subprocess.Popen[str]",
        number: int = signal.SIGINT,
        *,
        times: int = 1,
        to_all: bool = False,
    ) -> Ended:
        """Send a signal, again each second if it's to come more often, and wait until no process is left."""
        begun = time.monotonic()
        for count in range(times):
            if count:
                time.sleep(1.0)
            if process.poll() is None:
                (os.killpg if to_all else os.kill)(process.pid, number)
        process.wait(PATIENCE_S)
        wait_for_empty_session(process.pid, PATIENCE_S)
        return Ended(process.returncode, time.monotonic() - begun, self.terminal())

    def latest_run(self) -> dg.DagsterRun:
        return dg.DagsterInstance.from_config(str(self.path)).get_runs(limit=1)[0]

    def check_resume(self) -> None:
        """Run to the end in this process, and compare with a run that nobody stopped."""
        build = pipelines.build_plain if self.name == "replicated" else pipelines.BUILDERS[self.name]
        rows = pipelines.run(build(self.cache), 30.0)
        assert rows == pipelines.run(build(self.path / "undisturbed"), 30.0)


@pytest.fixture
def stoppable(tmp_path: Path) -> Iterator[Stoppable]:
    made = Stoppable(tmp_path / "run")
    (made.path / "side").mkdir(parents=True)
    with made.stack:
        yield made


@pytest.fixture(scope="session")
def server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMServer]:
    with LLMServer(tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture
def server(server_process: LLMServer, monkeypatch: pytest.MonkeyPatch) -> LLMServer:
    server_process.reset()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    monkeypatch.setenv("OPENAI_BASE_URL", server_process.url)
    return server_process
