"""Small pipelines of random shape, what they must give, and runs of them that are disturbed."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.events import RunEvent, StepFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import CacheError, DistilabelDagsterError
from distilabel_dagster.pipeline import Pipeline, routing_batch_function
from distilabel_dagster.steps import GeneratorStep, GlobalStep, Step

Row = dict[str, Any]
Rows = list[Row]


class Disturbance:
    """What the steps meet in the run that's on: rows to fail on, a count of calls, a moment to stop at."""

    def __init__(self) -> None:
        self.fail_on: set[tuple[str, str]] = set()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.calls_left: int | None = None
        self.on_last_call: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def meet(self, step: str, rows: Rows) -> None:
        """Count a call, stop or fail as planned."""
        with self._lock:
            self.seen.update((step, row["key"]) for row in rows)
            if self.calls_left is not None:
                self.calls_left -= 1
                if self.calls_left == 0 and self.on_last_call is not None:
                    self.on_last_call()
        for row in rows:
            if (step, row["key"]) in self.fail_on:
                raise ValueError(f"fails on {row['key']}")


_state: dict[str, Disturbance] = {}


def meet(step: str, rows: Rows) -> None:
    _state["now"].meet(step, rows)


def apply_kind(kind: str, name: str, before: str, row: Row) -> Rows:
    """What an ordinary step of a kind makes of one row: the model, and what the steps do.

    Where the step `before` failed on the row, and so left its column empty, it's another result.
    """
    weight = sum(map(ord, str(row["key"]))) if before == "load" or row[before] is not None else 0
    if kind == "mark":
        return [{**row, name: weight}]
    if kind == "filter":
        return [{**row, name: True}] if weight % 3 else []
    if kind == "expand":
        return [{**row, "key": f"{row['key']}.{n}", name: n} for n in range(weight % 3)]
    raise AssertionError(kind)


def apply_global(name: str, rows: Rows) -> Rows:
    """What the global step makes of all rows: they come out the other way round."""
    return [{**row, name: len(rows)} for row in reversed(rows)]


class Source(GeneratorStep):
    """Rows 0 to `count`; batches get longer and shorter with `batch_size`."""

    count: int
    ends_with_empty_batch: bool = False

    @property
    def outputs(self) -> list[str]:
        return ["key"]

    def process(self, offset: int = 0) -> Any:
        at = offset
        for extra in itertools.cycle((0, 1, 2)):
            rows = [{"key": f"r{n}"} for n in range(at, min(at + (self.batch_size or 1) + extra, self.count))]
            at += len(rows)
            meet(self.name, rows)
            yield rows, at >= self.count and not self.ends_with_empty_batch
            if at >= self.count:
                yield [], True


class EvenSource(GeneratorStep):
    """Rows 0 to `count` in equal batches, counted from the first row whatever the offset."""

    count: int

    @property
    def outputs(self) -> list[str]:
        return ["key"]

    def process(self, offset: int = 0) -> Any:
        size = self.batch_size or 1
        for at in range(offset, max(self.count, 1), size):
            rows = [{"key": f"r{n}"} for n in range(at, min(at + size, self.count))]
            meet(self.name, rows)
            yield rows, at + size >= self.count


class ForgetfulSource(GeneratorStep):
    """Rows 0 to `count`; it always begins at the first, and returns without saying which batch is the last."""

    count: int

    @property
    def outputs(self) -> list[str]:
        return ["key"]

    def process(self, offset: int = 0) -> Any:
        for at in range(0, self.count, self.batch_size or 1):
            yield [{"key": f"r{n}"} for n in range(at, min(at + (self.batch_size or 1), self.count))], False


class Simple(Step):
    """A step of one of the kinds of `apply_kind`."""

    kind: str
    before: str

    @property
    def outputs(self) -> list[str]:
        return [self.name]

    def process(self, inputs: Any) -> Any:
        meet(self.name, inputs)
        for row in inputs:
            yield apply_kind(self.kind, self.name, self.before, row)


class Whole(GlobalStep):
    """The global step."""

    @property
    def outputs(self) -> list[str]:
        return [self.name]

    def process(self, inputs: Any) -> Any:
        meet(self.name, inputs)
        yield apply_global(self.name, inputs)


