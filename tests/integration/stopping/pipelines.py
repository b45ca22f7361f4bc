"""Pipelines whose steps hang where the environment says so; run as a program in processes of their own.

    python -m tests.integration.stopping.pipelines <name in BUILDERS> <cache dir> <grace period in s>

`HANG_IN`, or the file `$SIDE_DIR/hang_in`, names the place. What hangs makes the file `$SIDE_DIR/hangs` first. None of it is part of a step, so a run that
hangs and one that doesn't have the same signature.
"""

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from distilabel_dagster.engine.events import RunStopped, StepFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import IncompleteRunError
from distilabel_dagster.models import OpenAILLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.pipeline.run_log import show_log_on_terminal
from distilabel_dagster.steps import GeneratorStep, LoadDataFromDicts, Step, StepInput, StepResources
from distilabel_dagster.steps.tasks import TextGeneration

ROWS = 40


def hangs_in(place: str) -> bool:
    side = Path(os.environ.get("SIDE_DIR", "/nowhere"))
    told = (side / "hang_in").read_text() if (side / "hang_in").exists() else os.environ.get("HANG_IN")
    if told != place:
        return False
    (side / "hangs").touch()
    return True


def hang_for_ever() -> None:
    while True:
        time.sleep(1000)


class Numbers(GeneratorStep):
    """Rows with a number."""

    @property
    def outputs(self) -> list[str]:
        return ["id", "text"]

    def process(self, offset: int = 0) -> Any:
        for at in range(offset, ROWS, 4):
            if at >= ROWS / 2 and hangs_in("generator"):
                hang_for_ever()
            yield [{"id": number, "text": f"text {number}"} for number in range(at, at + 4)], at + 4 >= ROWS


class Work(Step):
    """Adds a column; hangs in its second half."""

    @property
    def inputs(self) -> list[str]:
        return ["id"]

    @property
    def outputs(self) -> list[str]:
        return ["done"]

    def load(self) -> None:
        super().load()
        if hangs_in("load"):
            hang_for_ever()

    def unload(self) -> None:
        if hangs_in("unload"):
            hang_for_ever()

    def process(self, inputs: StepInput) -> Any:
        if inputs[0]["id"] >= ROWS / 2:
            if hangs_in("process"):
                hang_for_ever()
            if hangs_in("C code"):
                while True:
                    ctypes.CDLL(None).sleep(1000)
            if hangs_in("C code with the GIL"):
                while True:
                    ctypes.PyDLL(None).sleep(1000)
            if hangs_in("a lock"):
                threading.Lock().acquire()
                lock = threading.Lock()
                lock.acquire()
                lock.acquire()
            if hangs_in("threads of its own"):
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(lambda _: hang_for_ever(), range(2)))
        yield [{**row, "done": row["id"] * 2} for row in inputs]


def build_plain(cache_dir: str | Path, replicas: int = 1) -> Pipeline:
    """`load >> work >> after`."""
    with Pipeline("hanging", cache_dir=str(cache_dir)) as pipeline:
        work = Work(name="work", input_batch_size=4, resources=StepResources(replicas=replicas))
        Numbers(name="load", batch_size=4) >> work
    return pipeline


def build_replicated(cache_dir: str | Path) -> Pipeline:
    """The same, with two processes for `work`."""
    return build_plain(cache_dir, 2)


def build_asking(cache_dir: str | Path) -> Pipeline:
    """`load >> ask >> answer`: two tasks that ask the server that `$OPENAI_BASE_URL` names about `$ASKING_ROWS` rows."""
    rows = int(os.environ["ASKING_ROWS"])
    model = OpenAILLM(model="tiny", max_concurrency=8, max_retries=2)
    with Pipeline("asking", cache_dir=str(cache_dir)) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"text": f"text {number}"} for number in range(rows)])
        ask = TextGeneration(
            name="ask",
            llm=model,
            template="Ask about {{ text }}",
            columns="text",
            output_mappings={"generation": "question"},
            input_batch_size=10,
        )
        answer = TextGeneration(
            name="answer",
            llm=model,
            template="Answer {{ question }}",
            columns="question",
            input_batch_size=10,
        )
        load >> ask >> answer
    return pipeline


BUILDERS: dict[str, Callable[[str | Path], Pipeline]] = {
    "hanging": build_plain,
    "replicated": build_replicated,
    "asking": build_asking,
}


def run(pipeline: Pipeline, grace_period_s: float) -> list[dict[str, Any]]:
    """Run; give the rows of the last step. As `Pipeline.run`, with a grace period of one's own."""
    cache = pipeline.open_cache()
    stopped = None
    for event in pipeline.iter_run(RunOptions(grace_period_s=grace_period_s), cache=cache):
        if isinstance(event, StepFinished):
            cache.seal_step(event.step)
        elif isinstance(event, RunStopped):
            stopped = event
    if stopped is not None:
        raise IncompleteRunError(str(stopped))
    rows: list[dict[str, Any]] = cache.stores[pipeline.leaf_steps[0]].read_all().to_pylist()
    return rows


if __name__ == "__main__":
    show_log_on_terminal()
    made = run(BUILDERS[sys.argv[1]](sys.argv[2]), float(sys.argv[3]))
    print("\n" + json.dumps(made))
