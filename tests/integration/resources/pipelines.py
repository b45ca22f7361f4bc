"""A pipeline that fills a disk, whichever way it's run; tells which rows each step was given.

Each step adds the ids of the rows that it got to `$SIDE_DIR/<step>.txt` before it works on them, so that every
computation is counted, those of a run that failed too. How long a batch takes (`$BATCH_S`) is no part of a step.
`$REPLICAS` says how many processes `large` gets,
`$FAULTS` makes the process meet errors of the system at named moments, see `faults`; `$OPEN_FILES` says how many files it
may open from the third batch of `large` on.
"""

import os
import random
import resource
import time
from pathlib import Path
from typing import Any

from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep, Step, StepInput, StepResources
from tests.integration.resources import faults

ROWS = 120
BATCH_ROWS = 5
ROW_BYTES = 8 * 1024

faults.install_from_environment()


def note(step: str, rows: list[dict[str, Any]]) -> None:
    if "SIDE_DIR" in os.environ:
        with Path(os.environ["SIDE_DIR"], f"{step}.txt").open("a") as file:
            file.writelines(f"{row['id']}\n" for row in rows)


class Load(GeneratorStep):
    """Rows 0 to `ROWS`."""

    @property
    def outputs(self) -> list[str]:
        return ["id"]

    def process(self, offset: int = 0) -> Any:
        for start in range(offset, ROWS, BATCH_ROWS):
            yield [{"id": number} for number in range(start, start + BATCH_ROWS)], start + BATCH_ROWS >= ROWS


class Large(Step):
    """Adds 8 KiB of text, which compress to a half of that."""

    @property
    def outputs(self) -> list[str]:
        return ["text"]

    def process(self, inputs: StepInput) -> Any:
        note(self.name, inputs)
        time.sleep(float(os.environ.get("BATCH_S", "0")))
        if inputs[0]["id"] == 2 * BATCH_ROWS and "OPEN_FILES" in os.environ:
            limit = int(os.environ["OPEN_FILES"])
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        yield [{**row, "text": random.Random(row["id"]).randbytes(ROW_BYTES // 2).hex()} for row in inputs]


class Turn(Step):
    """Turns the text round."""

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    def process(self, inputs: StepInput) -> Any:
        note(self.name, inputs)
        yield [{**row, "text": row["text"][::-1]} for row in inputs]


def build(cache_dir: str | None = None) -> Pipeline:
    """`load >> large >> turn`, 24 batches, 1 MB a step; in `$DISTILABEL_CACHE_DIR` by default."""
    replicas = int(os.environ.get("REPLICAS", "1"))
    with Pipeline("resources", cache_dir=cache_dir) as pipeline:
        (
            Load(name="load")
            >> Large(name="large", input_batch_size=BATCH_ROWS, resources=StepResources(replicas=replicas))
            >> Turn(name="turn", input_batch_size=BATCH_ROWS)
        )
    return pipeline
