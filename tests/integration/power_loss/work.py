"""Run as a script, watched: a pipeline of two runs, and a note of each thing that it reported as kept.

    python -m tests.integration.power_loss.work <cache dir> <file of notes>

A note is one write to the file: `rows <step> <committed batches> <revision of each, or nothing>`, or `answer <key>`. In the
first run a batch of `check` fails; the second computes that again, hence rewrites parts in the middle, and seals.
"""

import os
import sys
from pathlib import Path
from typing import Any

from distilabel_dagster.engine import committer
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.models.llm import LLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import KeepColumns, LoadDataFromDicts, Step, StepInput
from distilabel_dagster.steps.tasks import TextGeneration

ROWS = 24
LEAVES = ("kept", "counted")
calls: list[str] = []
"""The prompts that this process has answered."""


class Echo(LLM):
    """Answers at once."""

    @property
    def model_name(self) -> str:
        return "echo"

    def generate(self, inputs: list[Any], num_generations: int = 1, **kwargs: Any) -> list[Any]:
        given = [messages[-1]["content"] for messages in inputs]
        calls.extend(given)
        return [
            {
                "generations": [f"echo of {text}"] * num_generations,
                "statistics": {"input_tokens": [1], "output_tokens": [1]},
            }
            for text in given
        ]


class Check(Step):
    """Fails on row 10, where the environment says so."""

    @property
    def inputs(self) -> list[str]:
        return ["id", "generation"]

    @property
    def outputs(self) -> list[str]:
        return ["length"]

    def process(self, inputs: StepInput) -> Any:
        if os.environ.get("FAIL") and any(row["id"] == 10 for row in inputs):
            raise ValueError("not yet")
        yield [{**row, "length": len(row["generation"])} for row in inputs]


class Count(Step):
    """A second leaf."""

    @property
    def inputs(self) -> list[str]:
        return ["id"]

    @property
    def outputs(self) -> list[str]:
        return ["twice"]

    def process(self, inputs: StepInput) -> Any:
        yield [{"id": row["id"], "twice": row["id"] * 2} for row in inputs]


def build(cache_dir: str) -> Pipeline:
    with Pipeline("power", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(
            name="load",
            data=[{"id": number, "text": f"text {number}"} for number in range(ROWS)],
            batch_size=4,
        )
        ask = TextGeneration(
            name="ask", llm=Echo(), template="About {{ text }}", columns="text", input_batch_size=3
        )
        check = Check(name="check", input_batch_size=4)
        load >> ask >> check >> KeepColumns(name="kept", columns=["id", "length"], input_batch_size=5)
        load >> Count(name="counted", input_batch_size=7)
    return pipeline


def expected_rows() -> dict[str, list[dict[str, Any]]]:
    return {
        "kept": [{"id": n, "length": len(f"echo of About text {n}")} for n in range(ROWS)],
        "counted": [{"id": n, "twice": 2 * n} for n in range(ROWS)],
    }


def run(cache_dir: str) -> dict[str, list[dict[str, Any]]]:
    """Run to the end; give the leaves' rows."""
    distiset = build(cache_dir).run()
    return {leaf: list(distiset[leaf]["train"]) for leaf in LEAVES}


def _take_notes(file: str) -> None:
    notes = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    mark_committed, store = OutputLog.mark_committed, ResponseLedger.store

    def mark(log: OutputLog, count: int) -> None:
        mark_committed(log, count)
        revisions = ",".join(str(record.revision) for record in log.records[: log.committed])
        os.write(notes, f"rows {log.store.step_name} {log.committed} {revisions}\n".encode())

    def keep(ledger: ResponseLedger, paid: Any, failed: Any = ()) -> Any:
        kept = store(ledger, paid, failed)
        os.write(notes, b"".join(b"answer %s\n" % each.response.key.hex().encode() for each in paid))
        return kept

    OutputLog.mark_committed = mark  # type: ignore[method-assign]
    ResponseLedger.store = keep  # type: ignore[method-assign]


if __name__ == "__main__":
    _take_notes(sys.argv[2])
    committer._SHORTEST_S = 0.01  # many small commits
    os.environ["FAIL"] = "1"
    run(sys.argv[1])
    del os.environ["FAIL"]
    assert run(sys.argv[1]) == expected_rows()
    assert Path(sys.argv[2]).stat().st_size
