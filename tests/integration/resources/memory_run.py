"""Run as a script: rows of 1 KB through four steps; prints what memory that took, as JSON.

python -m tests.integration.resources.memory_run <cache dir> <rows> <rows of a batch> <way>

Ways: `run` is `Pipeline.run`, up to the Distiset; `sequential` has a stage for each step. Before that a small pipeline is
run, so that what is imported and set up counts as idle. In megabytes: `idle_mb` and `peak_mb` are of the process,
`arrow_mb` is the most that Arrow had allocated.
"""

import json
import random
import resource
import sys
from typing import Any

import pyarrow as pa

from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep, Step, StepInput

TEXT_CHARACTERS = 1000
_TEXT = random.Random(1).randbytes(1 << 22).hex()


class Load(GeneratorStep):
    """Rows with a text of 1000 characters each, which hardly repeat."""

    count: int = 0

    @property
    def outputs(self) -> list[str]:
        return ["id", "text"]

    def process(self, offset: int = 0) -> Any:
        places = len(_TEXT) - TEXT_CHARACTERS
        for start in range(offset, self.count, self.batch_size or 1):
            stop = min(start + (self.batch_size or 1), self.count)
            begins = [(number * 100_003) % places for number in range(start, stop)]
            rows = [
                {"id": start + n, "text": _TEXT[at : at + TEXT_CHARACTERS]} for n, at in enumerate(begins)
            ]
            yield rows, stop == self.count


class Turn(Step):
    """Puts the first character last."""

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    def process(self, inputs: StepInput) -> Any:
        yield [{**row, "text": row["text"][1:] + row["text"][0]} for row in inputs]


def build(cache_dir: str, rows: int, batch_rows: int) -> Pipeline:
    with Pipeline("memory", cache_dir=cache_dir) as pipeline:
        last: Any = Load(name="load", count=rows, batch_size=batch_rows)
        for number in range(3):
            last = last >> Turn(name=f"turn_{number}", input_batch_size=batch_rows)
    return pipeline


def measure_peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    cache_dir, rows, batch_rows, way = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    groups: Any = "sequential_step_execution" if way == "sequential" else None
    build(f"{cache_dir}/idle", 2 * batch_rows, batch_rows).run(load_groups=groups)
    idle_mb = measure_peak_mb()
    distiset = build(f"{cache_dir}/cache", rows, batch_rows).run(load_groups=groups)
    train = distiset["turn_2"]["train"]
    told = {
        "idle_mb": idle_mb,
        "peak_mb": measure_peak_mb(),
        "arrow_mb": pa.default_memory_pool().max_memory() / 2**20,
        "rows": train.num_rows,
        "last": train[-1],
    }
    print(json.dumps(told))
