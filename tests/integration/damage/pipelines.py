"""The pipeline whose cache is damaged: two branches that join, two leaves, and a model whose calls are counted."""

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from distilabel_dagster.models import LLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import CombineOutputs, LoadDataFromDicts, Step, StepInput
from distilabel_dagster.steps.tasks import TextGeneration

ROWS = 10
LEAVES = ("joined", "shout")
CALLS: Counter[str] = Counter()
"""How often the model was asked what, in this process."""


class Echo(LLM):
    """Says of equal texts the same, so that an answer that's asked for again is the one that was lost."""

    code_version: ClassVar[str] = "1"

    @property
    def model_name(self) -> str:
        return "echo"

    def generate(self, inputs: Any, num_generations: int = 1) -> Any:
        texts = [messages[-1]["content"] for messages in inputs]
        CALLS.update(texts)
        return [{"generations": [f"on {text}"] * num_generations, "statistics": {}} for text in texts]


class Measure(Step):
    """Counts the letters."""

    code_version: str | None = "1"

    @property
    def inputs(self):
        return ["text"]

    @property
    def outputs(self):
        return ["letters"]

    def process(self, inputs: StepInput):
        yield [{"id": row["id"], "letters": len(row["text"]), "tags": [row["text"]] * 2} for row in inputs]


class Shout(Step):
    """Makes answers loud."""

    code_version: str | None = "1"

    @property
    def inputs(self):
        return ["generation"]

    @property
    def outputs(self):
        return ["loud"]

    def process(self, inputs: StepInput):
        yield [{"id": row["id"], "loud": row["generation"].upper()} for row in inputs]


def build(cache_dir: str | Path, rows: int = ROWS) -> Pipeline:
    """`load >> [ask, measure] >> joined`, and `ask >> shout`, in batches of 3.

    Args:
        cache_dir: the cache.
        rows: with another number every step has the same name and another signature.
    """
    data = [{"id": number, "text": f"text {number} of {rows}"} for number in range(rows)]
    with Pipeline("damaged", cache_dir=str(cache_dir)) as pipeline:
        load = LoadDataFromDicts(name="load", data=data, batch_size=3)
        ask = TextGeneration(
            name="ask", llm=Echo(), template="Say {{ text }}", columns="text", input_batch_size=3
        )
        measure = Measure(name="measure", input_batch_size=3)
        joined = CombineOutputs(name="joined", input_batch_size=3)
        load >> [ask, measure] >> joined
        ask >> Shout(name="shout", input_batch_size=3)
    return pipeline
