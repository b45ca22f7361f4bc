"""Caches to damage: one of a finished pipeline and one of a half-finished one, and copies of them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distilabel_dagster.cache import step_store
from distilabel_dagster.engine.events import StepFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.pipeline import Pipeline
from tests.integration.damage.pipelines import CALLS, LEAVES, ROWS, build

State = Literal["finished", "half-finished"]
STATES: tuple[State, ...] = ("finished", "half-finished")
ANSWERED = 8
"""Answers in the ledger of the half-finished pipeline; rows of the first 6 are committed."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Site:
    """A cache.

    Attributes:
        root: its directory.
        signature: the pipeline's.
        steps: step -> its signature.
        others: the same of a second pipeline in the cache, whose steps have the same names.
        other_signature: that pipeline's.
    """

    root: Path
    signature: str
    steps: dict[str, str]
    other_signature: str
    others: dict[str, str]

    def step(self, name: str) -> Path:
        return self.root / "steps_data" / f"{name}_{self.steps[name]}"

    def other_step(self, name: str) -> Path:
        return self.root / "steps_data" / f"{name}_{self.others[name]}"

    @property
    def pipeline(self) -> Path:
        return self.root / self.signature

    @property
    def other_pipeline(self) -> Path:
        return self.root / self.other_signature

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    def copy(self, target: Path) -> "Site":
        """Copy the cache, hard links as hard links."""
        seen: dict[tuple[int, int], Path] = {}
        for directory, _, names in os.walk(self.root):
            there = target / Path(directory).relative_to(self.root)
            there.mkdir(parents=True)
            for name in names:
                source = Path(directory, name)
                info = source.stat()
                first = seen.setdefault((info.st_dev, info.st_ino), there / name)
                if first == there / name:
                    shutil.copy2(source, first)
                else:
                    os.link(first, there / name)
        return Site(target, self.signature, self.steps, self.other_signature, self.others)


@dataclass(frozen=True, slots=True)
class Original:
    """An undamaged cache, and what comes of it.

    Attributes:
        site: the cache.
        rows: leaf -> the rows of the finished pipeline.
        calls_left: calls of the model that a run has to make.
        batches_left: batches that a run has to compute.
    """

    site: Site
    rows: dict[str, Rows]
    calls_left: int
    batches_left: int


@contextmanager
def a_part_for_each_batch() -> Iterator[None]:
    """Have each batch in a part of its own, as if each had been committed by itself."""
    before = step_store._PART_BYTES
    step_store._PART_BYTES = 1
    try:
        yield
    finally:
        step_store._PART_BYTES = before


def build_original(root: Path, state: State) -> Original:
    """Make the cache by running its pipelines."""
    pipeline, other = build(root), build(root, ROWS - 3)
    with a_part_for_each_batch():
        _run_to_end(other)
        if state == "finished":
            _run_to_end(pipeline)
        else:
            pipeline.plan(sample=ANSWERED)
            cache = pipeline.open_cache()
            for event in pipeline.iter_run(RunOptions(max_new_calls=0), cache=cache):
                if isinstance(event, StepFinished):
                    cache.seal_step(event.step)
    site = Site(root, pipeline.signature, pipeline.step_signatures, other.signature, other.step_signatures)
    whole = build(root.with_name(f"{root.name}-whole"))
    rows = _run_to_end(whole)
    counted = site.copy(root.with_name(f"{root.name}-counted"))
    before = sum(CALLS.values())
    left = 4 * 5 - sum(1 for name in site.steps for _ in site.step(name).glob("*.parquet"))
    _run_to_end(build(counted.root))
    return Original(site, rows, sum(CALLS.values()) - before, left)


def _run_to_end(pipeline: Pipeline) -> dict[str, Rows]:
    distiset = pipeline.run()
    return {leaf: distiset[leaf]["train"].to_list() for leaf in LEAVES}
