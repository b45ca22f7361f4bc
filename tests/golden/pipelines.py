"""Pipelines whose signatures are pinned; run as a script, it prints them as JSON."""

import json
from typing import Any

from distilabel_dagster.pipeline import Pipeline, routing_batch_function, sample_n_steps
from distilabel_dagster.steps import (
    GlobalStep,
    GroupColumns,
    KeepColumns,
    LoadDataFromDicts,
    Step,
    StepInput,
    StepResources,
    step,
)

PROMPT = "Say it: "


def shout(text: str) -> str:
    return text.upper()


class Speak(Step):
    """Says what it's given."""

    mark: str = "!"
    api_key: str | None = None

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["said"]

    def process(self, inputs: StepInput) -> Any:
        yield [{**row, "said": f"{PROMPT}{shout(row['text'])!r:>5}{self.mark}"} for row in inputs]


class Count(GlobalStep):
    @property
    def outputs(self) -> list[str]:
        return ["count"]

    def process(self, inputs: StepInput) -> Any:
        yield [{**row, "count": len(inputs)} for row in inputs]


@step(inputs=["text"], outputs=["length"])
def measure(inputs: StepInput, unit: str = "chars") -> Any:
    yield [{**row, "length": (len(row["text"]), unit)} for row in inputs]


@routing_batch_function()
def in_turn(steps: list[str], seq_no: int) -> list[str]:
    return [steps[seq_no % len(steps)]]


ROWS = [{"text": "hey", "n": 1, "raw": b"\x00"}, {"text": "ho", "score": 0.1, "tags": {"a", "b"}}]


def build(
    rows: list[dict[str, Any]] | None = None,
    mark: str = "!",
    columns: tuple[str, ...] = ("said",),
    routing: Any = None,
    unit: str = "chars",
    **free: Any,
) -> Pipeline:
    """The pinned pipeline, or one that differs from it."""
    size = free.get("size", 10)
    with Pipeline("golden", cache_dir=free.get("cache_dir", "memory://golden")) as pipeline:
        load = LoadDataFromDicts(name="load", data=rows or ROWS, batch_size=size)
        speak = Speak(
            name="speak",
            mark=mark,
            api_key=free.get("api_key"),
            input_batch_size=size,
            resources=StepResources(replicas=free.get("replicas", 1)),
        )
        length = measure(name="measure", unit=unit, input_batch_size=size)
        keep = KeepColumns(name="keep", columns=list(columns))
        join = GroupColumns(name="join", columns=["text"], input_batch_size=size)
        load >> (routing or in_turn) >> [speak, length] >> join
        speak >> keep >> Count(name="count")
    return pipeline


def describe() -> dict[str, Any]:
    """The signatures that are pinned."""
    pinned, sampled = build(), build(routing=sample_n_steps(1))
    return {
        "in_turn": {"pipeline": pinned.signature, "steps": pinned.step_signatures},
        "sampled": {"pipeline": sampled.signature, "steps": sampled.step_signatures},
    }


if __name__ == "__main__":
    print(json.dumps(describe()))
