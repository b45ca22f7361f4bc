"""Steps that do what steps shouldn't."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep, GlobalStep, LoadDataFromDicts, Step, StepInput


class Odd(Step):
    """Gives what `make` makes of a batch."""

    make: ClassVar[Callable[[list[dict[str, Any]]], Any]]
    code_version: str | None = "0"

    @property
    def outputs(self):
        return ["made"]

    def process(self, inputs: StepInput):
        yield type(self).make(inputs)


class Broken(Step):
    """Fails on a batch that holds one of `on`; keeps a list of the batches that it got."""

    on: ClassVar[set[int]] = set()
    batches: ClassVar[list[list[int]]] = []

    @property
    def inputs(self):
        return ["id"]

    @property
    def outputs(self):
        return ["text"]

    def process(self, inputs: StepInput):
        ids = [row["id"] for row in inputs]
        self.batches.append(ids)
        if self.on & set(ids):
            raise ConnectionError(f"no answer for {min(self.on & set(ids))}")
        yield [{**row, "text": f"t{row['id']}"} for row in inputs]


class Collect(GlobalStep):
    def process(self, inputs: StepInput):
        yield inputs


class BrokenGlobal(GlobalStep):
    def process(self, inputs: StepInput):
        raise ZeroDivisionError("global")
        yield inputs


class Pulled(GeneratorStep):
    """Gives what `script` holds, batch by batch, from the beginning."""

    script: ClassVar[list[Any]] = []
    code_version: str | None = "0"

    @property
    def outputs(self):
        return ["id"]

    def process(self, offset: int = 0):
        for item in self.script:
            if isinstance(item, Exception):
                raise item
            yield item


class Endless(GeneratorStep):
    made: ClassVar[int] = 0

    @property
    def outputs(self):
        return ["id"]

    def process(self, offset: int = 0):
        number = offset
        while True:
            type(self).made = number + self.batch_size
            yield [{"id": number + each} for each in range(self.batch_size)], False
            number += self.batch_size


def build(
    cache_dir: Path | str, *steps: Step, rows: int = 10, source: GeneratorStep | None = None
) -> Pipeline:
    """A generator with `rows` rows (or `source`) and steps in a row behind it."""
    pipeline = Pipeline("bad_input", cache_dir=cache_dir)
    last: Any = source or LoadDataFromDicts(
        name="load", data=[{"id": number} for number in range(rows)], batch_size=5, pipeline=pipeline
    )
    for each in (last, *steps):
        if each.pipeline is None:
            each.__dict__["pipeline"] = pipeline
            pipeline.add_step(each)
    for each in steps:
        last = last >> each
    return pipeline


def ids(distiset: Any, leaf: str) -> list[int]:
    return list(distiset[leaf]["train"]["id"])
