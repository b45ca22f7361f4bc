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

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
OURS = sys.executable
_BLOCK_BYTES = 512
"""What the system counts writes in, whatever the disk's own blocks are."""

_NOT_PASSED_ON = ("PYTHONDONTWRITEBYTECODE", "DAGSTER_HOME", "DISTILABEL_CACHE_DIR")
"""An engine that may not keep its compiled files would pay for compiling them at each start; the others name places
outside of the run's own directory."""


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
        written_bytes: what it and its children wrote to the disk, whether or not it's still there.
        failure: why there are no figures, or nothing.
        is_timeout: it was ended since it took too long; `total_s` is the time that it was given.
    """

    total_s: float
    cpu_s: float
    peak_mb: float
    told: dict[str, Any]
    cache_bytes: int
    files: int
    written_bytes: int = 0
    failure: str = ""
    is_timeout: bool = False

    def value(self, name: str) -> float:
        """One figure by name."""
        return float(self.told[name] if name in self.told else getattr(self, name))


def measure(
    command: list[str],
    directory: Path,
    engine: str,
    timeout_s: float,
    env: dict[str, str] | None = None,
    *,
    may_fail: bool = False,
) -> Measured:
    """Run a command to its end, in a session of its own, and measure it.

    Args:
        command: what's run.
        directory: its own; the cache is in it.
        engine: `ours` or `peer`.
        timeout_s: after which it's killed.
        env: variables beside those of this process.
        may_fail: a failure is told in the result, as a timeout is.

    Raises:
        RuntimeError: it failed, and may not.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON} | {
        "BENCHMARK_ENGINE": engine,
        "BENCHMARK_DIRECTORY": str(directory),
        "HF_DATASETS_CACHE": str(directory / "datasets"),
        **(env or {}),
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
        late = f"not done after {timeout_s:.0f} s"
        return Measured(timeout_s, 0.0, 0.0, {}, 0, 0, failure=late, is_timeout=True)
    except BaseException:  # an interrupted bench leaves nothing behind that still runs
        os.killpg(process.pid, 9)
        raise
    total_s = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        if may_fail:
            last = error.strip().rpartition("\n")[2]
            return Measured(total_s, 0.0, 0.0, {}, 0, 0, failure=f"failed: {last[:120]}")
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
        written_bytes=(after.ru_oublock - before.ru_oublock) * _BLOCK_BYTES,
    )


def _read_peak(error: str) -> float:
    """What the workload says of its own peak at its end."""
    lines = [line for line in error.splitlines() if line.startswith("peak_mb ")]
    return float(lines[-1].split()[1]) if lines else 0.0


def measure_in_new_directory(
    commands: list[tuple[list[str], dict[str, str]]],
    engine: str,
    timeout_s: float,
    expected_rows: int | None = None,
) -> list[Measured]:
    """Run commands, each with its variables, one after the other on one new directory, which is removed in the end.

    The peer may fail; what comes after a failure isn't run.

    Args:
        commands: what's run.
        engine: `ours` or `peer`.
        timeout_s: after which one is killed.
        expected_rows: how many rows each has to leave in the cache, where it doesn't look itself.

    Raises:
        RuntimeError: one of ours failed, or left other rows.
    """
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        found: list[Measured] = []
        for command, env in commands:
            (directory / "span").unlink(missing_ok=True)
            found.append(measure(command, directory, engine, timeout_s, env, may_fail=engine == "peer"))
            if found[-1].failure:
                break
            if expected_rows is not None and (rows := count_rows(directory / "cache")) != expected_rows:
                raise RuntimeError(f"{rows} rows are in the cache, {expected_rows} were expected")
        return found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def count_rows(cache: Path) -> int:
    """The rows of the leaf step, of the pipeline that was run last."""
    last = max(cache.glob("*/data"), key=lambda path: path.stat().st_mtime_ns)
    return sum(pq.read_metadata(path).num_rows for path in last.glob("*/*.parquet"))


def build_command(python: str, workload: str, arguments: dict[str, Any]) -> list[str]:
    """The command line of a workload."""
    return [python, "-m", "benchmarks.workloads", workload, json.dumps(arguments)]


def run_module(name: str, *arguments: str) -> dict[str, Any]:
    """Run a module of ours that measures itself; give the JSON of its last line."""
    done = subprocess.run(
        [OURS, "-m", name, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return found
