"""The pipelines of the crash suite; imported by Dagster and by replicas, and run as a program:

    python -m tests.integration.crash.pipelines <name in SHAPES> <cache dir>

The rows of the leaves are printed as JSON. Each step notes the rows that it's given before it works on them, so that
what killed processes computed counts as well. The environment says what a run meets: see `faults`, and

    BATCH_S          seconds that a batch takes; no part of a step, so that quick and slow runs are one pipeline
    COMMIT_EVERY_S   shortest time between rounds of commits
    HEARTBEAT_S      time between signs of life of who holds a lease
    LEDGER_URL       database of leases and answers, where it isn't beside the cache
    LLM_URL          the server that steps ask
    HEALS_AT         number of the first run in which no batch fails
"""

import json
import os
import sys
import time
import zlib
from typing import Any

from pydantic import SecretStr

from distilabel_dagster.engine import committer
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.models import OpenAILLM
from distilabel_dagster.pipeline import Pipeline, routing_batch_function
from distilabel_dagster.steps import GeneratorStep, GlobalStep, Step, StepInput, StepResources
from distilabel_dagster.steps.tasks import TextGeneration
from tests.integration.crash import faults
from tests.integration.crash.shapes import CAP, SHAPES, STRETCH, TEMPLATES, StepShape

Row = dict[str, Any]

faults.install()
if "COMMIT_EVERY_S" in os.environ:
    # So that short runs have many rounds.
    committer._SHORTEST_S = float(os.environ["COMMIT_EVERY_S"])
if "HEARTBEAT_S" in os.environ:
    Leases.__init__.__kwdefaults__["heartbeat_every_s"] = float(os.environ["HEARTBEAT_S"])


def take_note(step: str, rows: list[Row], *, is_slow: bool = True) -> None:
    """Note what a step was given, and take the time that a batch takes."""
    environment = faults.read_environment()
    if environment is not None:
        lines = "".join(f"{environment.run} {os.getpid()} {row['key']}\n" for row in rows)
        faults.append(environment.notes(step), lines)
    if is_slow:
        time.sleep(float(os.environ.get("BATCH_S", "0")))


def digest(name: str, row: Row) -> int:
    """A number that depends on all that is in a row."""
    there = {column: value for column, value in row.items() if value is not None}
    return zlib.crc32(f"{name} {json.dumps(there, sort_keys=True)}".encode())


class Numbers(GeneratorStep):
    """Gives numbers, each with the sum of all before it: from an offset on, that has to be made up."""

    total: int
    is_uneven: bool = False
    is_slow: bool = False

    @property
    def outputs(self) -> list[str]:
        return ["key", "n", "sum", "text"]

    def process(self, offset: int = 0) -> Any:
        at, running = offset, sum(range(offset))
        while at < self.total:
            size = self.batch_size or 1
            stop = min(at + size + (at % 3 if self.is_uneven else 0), self.total)
            rows = []
            for n in range(at, stop):
                running += n
                text = "the same" if n % 5 == 0 else f"text {n}"
                rows.append({"key": str(n), "n": n, "sum": running, "text": text})
            take_note(self.name, rows, is_slow=self.is_slow)
            at = stop
            yield rows, at == self.total


class Mark(Step):
    """Adds a number made of the whole row; some rows get another column, of which the first come late."""

    @property
    def inputs(self) -> list[str]:
        return ["key"]

    @property
    def outputs(self) -> list[str]:
        return [self.name]

    def process(self, inputs: StepInput) -> Any:
        take_note(self.name, inputs)
        for row in inputs:
            number = digest(self.name, row)
            row[self.name] = number
            if number % 29 == 0:
                row[f"{self.name}_rare"] = number / 2
        yield inputs


class Shaky(Mark):
    """As `Mark`, but in the first runs it fails on batches with some of the rows."""

    def process(self, inputs: StepInput) -> Any:
        if int(os.environ.get("CRASH_RUN", "0")) < int(os.environ.get("HEALS_AT", "0")):
            refused = [row["key"] for row in inputs if row["n"] % 11 == 0]
            if refused:
                raise ValueError(f"not yet: {refused}")
        yield from super().process(inputs)


