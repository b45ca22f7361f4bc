"""Run as a script: the pipeline in child processes that may open so many files more than they have open already.

python -m tests.integration.resources.open_files <cache dir or URL> <number of files>...

The children are copies of one process that has imported all, so that what a number means doesn't hang on the imports. Of
each a line of JSON is printed: the error that it met, and whether a child without a limit went on behind it.
"""

import itertools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets  # noqa: F401  (it's imported at the end of a run)
import fsspec.implementations.memory  # noqa: F401
import pandas as pd  # noqa: F401  (Arrow imports it when it's there)

import distilabel_dagster.ledger.leases  # noqa: F401
from distilabel_dagster.distiset import create_distiset  # noqa: F401
from tests.integration.resources import pipelines

_PATIENCE_S = 120


def in_child(work: Callable[[], Any]) -> dict[str, Any]:
    """Do something in a copy of this process; give what it tells."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            told = {"rows": work(), "error": None}
        except BaseException as error:  # noqa: BLE001  (told to the test)
            told = {"error": type(error).__name__, "module": type(error).__module__, "message": str(error)}
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    until = time.monotonic() + _PATIENCE_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"error": "hung", "module": "", "message": ""}
        time.sleep(0.02)
    with os.fdopen(reading) as pipe:
        told: dict[str, Any] = json.loads(pipe.read() or '{"error": "died", "module": "", "message": ""}')
    return told


def run(cache_dir: str) -> int:
    return int(pipelines.build(cache_dir).run()["turn"]["train"].num_rows)


def run_with(spare: int, cache_dir: str) -> int:
    """Run when just `spare` numbers are free for files."""
    free = (number for number in itertools.count() if not Path(f"/proc/self/fd/{number}").exists())
    limit = next(itertools.islice(free, spare, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return run(cache_dir)


if __name__ == "__main__":
    root, *numbers = sys.argv[1:]
    for number in numbers:
        place = f"{root}/{number}"
        limited = in_child(lambda place=place, number=number: run_with(int(number), place))
        resumed = in_child(lambda place=place: run(place))
        print(json.dumps({"spare": int(number), **limited, "resumed": resumed.get("rows")}), flush=True)
