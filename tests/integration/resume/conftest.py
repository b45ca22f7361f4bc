"""Pipelines in processes of their own, stopped from outside."""

import json
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

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.step_store import StepStore
from tests.integration.resume import pipelines

Rows = dict[str, list[dict[str, Any]]]
_PATIENCE_S = 90
_ROOT = Path(__file__).parents[3]


@dataclass
class Driver:
    """One pipeline, its cache, and what its steps were given."""

    pipeline: str
    cache_dir: Path
    side_dir: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, batch_s: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", pipelines.__name__, self.pipeline, str(self.cache_dir)],
            cwd=_ROOT,
            env={**os.environ, "SIDE_DIR": str(self.side_dir), "BATCH_S": str(batch_s)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def finish(self, pipeline: str | None = None) -> tuple[Rows, list[str]]:
        """Run to the end, in this process; give the rows of the leaves and the messages that the log got."""
        before = len(self.log_lines())
        rows = pipelines.run(pipeline or self.pipeline, self.cache_dir, self.side_dir)
        return rows, [line.split(maxsplit=2)[2] for line in self.log_lines()[before:]]

    def finish_in_new_process(self) -> tuple[Rows, list[str]]:
        """Run to the end; give the rows of the leaves and the log as the terminal shows it."""
        process = self.start(batch_s=0)
        out, err = process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 0, err
        return json.loads(out.splitlines()[-1]), err.splitlines()

    def undisturbed_rows(self, tmp_path: Path) -> Rows:
        """What the pipeline gives in another cache, in one go."""
        pipeline = "no_replicas" if self.pipeline == "replicas" else self.pipeline
        return pipelines.run(pipeline, tmp_path / "undisturbed")

    def stores(self) -> dict[str, StepStore]:
        """What is committed of each step now."""
        fs = CacheFileSystem(self.cache_dir)
        found = {}
        for name in fs.list_names("steps_data"):
            step, _, signature = name.rpartition("_")
            found[step] = StepStore(fs, step, signature)
            found[step].open()
        return found

    def log_lines(self) -> list[str]:
        return [
            line for log in self.cache_dir.glob("*/pipeline.log") for line in log.read_text().splitlines()
        ]

    def given(self, step: str) -> Counter[int]:
        """How often a step was given each row."""
        file = self.side_dir / f"{step}.txt"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()

    def wait_until(self, process: subprocess.Popen[str], is_reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not is_reached():
            assert process.poll() is None, (
                f"the run ended before it could be stopped: {process.communicate()[1]}"
            )
            assert time.monotonic() < deadline, "the run doesn't come on"
            time.sleep(0.02)

    def count_parts(self, step: str) -> int:
        return len(list(self.cache_dir.glob(f"steps_data/{step}_*/?????.parquet")))

    def stop(self, process: subprocess.Popen[str], number: int) -> str:
        """Signal the whole group, as a terminal does, and wait for the end; give what the terminal shows."""
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=_PATIENCE_S)
        return err

    def run_and_stop(self, number: int, step: str, *, parts: int = 2, batch_s: float = 0.05) -> str:
        """Stop a run when `parts` parts of `step` are committed."""
        process = self.start(batch_s)
        self.wait_until(process, lambda: self.count_parts(step) >= parts)
        return self.stop(process, number)


@pytest.fixture
def make_driver(tmp_path: Path) -> Any:
    made: list[Driver] = []

    def make(pipeline: str) -> Driver:
        side_dir = tmp_path / "side"
        side_dir.mkdir()
        made.append(Driver(pipeline, tmp_path / "cache", side_dir))
        return made[-1]

    yield make
    for driver in made:
        for process in driver.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