class Together(Step):
    """Puts rows of all its predecessors together, column by column."""

    @property
    def outputs(self) -> list[str]:
        return [self.name]

    def process(self, *inputs: Any) -> Any:
        meet(self.name, inputs[0])
        yield [
            {**{column: value for row in rows for column, value in row.items()}, self.name: rows[0]["key"]}
            for rows in zip(*inputs, strict=True)
        ]


@routing_batch_function()
def route_in_turn(steps: list[str], seq_no: int) -> list[str]:
    """One branch, then the next, then all."""
    turn = seq_no % (len(steps) + 1)
    return steps if turn == len(steps) else [steps[turn]]


@dataclass(frozen=True)
class Shape:
    """A pipeline: steps in order as (name, kind, predecessors).

    The steps `routed` are behind a routing function, which gets groups of `route_size` rows of `router`'s input.
    """

    source: str
    count: int
    steps: tuple[tuple[str, str, tuple[str, ...]], ...]
    routed: tuple[str, ...] = ()
    route_size: int = 0

    @property
    def router(self) -> str:
        return next((before[0] for name, _, before in self.steps if name in self.routed), "")

    @property
    def leaves(self) -> list[str]:
        taken = {each for _, _, before in self.steps for each in before}
        return [name for name, _, _ in self.steps if name not in taken]


_SOURCES = {"uneven": Source, "even": EvenSource, "forgetful": ForgetfulSource}


def build_pipeline(shape: Shape, cache_dir: str, sizes: dict[str, int]) -> Pipeline:
    """Declare the pipeline with the given batch sizes; those under routing are fixed by the shape."""
    with Pipeline("scenario", cache_dir=cache_dir) as pipeline:
        made: dict[str, Any] = {
            "load": _SOURCES[shape.source](
                name="load", count=shape.count, batch_size=shape.route_size or sizes["load"]
            )
        }
        for name, kind, before in shape.steps:
            size = shape.route_size if name == shape.router else sizes[name]
            if name in shape.routed:
                size = next(
                    each for each in range(min(size, shape.route_size), 0, -1) if not shape.route_size % each
                )
            if kind == "together" and set(before) <= set(shape.routed):
                size = min([size, *(made[each].input_batch_size for each in before)])
            step: Step = (
                Whole(name=name)
                if kind == "global"
                else Together(name=name, input_batch_size=size)
                if kind == "together"
                else Simple(name=name, kind=kind, before=before[0], input_batch_size=size)
            )
            made[name] = step
            if name not in shape.routed:
                for each in before:
                    made[each].connect(step)
        if shape.routed:
            routed = [made[each] for each in shape.routed]
            made[shape.router].connect(*routed, routing_batch_function=route_in_turn)
    return pipeline


def expect_rows(shape: Shape) -> dict[str, Rows]:
    """What each step must have made in the end, worked out without batches."""
    made: dict[str, Rows] = {"load": [{"key": f"r{n}"} for n in range(shape.count)]}
    groups: dict[str, dict[int, Rows]] = {}
    router_kind = next((kind for name, kind, _ in shape.steps if name == shape.router), "")
    starts = range(0, max(shape.count, 1), shape.route_size or 1)
    for name, kind, before in shape.steps:
        if name in shape.routed:
            groups[name] = {}
            for seq_no, at in enumerate(starts):
                if name in route_in_turn.choose(shape.router, list(shape.routed), seq_no):
                    rows = made["load"][at : at + shape.route_size]
                    if shape.router != "load":
                        rows = [
                            out for row in rows for out in apply_kind(router_kind, shape.router, "load", row)
                        ]
                    groups[name][seq_no] = [
                        out for row in rows for out in apply_kind(kind, name, before[0], row)
                    ]
            made[name] = [row for group in groups[name].values() for row in group]
        elif kind == "together" and set(before) <= set(shape.routed):
            made[name] = []
            for seq_no in range(len(starts)):
                lists = [groups[each][seq_no] for each in before if seq_no in groups[each]]
                made[name] += _put_together(name, lists)
        elif kind == "together":
            made[name] = _put_together(name, [made[each] for each in before])
        elif kind == "global":
            made[name] = apply_global(name, made[before[0]])
        else:
            made[name] = [out for row in made[before[0]] for out in apply_kind(kind, name, before[0], row)]
    return made


