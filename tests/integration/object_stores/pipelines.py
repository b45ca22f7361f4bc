"""A pipeline whose cache is in an object store; tells which rows each step was given.

python -m tests.integration.object_stores.pipelines

runs it in `$DISTILABEL_CACHE_DIR`, as often as it's called. Each step adds the ids of the rows that it got to
`$SIDE_DIR/<step>.txt`.
"""

import os
import time
from pathlib import Path
from typing import Any

from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep, Step, StepInput

ROWS = 60
BATCH_ROWS = 4


class Numbers(GeneratorStep):
    """Rows 0 to `ROWS`."""

    @property
    def outputs(self) -> list[str]:
        return ["id"]

    def process(self, offset: int = 0) -> Any:
        for start in range(offset, ROWS, BATCH_ROWS):
            yield [{"id": number} for number in range(start, start + BATCH_ROWS)], start + BATCH_ROWS >= ROWS


class Mark(Step):
    """Adds a column of its own name."""

    @property
    def outputs(self) -> list[str]:
        return [self.name]

    def process(self, inputs: StepInput) -> Any:
        if "SIDE_DIR" in os.environ:
            with Path(os.environ["SIDE_DIR"], f"{self.name}.txt").open("a") as file:
                file.writelines(f"{row['id']}\n" for row in inputs)
        time.sleep(float(os.environ.get("BATCH_S", "0")))
        yield [{**row, self.name: f"{self.name} {row['id']}"} for row in inputs]


def build(cache_dir: str | None = None, ledger_url: str | None = None, **options: Any) -> Pipeline:
    """`numbers >> mark >> [left, right]`, with batches that don't align."""
    with Pipeline(
        "stores", cache_dir=cache_dir, ledger_url=ledger_url, storage_options=options or None
    ) as made:
        mark = Mark(name="mark", input_batch_size=7)
        Numbers(name="numbers") >> mark
        mark >> [Mark(name="left", input_batch_size=5), Mark(name="right", input_batch_size=11)]
    return made


def expected(leaf: str) -> list[dict[str, Any]]:
    """What a leaf's rows are."""
    return [{"id": n, "mark": f"mark {n}", leaf: f"{leaf} {n}"} for n in range(ROWS)]


if __name__ == "__main__":
    build(ledger_url=os.environ.get("LEDGER_URL")).run()
