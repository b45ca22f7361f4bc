"""One cache, and runs of the same partition in this process and in others."""

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.pipeline import Pipeline
from tests.integration.two_at_once import program

ROOT = Path(__file__).parents[3]
PATIENCE_S = 150
_DEFINITIONS = """\
import dagster as dg
from distilabel_dagster import build_definitions
from tests.integration.two_at_once.program import build, install_pause

install_pause()
defs = build_definitions(build({cache!r}), {options})
"""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Pause:
    """A fault point at which a process stops itself: what stands in what it's about, and the how many-th such time."""

    point: str
    about: str = ""
    nth: int = 1


@dataclass
class Shared:
    """The cache that several runs want.

    Attributes:
        path: a directory with a Dagster project, the cache, and notes of what steps were given.
        processes: those that were started.
    """

    path: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    def build(self) -> Pipeline:
        return program.build(self.cache)

    def set_pace(self, batch_s: float) -> None:
        """From now on a batch takes this long, in whichever process."""
        (self.path / "side" / "batch_s").write_text(str(batch_s))

    def hold(self, row: int = 12) -> None:
        """Let no step go on with rows from this one on."""
        (self.path / "side" / "hold").write_text(str(row))

    def release(self) -> None:
        """Let steps go on."""
        (self.path / "side" / "hold").unlink()

    def start(self, *pauses: "Pause", **options: Any) -> "Started":
        """Start `Pipeline.run` in a process of its own, which stops itself at the given fault points."""
        command = [sys.executable, "-m", program.__name__, json.dumps(options)]
        return self._start(command, ROOT, pauses)

    def start_job(self, *pauses: "Pause", executor: str = "", **options: Any) -> "Started":
        """Start `dagster job execute` in a process of its own."""
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        told = ", ".join(filter(None, [given, f"executor_def={executor}" if executor else ""]))
        (self.path / "definitions.py").write_text(_DEFINITIONS.format(cache=str(self.cache), options=told))
        settings = (ROOT / "dagster.yaml").read_text()
        (self.path / "dagster.yaml").write_text(
            settings.replace("base_dir: .dagster", f"base_dir: {self.path}/.dagster")
        )
        command = [
            *(sys.executable, "-m", "dagster", "job", "execute"),
            *("-m", "definitions", "-j", "shared_job"),
        ]
        return self._start(command, self.path, pauses)

    def _start(self, command: list[str], cwd: Path, pauses: tuple["Pause", ...]) -> "Started":
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RUN_CACHE": str(self.cache)}
        environment["PAUSE_AT"] = json.dumps([dataclasses.astuple(each) for each in pauses])
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return Started(self, process)

    @property
    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.path))

    def latest_run(self) -> dg.DagsterRun:
        return self.instance.get_runs(limit=1)[0]

    def messages(self, run: dg.DagsterRun) -> list[str]:
        """What the run's ops have logged, in order."""
        return [
            entry.user_message for entry in self.instance.all_logs(run.run_id) if not entry.is_dagster_event
        ]

    def stores(self) -> dict[str, StepStore]:
        """What is committed of each step now."""
        fs = CacheFileSystem(str(self.cache))
        found = {}
        for name, signature in self.build().step_signatures.items():
            found[name] = StepStore(fs, name, signature)
            found[name].open()
        return found

    def committed(self) -> dict[str, Rows]:
        return {name: store.read_all().to_pylist() for name, store in self.stores().items()}

    def is_waited_for(self) -> bool:
        """Whether the log of the pipeline says that a run waits."""
        return any(" Waiting: " in log.read_text() for log in self.cache.glob("*/pipeline.log"))

    def release_when_waited_for(self) -> None:
        """Let steps go on as soon as another run waits for that."""

        def release() -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not self.is_waited_for() and time.monotonic() < deadline:
                time.sleep(0.05)
            self.release()

        threading.Thread(target=release, daemon=True).start()

    def check_rows(self) -> None:
        """Make sure that the rows are those of a run that nobody disturbed."""
        alone = program.build(self.path / "alone")
        assert not (self.path / "side" / "hold").exists()
        side = os.environ.pop("SIDE_DIR")
        alone.run()
        os.environ["SIDE_DIR"] = side
        stores = alone.open_cache().stores
        for store in stores.values():
            store.open()
        assert self.committed() == {name: store.read_all().to_pylist() for name, store in stores.items()}

    def given(self, step: str) -> Counter[int]:
        """How often a step was given each row, in all processes."""
        file = self.path / "side" / f"{step}.txt"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()

    def check_given_once(self) -> None:
        for step in ("scale", "leaf"):
            assert self.given(step) == Counter(range(program.ROWS)), (
                f"`{step}` was computed twice, or not at all"
            )

    def change_leases(self, change: str) -> None:
        """Change the leases in the ledger, as SQL's UPDATE says it."""
        with closing(sqlite3.connect(self.cache / "ledger.sqlite", timeout=60)) as ledger, ledger:
            ledger.execute(f"UPDATE leases SET {change} WHERE key LIKE 'steps_data/%'")

    def let_leases_expire(self) -> None:
        """Make the holders' silence an hour long."""
        self.change_leases("heartbeat = heartbeat - 3600, uptime = uptime - 3600")

    def kill_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@dataclass
class Started:
    """A run in a process of its own."""

    shared: Shared
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until(self, is_reached: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached():
            assert self.process.poll() is None, f"ended too early: {self.process.communicate()}"
            assert time.monotonic() < deadline, "the run doesn't come on"
            time.sleep(0.02)

    def wait_for_rows(self, step: str = "scale") -> None:
        """Wait until a step has committed some rows."""
        self.wait_until(lambda: self.shared.stores()[step].records)

    def wait_for_pause(self) -> int:
        """Wait until a process of the run has stopped itself; give its number."""
        note = self.shared.path / "side" / "paused"
        self.wait_until(lambda: note.exists() and note.read_text())
        pid = int(note.read_text())
        self.wait_until(lambda: read_state(pid) == "T")
        note.unlink()
        return pid

    def wake(self) -> None:
        """Let what has stopped itself go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def finish(self) -> Any:
        """Wait for the end; give the rows, or what the error says."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def finish_job(self) -> str:
        """Wait for the end of a job, whatever it is; give what the terminal shows."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return out + err

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self.process.communicate()


def read_state(pid: int) -> str:
    """The state of a process: R, S, T (stopped), Z …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    made = Shared(tmp_path / "shared")
    (made.path / "side").mkdir(parents=True)
    monkeypatch.setenv("SIDE_DIR", str(made.path / "side"))
    made.set_pace(0.0)
    yield made
    made.kill_all()
