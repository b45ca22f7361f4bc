"""The pipelines of the crash suite as plain data: what the engine's are built from, and what the model is worked out of."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["mark", "thin", "expand", "join", "total", "ask", "shaky"]
Store = Literal["local", "s3"]
Groups = tuple[tuple[str, ...], ...]

STRETCH: Final = 40
"""`thin` keeps every other stretch of so many rows, so that whole batches come out empty."""
CAP: Final = 4
"""Calls that are on the wire at once, at most."""
TEMPLATES: Final = {
    "ask": ("About {{ text }}", "text", "question"),
    "answer": ("Answer {{ question }}", "question", "answer"),
}
"""Step that asks -> its template, the column that this reads, the column of the answers."""


@dataclass(frozen=True, slots=True)
class StepShape:
    """A step behind the generator.

    Attributes:
        name: its name.
        kind: what it makes of rows; see `model.apply`.
        before: its predecessors, in order.
        size: rows per batch.
        replicas: worker processes.
    """

    name: str
    kind: Kind
    before: tuple[str, ...]
    size: int = 50
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """A pipeline: the generator `load`, and what comes behind it in the order of the graph.

    Attributes:
        name: its name.
        rows: rows that `load` makes.
        batch_size: rows of a batch of `load`.
        steps: the steps behind it.
        is_uneven: the generator's batches are longer and shorter in turn.
        is_slow: the generator takes its time as well, so that it's stopped half-way.
        routed: steps of which each batch of `load` goes to two of three.
        groups: how its steps are spread over ops where each op has a process of its own; none where it isn't run so.
        batch_s: seconds that a batch takes, so that a run has a middle.
    """

    name: str
    rows: int
    batch_size: int
    steps: tuple[StepShape, ...]
    is_uneven: bool = False
    is_slow: bool = False
    routed: tuple[str, ...] = ()
    groups: Groups = ()
    batch_s: float = 0.03

    @property
    def leaves(self) -> list[str]:
        taken = {each for step in self.steps for each in step.before}
        return [step.name for step in self.steps if step.name not in taken]

    def find_descendants(self, step: str) -> set[str]:
        """Give a step and all that comes behind it."""
        found = {step}
        for each in self.steps:
            if found.intersection(each.before):
                found.add(each.name)
        return found

    @property
    def asks(self) -> bool:
        return any(step.kind == "ask" for step in self.steps)

    @property
    def is_shaky(self) -> bool:
        """Whether batches fail in the first runs, and are computed again in their place by later ones."""
        return any(step.kind == "shaky" for step in self.steps)

    @property
    def has_replicas(self) -> bool:
        return any(step.replicas > 1 for step in self.steps)


def _step(name: str, kind: Kind, before: str, size: int = 50, replicas: int = 1) -> StepShape:
    return StepShape(name, kind, tuple(before.split()), size, replicas)


_SHAPES: Final = (
    Shape(
        "linear",
        210,
        7,
        (_step("a", "mark", "load", 4), _step("b", "mark", "a", 5), _step("c", "mark", "b", 3)),
        is_uneven=True,
        groups=(("load", "a"), ("b", "c")),
    ),
    Shape(
        "unaligned",
        3000,
        1000,
        (_step("a", "mark", "load", 50), _step("b", "mark", "a", 39), _step("c", "mark", "b", 31)),
        batch_s=0.015,
    ),
    Shape(
        "two_leaves",
        200,
        7,
        (_step("a", "mark", "load", 4), _step("b", "mark", "a", 3), _step("c", "thin", "a", 5)),
        groups=(("load",), ("a", "b", "c")),
    ),
    Shape(
        "diamond",
        240,
        9,
        (
            _step("a", "mark", "load", 4),
            _step("b", "mark", "load", 5),
            _step("c", "mark", "load", 7),
            _step("join", "join", "a b c", 6),
            _step("d", "mark", "join", 4),
        ),
    ),
    Shape(
        "routed",
        240,
        8,
        (
            _step("a", "mark", "load", 4),
            _step("b", "mark", "load", 2),
            _step("c", "mark", "load", 8),
            _step("join", "join", "a b c", 2),
            _step("d", "mark", "join", 5),
        ),
        routed=("a", "b", "c"),
        batch_s=0.015,
    ),
    Shape(
        "emptying",
        240,
        6,
        (_step("thin", "thin", "load", 5), _step("a", "mark", "thin", 4), _step("b", "mark", "a", 3)),
    ),
    Shape(
        "expanding",
        120,
        5,
        (_step("more", "expand", "load", 3), _step("a", "mark", "more", 7), _step("b", "mark", "a", 4)),
    ),
    Shape(
        "global_middle",
        160,
        7,
        (_step("a", "mark", "load", 6), _step("total", "total", "a"), _step("b", "mark", "total", 5)),
        groups=(("load", "a"), ("total",), ("b",)),
    ),
    Shape(
        "stateful",
        180,
        3,
        (_step("a", "mark", "load", 4),),
        is_uneven=True,
        is_slow=True,
    ),
    Shape(
        "replicas",
        200,
        7,
        (_step("a", "mark", "load", 4, replicas=2), _step("b", "mark", "a", 5)),
    ),
    Shape(
        "repairing",
        200,
        7,
        (
            _step("shaky", "shaky", "load", 4),
            _step("a", "mark", "shaky", 5),
            _step("more", "expand", "a", 6),
            _step("b", "mark", "more", 4),
        ),
    ),
    Shape(
        "asking",
        60,
        6,
        (_step("ask", "ask", "load", 6), _step("answer", "ask", "ask", 4)),
        groups=(("load", "ask"), ("answer",)),
    ),
)
SHAPES: Final = {shape.name: shape for shape in _SHAPES}