def _put_together(name: str, lists: list[Rows]) -> Rows:
    return [
        {**{c: v for row in rows for c, v in row.items()}, name: rows[0]["key"]}
        for rows in zip(*lists, strict=True)
    ]


@dataclass
class Lab:
    """A cache in memory, and runs of one shape on it."""

    shape: Shape
    root: str
    disturbance: Disturbance = field(default_factory=Disturbance)
    finished: bool = False
    events: list[RunEvent] = field(default_factory=list)

    def run(
        self,
        sizes: dict[str, int],
        *,
        stop_at_call: int | None = None,
        crash_at_write: int | None = None,
        options: RunOptions | None = None,
    ) -> BaseException | None:
        """Run once; give the error that it ended with, if any. A crash leaves the cache as it was at that write."""
        _state["now"] = self.disturbance
        pipeline = build_pipeline(self.shape, f"memory://{self.root}", sizes)
        cache = pipeline.open_cache()
        fs = CrashingFileSystem(cache.fs.url, crash_at_write, f"{self.root}x")
        cache = PipelineCache(fs, cache.signature, cache.step_signatures, cache.leaf_steps)
        engine = Engine(
            pipeline.dag, cache, pipeline.get_load_stages(), options or RunOptions(), acquire=lambda _: None
        )
        self.disturbance.calls_left = stop_at_call
        self.disturbance.on_last_call = lambda: engine.request_stop("the test says so")
        self.events, error = [], None
        try:
            for event in engine.run():
                self.events.append(event)
                if isinstance(event, StepFinished):
                    cache.seal_step(event.step)
        except DistilabelDagsterError as raised:
            error = raised
        if fs.has_crashed:
            remove_tree(self.root)
            self.root = f"{self.root}x"
        self.finished = {e.step for e in self.events if isinstance(e, StepFinished)} == set(
            pipeline.dag.steps
        )
        return error

    def read(self, sizes: dict[str, int]) -> dict[str, Rows]:
        """What the cache holds of each step, columns that a row lacks left out."""
        cache = build_pipeline(self.shape, f"memory://{self.root}", sizes).open_cache()
        found = {}
        for name, store in cache.stores.items():
            store.open()
            found[name] = [without_nulls(row) for row in store.read_all().to_pylist()]
        return found

    def close(self) -> None:
        remove_tree(self.root)


def without_nulls(row: Row) -> Row:
    """A row without the columns that only others of its table have."""
    return {column: value for column, value in row.items() if value is not None}


class CrashingFileSystem(CacheFileSystem):
    """At the n-th change of a file, keeps a copy of all files as a kill would leave them, and fails from there on."""

    def __init__(self, url: str, crash_at_write: int | None, copy_to: str) -> None:
        super().__init__(url)
        self._writes_left = crash_at_write
        self._copy_to = copy_to
        self.has_crashed = False
        self._change_lock = threading.Lock()

    def _count(self) -> None:
        with self._change_lock:
            if self.has_crashed:
                raise CacheError("the test pulled the plug", path=self.root)
            if self._writes_left is not None:
                self._writes_left -= 1
                if self._writes_left < 0:
                    self.has_crashed = True
                    copy_tree(self.root.strip("/"), self._copy_to)
                    raise CacheError("the test pulled the plug", path=self.root)

    def write_bytes(self, path: str, content: bytes, **how: Any) -> None:
        self._count()
        super().write_bytes(path, content, **how)

    def link(self, source: str, target: str, **how: Any) -> None:
        self._count()
        super().link(source, target, **how)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)


def copy_tree(source: str, target: str) -> None:
    """Copy a tree of the memory file system; each file's bytes as they are now."""
    store = MemoryFileSystem.store
    for path in [path for path in store if path.startswith(f"/{source}/")]:
        MemoryFileSystem().pipe_file(f"/{target}/{path.removeprefix(f'/{source}/')}", store[path].getvalue())


def remove_tree(root: str) -> None:
    """Forget a tree of the memory file system."""
    for path in [path for path in MemoryFileSystem.store if path.startswith(f"/{root}/")]:
        del MemoryFileSystem.store[path]
    MemoryFileSystem.pseudo_dirs[:] = [
        each for each in MemoryFileSystem.pseudo_dirs if not each.startswith(f"/{root}")
    ]