class Thin(Step):
    """Leaves every other stretch of rows out."""

    @property
    def inputs(self) -> list[str]:
        return ["key"]

    def process(self, inputs: StepInput) -> Any:
        take_note(self.name, inputs)
        yield [row for row in inputs if row["n"] // STRETCH % 2 == 0]


class Expand(Step):
    """Makes none to three rows of each."""

    @property
    def inputs(self) -> list[str]:
        return ["key"]

    @property
    def outputs(self) -> list[str]:
        return ["part"]

    def process(self, inputs: StepInput) -> Any:
        take_note(self.name, inputs)
        for row in inputs:
            yield [{**row, "key": f"{row['key']}.{part}", "part": part} for part in range(row["n"] % 4)]


class Join(Step):
    """Puts rows of several steps together, column by column."""

    @property
    def inputs(self) -> list[str]:
        return ["key"]

    def process(self, *inputs: StepInput) -> Any:
        take_note(self.name, inputs[0])
        yield [
            {name: value for row in rows for name, value in row.items()} for rows in zip(*inputs, strict=True)
        ]


class Total(GlobalStep):
    """Turns the order round, and says of each row where it stood among how many."""

    @property
    def inputs(self) -> list[str]:
        return ["key"]

    @property
    def outputs(self) -> list[str]:
        return ["position", "total"]

    def process(self, inputs: StepInput) -> Any:
        take_note(self.name, inputs)
        count = len(inputs)
        yield [{**row, "position": at, "total": count} for at, row in reversed(list(enumerate(inputs)))]


@routing_batch_function()
def two_of_three(steps: list[str], seq_no: int) -> list[str]:
    """Leave each out in turn."""
    return [name for index, name in enumerate(steps) if index != seq_no % 3]


def build(name: str, cache_dir: str) -> Pipeline:
    """Declare a pipeline of `SHAPES`."""
    shape = SHAPES[name]
    ledger_url = os.environ.get("LEDGER_URL")
    with Pipeline(f"crash-{name}", cache_dir=cache_dir, ledger_url=ledger_url) as pipeline:
        made: dict[str, Any] = {
            "load": Numbers(
                name="load",
                total=shape.rows,
                batch_size=shape.batch_size,
                is_uneven=shape.is_uneven,
                is_slow=shape.is_slow,
            )
        }
        for each in shape.steps:
            made[each.name] = _build_step(each)
            if each.name not in shape.routed:
                [made[before] for before in each.before] >> made[each.name]
        if shape.routed:
            made["load"] >> two_of_three >> [made[each] for each in shape.routed]
    return pipeline


_CLASSES: dict[str, type[Step]] = {
    "mark": Mark,
    "shaky": Shaky,
    "thin": Thin,
    "expand": Expand,
    "join": Join,
}


def _build_step(shape: StepShape) -> Step | GlobalStep:
    if shape.kind == "total":
        return Total(name=shape.name)
    if shape.kind == "ask":
        return _build_task(shape)
    resources = StepResources(replicas=shape.replicas)
    return _CLASSES[shape.kind](name=shape.name, input_batch_size=shape.size, resources=resources)


def _build_task(shape: StepShape) -> TextGeneration:
    template, reads, column = TEMPLATES[shape.name]
    llm = OpenAILLM(
        model="tiny",
        base_url=os.environ.get("LLM_URL", "http://127.0.0.1:9/v1"),
        api_key=SecretStr("sk-loopback"),
        timeout_s=60,
        max_concurrency=CAP,
    )
    return TextGeneration(
        name=shape.name,
        llm=llm,
        template=template,
        columns=reads,
        output_mappings={"generation": column},
        input_batch_size=shape.size,
    )


if __name__ == "__main__":
    chosen, where = sys.argv[1:]
    distiset = build(chosen, where).run()
    print("\n" + json.dumps({leaf: distiset[leaf]["train"].to_list() for leaf in distiset}))
