"""A user's project in a directory of its own, run by Dagster's command line."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.pipeline import Pipeline
from tests.orchestration.pipelines import BUILDERS

ROOT = Path(__file__).parents[2]
PATIENCE_S = 150
_DEFINITIONS = """\
import dagster as dg
from distilabel_dagster import build_definitions
from tests.orchestration.pipelines import BUILDERS

defs = build_definitions(BUILDERS[{pipeline!r}]({cache!r}), {options})
"""


@dataclass
class Project:
    """Definitions, an instance as the project's own dagster.yaml makes it, a cache, and what steps were given."""

    path: Path
    pipeline: Pipeline
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @classmethod
    def create(cls, path: Path, pipeline: str, options: str = "") -> "Project":
        (path / "side").mkdir(parents=True)
        cache = str(path / "cache")
        (path / "definitions.py").write_text(
            _DEFINITIONS.format(pipeline=pipeline, cache=cache, options=options)
        )
        settings = (ROOT / "dagster.yaml").read_text()
        (path / "dagster.yaml").write_text(
            settings.replace("base_dir: .dagster", f"base_dir: {path}/.dagster")
        )
        return cls(path, BUILDERS[pipeline](cache))

    @property
    def job_name(self) -> str:
        return f"{self.pipeline.name.replace('-', '_')}_job"

    def start(self, batch_s: float = 0.0, *arguments: str) -> subprocess.Popen[str]:
        command = arguments or ("job", "execute", "-m", "definitions", "-j", self.job_name)
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", *command],
            cwd=self.path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "SIDE_DIR": str(self.path / "side"),
                "BATCH_S": str(batch_s),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> str:
        """Run to the end; give what the terminal shows."""
        process = self.start(0.0, *arguments)
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, out
        return out

    def run_and_stop(
        self, number: int, step: str, *, parts: int = 2, batch_s: float = 0.1, whole_group: bool = True
    ) -> str:
        """Stop a run when `parts` parts of `step` are committed; give what the terminal shows."""
        process = self.start(batch_s)
        self.wait_until(process, lambda: self.count_parts(step) >= parts)
        (os.killpg if whole_group else os.kill)(process.pid, number)
        out, _ = process.communicate(timeout=PATIENCE_S)
        return out

    def wait_until(self, process: subprocess.Popen[str], is_reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached():
            assert process.poll() is None, f"ended before it could be stopped: {process.communicate()[0]}"
            assert time.monotonic() < deadline, "the run doesn't come on"
            time.sleep(0.02)

    def count_parts(self, step: str) -> int:
        directory = f"{step}_{self.pipeline.step_signatures[step]}"
        return len(list(self.path.glob(f"cache/steps_data/{directory}/?????.parquet")))

    def stores(self) -> dict[str, StepStore]:
        """What is committed of each step now."""
        fs = CacheFileSystem(str(self.path / "cache"))
        found = {}
        for name, signature in self.pipeline.step_signatures.items():
            found[name] = StepStore(fs, name, signature)
            found[name].open()
        return found

    def committed_rows(self) -> dict[str, list[dict[str, Any]]]:
        return {name: store.read_all().to_pylist() for name, store in self.stores().items()}

    def given(self, step: str) -> Counter[int]:
        file = self.path / "side" / f"{step}.txt"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()

    @property
    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.path))

    def messages(self, run: dg.DagsterRun) -> list[str]:
        """What the run's ops have logged, in order."""
        return [
            entry.user_message for entry in self.instance.all_logs(run.run_id) if not entry.is_dagster_event
        ]

    def latest_run(self) -> dg.DagsterRun:
        return self.instance.get_runs(limit=1)[0]

    def materialized(self, run: dg.DagsterRun) -> dict[str, dict[str, Any]]:
        """Step or `distiset` -> metadata, of what the run materialized."""
        records = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        found = {}
        for record in records:
            made = record.asset_materialization
            assert made is not None
            assert made.partition == self.pipeline.signature
            found[made.asset_key.path[-1]] = {name: value.value for name, value in made.metadata.items()}
        return found

    def undisturbed_rows(self, path: Path) -> dict[str, list[dict[str, Any]]]:
        """What the steps give in another cache, in one go."""
        other = BUILDERS[self.pipeline.name](str(path))
        other.run()
        stores = other.open_cache().stores
        for store in stores.values():
            store.open()
        return {name: store.read_all().to_pylist() for name, store in stores.items()}

    def kill_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
