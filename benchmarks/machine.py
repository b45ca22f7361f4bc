"""What it was measured on."""

import datetime as dt
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_CPU = Path("/proc/cpuinfo")


def describe_machine(peer_python: str | None) -> dict[str, Any]:
    """Cores, versions, the date, and how busy it is as measuring begins."""
    return {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "commit": _read_commit(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _read_cpu(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "pyarrow": metadata.version("pyarrow"),
        "dagster": metadata.version("dagster"),
        "distilabel": _read_peer_version(peer_python) if peer_python else None,
        "peer_packages": _list_packages(peer_python) if peer_python else [],
        "load_at_begin": read_load(),
        "load_at_end": None,
    }


def read_load() -> list[float]:
    """Load averages of the last 1, 5 and 15 minutes."""
    return [round(each, 2) for each in os.getloadavg()]


def _read_commit() -> str | None:
    """The commit that's measured, with a + where files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _list_packages(python: str) -> list[str]:
    command = [python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _read_cpu() -> str:
    lines = _CPU.read_text().splitlines() if _CPU.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _read_peer_version(python: str) -> str:
    code = "from importlib.metadata import version; print(version('distilabel'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
