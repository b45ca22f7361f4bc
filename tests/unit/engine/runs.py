"""Runs of small pipelines on a cache in memory."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.events import RunEvent, StepFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep, GlobalStep, Step

Rows = list[dict[str, Any]]


class Numbers(GeneratorStep):
    """Rows 0 to `count`."""

    count: int = 10

    @property
    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, offset: int = 0) -> Any:
        size = self.batch_size or 1
        for at in range(offset, max(self.count, 1), size):
            yield [{"n": n} for n in range(at, min(at + size, self.count))], at + size >= self.count


class Calls(Step):
    """Calls what the test gives, under the step's name."""

    @property
    def outputs(self) -> list[str]:
        return [self.name]

    def process(self, *inputs: Rows) -> Any:
        yield BODIES[self.name](*inputs)


class CallsOnAll(GlobalStep):
    """The same, with all rows."""

    @property
    def outputs(self) -> list[str]:
        return [self.name]

    def process(self, *inputs: Rows) -> Any:
        yield BODIES[self.name](*inputs)


BODIES: dict[str, Callable[..., Rows]] = {}


def mark(name: str) -> Callable[[Rows], Rows]:
    return lambda rows: [{**row, name: row["n"]} for row in rows]


def merge(*inputs: Rows) -> Rows:
    return [
        {column: value for row in rows for column, value in row.items()} for rows in zip(*inputs, strict=True)
    ]


def chain(*names: str, count: int = 10, batch_size: int = 2, size: int = 3) -> Callable[[], None]:
    """Declare a generator and steps behind it, one after another."""

    def declare() -> None:
        last = Numbers(name="load", count=count, batch_size=batch_size)
        for name in names:
            last = last >> Calls(name=name, input_batch_size=size)

    return declare


@dataclass
class Bench:
    """A pipeline and its cache; `declare` is called anew for each run, as in a new process."""

    declare: Callable[[], Any]
    root: str = field(default_factory=lambda: f"memory://{uuid.uuid4().hex}")
    events: list[RunEvent] = field(default_factory=list)
    engine: Engine | None = None
    cache: PipelineCache | None = None
    leases: list[list[str]] = field(default_factory=list)

    def open(self) -> tuple[Pipeline, PipelineCache]:
        with Pipeline("bench", cache_dir=self.root) as pipeline:
            self.declare()
        return pipeline, pipeline.open_cache()

    def start(self, *, steps: list[str] | None = None, **options: Any) -> Any:
        """Give the events of a run, one by one."""
        pipeline, cache = self.open()
        self.cache = cache
        stages = [
            [name for name in stage if name in (steps or stage)] for stage in pipeline.get_load_stages()
        ]
        self.engine = Engine(
            pipeline.dag,
            cache,
            [stage for stage in stages if stage],
            RunOptions(**options),
            acquire=self.leases.append,
        )
        return self.engine.run()

    def run(self, *, steps: list[str] | None = None, **options: Any) -> dict[str, int]:
        """Run to the end, and seal what has ended; give how many batches each finished step computed."""
        self.events = []
        for event in self.start(steps=steps, **options):
            self.events.append(event)
            if isinstance(event, StepFinished):
                self.cache.seal_step(event.step)
        return {e.step: e.batches_computed for e in self.events if isinstance(e, StepFinished)}

    def rows(self, step: str) -> Rows:
        """What is committed of a step."""
        _, cache = self.open()
        store = cache.stores[step]
        store.open()
        rows: Rows = store.read_all().to_pylist()
        return rows

    def stops(self, kind: type[RunEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
