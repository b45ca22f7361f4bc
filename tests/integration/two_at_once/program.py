"""A run in a process of its own, which pauses itself where the environment says so.

    python -m tests.integration.two_at_once.program <options of Pipeline.run as JSON>

`RUN_CACHE` is the cache. `PAUSE_AT` is a list, as JSON, of fault points, each with what stands in what it's about and the
how many-th such time is meant, from 1: there, one after another, the process notes its number in `$SIDE_DIR/paused` and
stops itself as by SIGSTOP. The rows of the leaf, or the error, are printed as JSON in the end.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from distilabel_dagster.base import fault_points
from distilabel_dagster.errors import StepInUseError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts, StepInput
from tests.orchestration.pipelines import Scale

ROWS = 30


class Held(Scale):
    """Doesn't go on with rows from the one on that `$SIDE_DIR/hold` names, while that file is there."""

    def process(self, inputs: StepInput) -> Any:
        hold = Path(os.environ.get("SIDE_DIR", "/nowhere")) / "hold"
        while hold.exists() and inputs[-1]["id"] >= int(hold.read_text() or ROWS):
            time.sleep(0.02)
        yield from super().process(inputs)


def build(cache_dir: str | Path) -> Pipeline:
    """`load >> scale >> leaf`, ten batches each."""
    with Pipeline("shared", cache_dir=str(cache_dir)) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"id": number} for number in range(ROWS)], batch_size=3)
        scale = Held(name="scale", input_batch_size=3)
        load >> scale >> Held(name="leaf", column="again", input_batch_size=3)
    return pipeline


def read_leaf(distiset: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = distiset["leaf"]["train"].to_list()
    return rows


def install_pause() -> None:
    """Have this process pause where the environment says so, once."""
    left = json.loads(os.environ.get("PAUSE_AT", "[]"))
    if not left:
        return
    note = Path(os.environ["SIDE_DIR"]) / "paused"
    lock = threading.Lock()
    seen = 0

    def pause(reached: str, of: str) -> None:
        nonlocal seen
        with lock:
            if not left or reached != left[0][0] or left[0][1] not in of:
                return
            seen += 1
            if seen != left[0][2]:
                return
            seen = 0
            left.pop(0)
            note.write_text(str(os.getpid()))
            # To this thread, which then doesn't get a step further; by `os.kill` another one may be told first.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    fault_points.install(pause)


if __name__ == "__main__":
    install_pause()
    try:
        made: Any = read_leaf(build(os.environ["RUN_CACHE"]).run(**json.loads(sys.argv[1])))
    except StepInUseError as error:
        made = {"error": str(error), "pid": error.pid, "host": error.host}
    print("\n" + json.dumps(made))
