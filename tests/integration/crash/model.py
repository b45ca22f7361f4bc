"""What each pipeline must give, worked out in plain Python: no engine, no batches but those that routing goes by."""

import json
import zlib
from collections import Counter
from functools import cache
from typing import Any

from tests.integration.crash.shapes import SHAPES, STRETCH, TEMPLATES, Shape, StepShape

Row = dict[str, Any]
Rows = list[Row]


def apply(step: StepShape, inputs: list[Rows]) -> Rows:
    """What a step makes of the rows of each of its predecessors."""
    rows = inputs[0]
    if step.kind in ("mark", "shaky"):
        return [_mark(step.name, row) for row in rows]
    if step.kind == "thin":
        return [row for row in rows if int(row["n"] / STRETCH) in range(0, 1000, 2)]
    if step.kind == "expand":
        return [
            {**row, "key": f"{row['key']}.{part}", "part": part}
            for row in rows
            for part in range(row["n"] % 4)
        ]
    if step.kind == "join":
        joined: Rows = []
        for number, first in enumerate(rows):
            joined.append(dict(first))
            for others in inputs[1:]:
                joined[-1].update(others[number])
        return joined
    if step.kind == "total":
        numbered = [{**row, "position": at, "total": len(rows)} for at, row in enumerate(rows)]
        return numbered[::-1]
    return [_ask(step.name, row) for row in rows]


def _mark(name: str, row: Row) -> Row:
    ordered = {column: row[column] for column in sorted(row)}
    number = zlib.crc32((name + " " + json.dumps(ordered)).encode())
    rare = {} if number % 29 else {f"{name}_rare": number / 2}
    return {**row, name: number, **rare}


def _ask(name: str, row: Row) -> Row:
    """The server answers in upper case, and counts words as tokens."""
    asked = prompt(name, row)
    metadata = {
        **row.get("distilabel_metadata", {}),
        f"raw_input_{name}": [{"role": "user", "content": asked}],
        f"raw_output_{name}": asked.upper(),
        f"statistics_{name}": {"input_tokens": len(asked.split()), "output_tokens": len(asked.split())},
    }
    answer = {TEMPLATES[name][2]: asked.upper(), "model_name": "tiny"}
    return {**row, **answer, "distilabel_metadata": metadata}


def prompt(name: str, row: Row) -> str:
    """What a step asks about a row."""
    template, reads, _ = TEMPLATES[name]
    return template.replace("{{ " + reads + " }}", row[reads])


def make_source(shape: Shape) -> list[Rows]:
    """The batches of `load`."""
    batches: list[Rows] = []
    at = 0
    while at < shape.rows:
        size = shape.batch_size + (at % 3 if shape.is_uneven else 0)
        numbers = range(at, min(at + size, shape.rows))
        batches.append(
            [
                {"key": str(n), "n": n, "sum": n * (n + 1) // 2, "text": f"text {n}" if n % 5 else "the same"}
                for n in numbers
            ]
        )
        at = numbers.stop
    return batches


def choose_route(shape: Shape, step: str, seq_no: int) -> list[str]:
    """The steps that get a batch; none where nothing is routed."""
    if not shape.routed or step != "load":
        return []
    return [name for name in shape.routed if name != shape.routed[seq_no % 3]]


class Model:
    """What one pipeline's steps are given and make, in the end and in order.

    Attributes:
        shape: the pipeline.
        given: step -> the rows that it gets of its first predecessor; of a generator, those that it makes.
        made: step -> the rows that it makes.
        asked: prompt -> how many calls there must be with it.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        source = make_source(shape)
        self.made: dict[str, Rows] = {"load": [row for batch in source for row in batch]}
        self.given: dict[str, Rows] = dict(self.made)
        self.asked: Counter[str] = Counter()
        self._pieces: dict[str, list[Rows]] = {}
        for step in shape.steps:
            if step.name in shape.routed:
                self._add_routed(step, source)
            elif shape.routed and set(step.before) <= set(shape.routed):
                self._add_convergence(step, len(source))
            else:
                self._add(step)

    def _add(self, step: StepShape) -> None:
        self.given[step.name] = self.made[step.before[0]]
        self.made[step.name] = apply(step, [self.made[each] for each in step.before])
        if step.kind == "ask":
            self.asked.update(prompt(step.name, row) for row in self.given[step.name])

    def _add_routed(self, step: StepShape, source: list[Rows]) -> None:
        """Empty pieces stand for batches that it doesn't get."""
        taken = [
            batch if step.name in choose_route(self.shape, "load", seq_no) else []
            for seq_no, batch in enumerate(source)
        ]
        self._pieces[step.name] = [apply(step, [batch]) for batch in taken]
        self.given[step.name] = [row for batch in taken for row in batch]
        self.made[step.name] = [row for batch in self._pieces[step.name] for row in batch]

    def _add_convergence(self, step: StepShape, batches: int) -> None:
        self.given[step.name], self.made[step.name] = [], []
        for seq_no in range(batches):
            chosen = choose_route(self.shape, "load", seq_no)
            inputs = [self._pieces[each][seq_no] for each in step.before if each in chosen]
            self.given[step.name] += inputs[0]
            self.made[step.name] += apply(step, inputs)


def hand_out(row: Row) -> Row:
    """A row as a Distiset has it: without what was noted of calls."""
    return {column: value for column, value in row.items() if column != "distilabel_metadata"}


@cache
def model_of(name: str) -> Model:
    """Give the model of a pipeline; it isn't to be changed."""
    return Model(SHAPES[name])
