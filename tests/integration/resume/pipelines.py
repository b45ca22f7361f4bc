"""Run as a script: one pipeline, slow enough to be stopped in the middle; tells which rows each step was given.

    python -m tests.integration.resume.pipelines <pipeline> <cache dir>

Each step adds the ids of the rows that it got to `$SIDE_DIR/<step>.txt` before it works on them, so that every
computation is counted, those of a killed process too. How long a batch takes (`$BATCH_S`) is no part of a step, so
that a quick run and a slow one have the same signature. The rows at the end are printed as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from distilabel_dagster.pipeline import Pipeline, routing_batch_function
from distilabel_dagster.steps import (
    GeneratorStep,
    GlobalStep,
    LoadDataFromDicts,
    Step,
    StepInput,
    StepResources,
)

ROWS = 160


def take_note(step: str, ids: list[int]) -> None:
    if os.environ.get("SIDE_DIR"):
        with (Path(os.environ["SIDE_DIR"]) / f"{step}.txt").open("a") as file:
            file.write("".join(f"{each}\n" for each in ids))
    if step != "load":
        time.sleep(float(os.environ.get("BATCH_S", "0")))


class Work(Step):
    """Adds a column, and to every fifth row another one."""

    column: str = "a"

    @property
    def inputs(self):
        return ["id"]

    @property
    def outputs(self):
        return [self.column]

    def process(self, inputs: StepInput):
        take_note(self.name, [row["id"] for row in inputs])
        for row in inputs:
            row[self.column] = f"{self.column}{row['id']}"
            if row["id"] % 5 == 3:
                row[f"{self.column}_extra"] = row["id"] / 2
        yield inputs


class Thin(Step):
    """Leaves every third row out, so that batches are uneven."""

    @property
    def inputs(self):
        return ["id"]

    def process(self, inputs: StepInput):
        take_note(self.name, [row["id"] for row in inputs])
        yield [row for row in inputs if row["id"] % 3]


class Join(Step):
    """Puts the rows of the branches that got a batch together."""

    @property
    def inputs(self):
        return ["id"]

    def process(self, *inputs: StepInput):
        take_note(self.name, [row["id"] for row in inputs[0]])
        yield [
            {name: value for row in rows for name, value in row.items()} for rows in zip(*inputs, strict=True)
        ]


class Count(GlobalStep):
    """Says of each row where it stands among all."""

    @property
    def inputs(self):
        return ["id"]

    @property
    def outputs(self):
        return ["position", "total"]

    def process(self, inputs: StepInput):
        take_note(self.name, [row["id"] for row in inputs])
        yield [{**row, "position": index, "total": len(inputs)} for index, row in enumerate(inputs)]


class Numbers(GeneratorStep):
    """Gives numbers in uneven batches, each with the sum of all before: from an offset on, that has to be made up."""

    total: int = ROWS

    @property
    def outputs(self):
        return ["id", "sum"]

    def process(self, offset: int = 0):
        at, running = offset, sum(range(offset))
        while at < self.total:
            stop = min(at + 3 + at % 3, self.total)
            rows = []
            for number in range(at, stop):
                running += number
                rows.append({"id": number, "sum": running})
            take_note(self.name, list(range(at, stop)))
            at = stop
            yield rows, at == self.total


@routing_batch_function()
def two_of_three(steps: list[str], seq_no: int) -> list[str]:
    left_out = seq_no % 3
    return [name for index, name in enumerate(steps) if index != left_out]


def _load() -> LoadDataFromDicts:
    return LoadDataFromDicts(name="load", data=[{"id": number} for number in range(ROWS)], batch_size=7)


def build_linear(cache_dir: str) -> Pipeline:
    with Pipeline("linear", cache_dir=cache_dir) as pipeline:
        load = Numbers(name="load")
        work = Work(name="work", input_batch_size=4)
        thin = Thin(name="thin", input_batch_size=5)
        leaf = Work(name="leaf", column="b", input_batch_size=4)
        load >> work >> thin >> leaf
    return pipeline


def build_routed(cache_dir: str) -> Pipeline:
    with Pipeline("routed", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"id": number} for number in range(ROWS)], batch_size=8)
        branches = [Work(name=f"work_{each}", column=each, input_batch_size=4) for each in "abc"]
        join = Join(name="join", input_batch_size=4)
        leaf = Work(name="leaf", column="d", input_batch_size=6)
        load >> two_of_three >> branches >> join >> leaf
    return pipeline


def build_two_leaves(cache_dir: str) -> Pipeline:
    """A leaf and a global step share a predecessor."""
    with Pipeline("two_leaves", cache_dir=cache_dir) as pipeline:
        load = _load()
        work = Work(name="work", input_batch_size=4)
        leaf = Work(name="leaf", column="b", input_batch_size=3)
        count = Count(name="count")
        load >> work >> [leaf, count]
    return pipeline


def build_global_step(cache_dir: str) -> Pipeline:
    """A global step in the middle: what follows it is another load stage."""
    with Pipeline("global_step", cache_dir=cache_dir) as pipeline:
        load = _load()
        work = Work(name="work", input_batch_size=8)
        count = Count(name="count")
        leaf = Work(name="leaf", column="b", input_batch_size=2)
        load >> work >> count >> leaf
    return pipeline


def build_replicas(cache_dir: str, replicas: int = 2) -> Pipeline:
    with Pipeline("replicas", cache_dir=cache_dir) as pipeline:
        load = _load()
        work = Work(name="work", input_batch_size=4, resources=StepResources(replicas=replicas))
        leaf = Thin(name="leaf", input_batch_size=4)
        load >> work >> leaf
    return pipeline


BUILDERS: dict[str, Callable[[str], Pipeline]] = {
    "linear": build_linear,
    "routed": build_routed,
    "two_leaves": build_two_leaves,
    "global_step": build_global_step,
    "replicas": build_replicas,
    "no_replicas": partial(build_replicas, replicas=1),
}


def run(pipeline: str, cache_dir: Path, side_dir: Path | None = None) -> dict[str, list[dict[str, Any]]]:
    """Run without delay; give the rows of the leaves."""
    if side_dir is not None:
        os.environ["SIDE_DIR"] = str(side_dir)
    try:
        distiset = BUILDERS[pipeline](str(cache_dir)).run()
    finally:
        os.environ.pop("SIDE_DIR", None)
    return {leaf: distiset[leaf]["train"].to_list() for leaf in sorted(set(distiset) - {"default"})}


if __name__ == "__main__":
    rows = run(sys.argv[1], Path(sys.argv[2]), Path(os.environ["SIDE_DIR"]))
    print("\n" + json.dumps(rows))
