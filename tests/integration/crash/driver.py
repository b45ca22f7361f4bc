"""One run of a history: how it's started, and what befalls it."""

import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.integration.crash import definitions_name, pipelines_name
from tests.integration.crash.faults import Blow, Environment, describe
from tests.integration.crash.plans import Disturbance, FromOutside, Plan, Way
from tests.integration.crash.processes import PATIENCE_S, RunningGroup
from tests.integration.crash.stores import ROOT, CachePlace

_BETWEEN_SIGNALS_S: Final = 0.7
"""Signals nearer together count as one."""
_SIGNALS: Final = {
    "kill_group": signal.SIGKILL,
    "kill_main": signal.SIGKILL,
    "terminate": signal.SIGTERM,
    "interrupt": signal.SIGINT,
}
_FOREIGN: Final = ("AWS_", "DAGSTER_", "DISTILABEL_", "CRASH_", "HF_", "OPENAI_", "PYTEST_")


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended.

    Attributes:
        returncode: of its main process; below 0 for the signal that killed it.
        out: what it printed.
        err: what it said.
        is_hung: whether it had to be ended from outside.
        was_struck: whether its disturbance came before its end.
    """

    returncode: int
    out: str
    err: str
    is_hung: bool
    was_struck: bool

    @property
    def was_stopped_cleanly(self) -> bool:
        """Whether it was told to stop, and says that it has."""
        told = self.out + self.err
        return "Stop requested (SIG" in told and "Stopped. Not finished" in told and self.returncode != -9


@dataclass
class Driver:
    """Starts the runs of one history.

    Args:
        plan: the history.
        directory: all that belongs to it, but for a cache in a store.
        place: its cache.
        llm_url: the server that its steps ask.
    """

    plan: Plan
    directory: Path
    place: CachePlace
    llm_url: str = ""
    groups: list[RunningGroup] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = (ROOT / "dagster.yaml").read_text()
        (self.directory / "dagster.yaml").write_text(
            settings.replace("base_dir: .dagster", f"base_dir: {self.directory}/.dagster")
        )

    def note_file(self, run: int) -> Environment:
        """Where the processes of a run note what they do."""
        return Environment(self.directory, run)

    def run(self, number: int, disturbance: Disturbance | None) -> RunEnd:
        """Run once; disturbed, or to the end."""
        cause = disturbance.cause if disturbance is not None else None
        group = RunningGroup.start(
            self._command(number),
            self.directory,
            self._environment(number, cause if isinstance(cause, Blow) else None),
            self.directory / f"run-{number}",
        )
        self.groups.append(group)
        was_struck = self._strike(group, number, cause) if isinstance(cause, FromOutside) else False
        has_ended = group.finish()
        return RunEnd(
            returncode=group.process.returncode,
            out=group.out.read_text(errors="replace"),
            err=group.err.read_text(errors="replace"),
            is_hung=not has_ended,
            was_struck=was_struck or self.note_file(number).fired.exists(),
        )

    def _way(self, number: int) -> Way:
        """A job's second run is a plain one: the cache is the same."""
        return "run" if self.plan.way == "job" and number % 2 else self.plan.way

    def _command(self, number: int) -> list[str]:
        if self._way(number) == "run":
            return [sys.executable, "-m", pipelines_name, self.plan.pipeline, self.place.url]
        job = f"crash_{self.plan.pipeline}_job"
        return [sys.executable, "-m", "dagster", "job", "execute", "-m", definitions_name, "-j", job]

    def _environment(self, number: int, blow: Blow | None) -> dict[str, str]:
        shape = self.plan.shape
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        made = {
            **kept,
            **self.place.environment,
            "HOME": str(self.directory),
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
            "DAGSTER_HOME": str(self.directory),
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "CRASH_DIR": str(self.directory),
            "CRASH_RUN": str(number),
            "CRASH_AT": describe(blow),
            "CRASH_PIPELINE": self.plan.pipeline,
            "CRASH_CACHE": self.place.url,
            "CRASH_EXECUTOR": self._way(number),
            "BATCH_S": str(shape.batch_s),
            "COMMIT_EVERY_S": "0.05" if self.plan.store == "local" else "0.3",
            "HEARTBEAT_S": "0.3",
            "LLM_URL": self.llm_url,
            "HEALS_AT": str(self.plan.heals_at),
        }
        if self.plan.store == "s3" and self.plan.has_ledger:
            made["LEDGER_URL"] = str(self.directory / "ledger.sqlite")
        return made

    def _strike(self, group: RunningGroup, number: int, cause: FromOutside) -> bool:
        """Send what is planned when it's time; tell whether the run was still on."""
        notes = self.note_file(number)
        if not cause.is_early:
            group.wait(notes.points.exists, PATIENCE_S)
        group.wait(lambda: False, cause.after_s)
        if group.has_ended():
            return False
        if cause.what == "kill_worker":
            return self._kill_worker(group, number)
        for time_number in range(cause.times):
            if time_number:
                time.sleep(_BETWEEN_SIGNALS_S)
            group.signal(_SIGNALS[cause.what], to_group=cause.to_group)
        return True

    def _kill_worker(self, group: RunningGroup, number: int) -> bool:
        """Kill a process that was given rows and isn't the main one."""
        group.wait(lambda: bool(self._workers(group, number)), PATIENCE_S)
        workers = self._workers(group, number)
        for worker in workers[-1:]:
            try:
                os.kill(worker, signal.SIGKILL)
            except ProcessLookupError:
                return False
        return bool(workers)

    def _workers(self, group: RunningGroup, number: int) -> list[int]:
        found = set()
        for path in self.directory.glob("notes-*.txt"):
            for line in path.read_text().splitlines():
                run, pid, _ = line.split(" ")
                if int(run) == number:
                    found.add(int(pid))
        return sorted(found - {group.process.pid})

    def harm_part(self, chosen: int) -> str | None:
        """Cut the second half of a part off; give its step, or None where there's no part yet."""
        files = self.place.read_files()
        parts = [path for path in files if path.startswith("steps_data/") and _is_part(path)]
        if not parts:
            return None
        path = random.Random(chosen).choice(parts)
        self.place.write_file(path, files[path][: len(files[path]) // 2])
        return path.split("/")[1].rpartition("_")[0]

    def close(self) -> None:
        """Kill what still runs."""
        for group in self.groups:
            if not group.has_ended():
                group.signal(signal.SIGKILL, to_group=True)
                group.process.wait()


def _is_part(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith(".parquet") and name[:5].isdigit()
