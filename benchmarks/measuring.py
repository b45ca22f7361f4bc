"""A workload in a process of its own: what it took, and what it left."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        total_s: from the start of the process to its end, imports included.
        cpu_s: of it and all its children.
        peak_mb: the most memory of any one process.
        told: what it told itself: `span_s`, `run_s`, …
        cache_bytes: size of the files in its cache.
        files: how many there are.
        is_timeout: it was ended since it took too long.
    """

    total_s: float
    cpu_s: float
    peak_mb: float
    told: dict[str, Any]
    cache_bytes: int
    files: int
    is_timeout: bool = False

    def value(self, name: str) -> float:
        """One figure by name."""
        return float(self.told[name] if name in self.told else getattr(self, name))


def measure(
    command: list[str], directory: Path, engine: str, timeout_s: float, env: dict[str, str] | None = None
) -> Measured:
    """Run a command to its end, in a session of its own, and measure it.

    Raises:
        RuntimeError: it failed.
    """
    environment = {
        **os.environ,
        **(env or {}),
        "BENCHMARK_ENGINE": engine,
        "BENCHMARK_DIRECTORY": str(directory),
        "HF_DATASETS_CACHE": str(directory / "datasets"),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, error = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return Measured(timeout_s, 0.0, 0.0, {}, 0, 0, is_timeout=True)
    total_s = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{error[-2000:]}")
    sizes = [path.stat() for path in (directory / "cache").rglob("*") if path.is_file()]
    inodes = {(each.st_dev, each.st_ino): each.st_size for each in sizes}
    last = out.strip().rpartition("\n")[2]
    return Measured(
        total_s=total_s,
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak_mb=_read_peak(error),
        told=json.loads(last) if last.startswith("{") else {},
        cache_bytes=sum(inodes.values()),
        files=len(inodes),
    )


def _read_peak(error: str) -> float:
    """What the workload says of its own peak at its end."""
    lines = [line for line in error.splitlines() if line.startswith("peak_mb ")]
    return float(lines[-1].split()[1]) if lines else 0.0


def measure_in_new_directory(
    command: list[str], engine: str, timeout_s: float, *, times: int = 1, env: dict[str, str] | None = None
) -> list[Measured]:
    """Run a command so many times on one new directory, which is removed in the end."""
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        found = []
        for _ in range(times):
            (directory / "span").unlink(missing_ok=True)
            found.append(measure(command, directory, engine, timeout_s, env))
        return found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def build_command(python: str, workload: str, arguments: dict[str, Any]) -> list[str]:
    """The command line of a workload."""
    return [python, "-m", "benchmarks.workloads", workload, json.dumps(arguments)]


OURS = sys.executable
