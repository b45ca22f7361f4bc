"""Pipelines that the tests of this folder run, in this process and in others.

Each step adds the ids of the rows that it was given to `given`, and where `$SIDE_DIR` is set to `<step>.txt` there,
before it works on them. How long a batch takes (`$BATCH_S`, or what the file `batch_s` there says) is no part of a
step, so that a quick run and a slow one have the same signature.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr

from distilabel_dagster.mixins.runtime_parameters import RuntimeParameter
from distilabel_dagster.models import LLM, OpenAILLM
from distilabel_dagster.pipeline import Pipeline, routing_batch_function
from distilabel_dagster.steps import GlobalStep, LoadDataFromDicts, Step, StepInput, StepResources
from distilabel_dagster.steps.tasks import TextGeneration

given: Counter[tuple[str, int]] = Counter()
"""How often each step was given each row, in this process."""
fail_on: set[int] = set()
"""Ids on which `Scale` fails."""


def take_note(step: str, rows: list[dict[str, Any]]) -> None:
    """Count the rows, and take as long as a batch is to take."""
    given.update((step, row["id"]) for row in rows)
    pause = os.environ.get("BATCH_S", "0")
    if os.environ.get("SIDE_DIR"):
        side = Path(os.environ["SIDE_DIR"])
        with (side / f"{step}.txt").open("a") as file:
            file.write("".join(f"{row['id']}\n" for row in rows))
        pause = (side / "batch_s").read_text() if (side / "batch_s").exists() else pause
    time.sleep(float(pause))


class Scale(Step):
    """Multiplies."""

    factor: RuntimeParameter[int] = Field(default=2, description="What ids are multiplied by.")
    column: str = "scaled"

    @property
    def inputs(self):
        return ["id"]

    @property
    def outputs(self):
        return [self.column]

    def process(self, inputs: StepInput):
        take_note(self.name, inputs)
        if fail_on.intersection(row["id"] for row in inputs):
            raise ValueError("refused")
        yield [{**row, self.column: row["id"] * self.factor} for row in inputs]


class Need(Step):
    """Has a runtime parameter that nobody has set."""

    needed: RuntimeParameter[int] = Field(default=None, description="Must be set.")

    @property
    def outputs(self):
        return ["needed"]

    def process(self, inputs: StepInput):
        yield [{**row, "needed": self.needed} for row in inputs]


class Join(Step):
    """Puts the rows of the branches that got a batch together."""

    @property
    def inputs(self):
        return ["id"]

    def process(self, *inputs: StepInput):
        take_note(self.name, inputs[0])
        yield [
            {name: value for row in rows for name, value in row.items()} for rows in zip(*inputs, strict=True)
        ]


class Total(GlobalStep):
    """Sums up."""

    @property
    def inputs(self):
        return ["id"]

    @property
    def outputs(self):
        return ["total"]

    def process(self, inputs: StepInput):
        take_note(self.name, inputs)
        total = sum(row["id"] for row in inputs)
        yield [{**row, "total": total} for row in inputs]


class Echo(LLM):
    """Says what it's told; has options and secrets."""

    mark: RuntimeParameter[str] = "!"
    api_key: RuntimeParameter[SecretStr] | None = None
    pass_phrase: RuntimeParameter[SecretStr] | None = None

    @property
    def model_name(self) -> str:
        return "echo"

    def generate(self, inputs: Any, num_generations: int = 1, temperature: float = 0.0, headers: Any = None):
        said = [messages[-1]["content"] + (self.mark or "") for messages in inputs]
        return [{"generations": [text] * num_generations, "statistics": {}} for text in said]


def _ids(rows: int) -> list[dict[str, Any]]:
    return [{"id": number} for number in range(rows)]


def build_line(cache_dir: str | Path, name: str = "line", rows: int = 12, **options: Any) -> Pipeline:
    """`load >> scale >> leaf`, in batches of 3."""
    with Pipeline(name, cache_dir=str(cache_dir), **options) as pipeline:
        load = LoadDataFromDicts(name="load", data=_ids(rows), batch_size=3)
        scale = Scale(name="scale", input_batch_size=3)
        leaf = Scale(name="leaf", column="again", input_batch_size=3)
        load >> scale >> leaf
    return pipeline


def build_long_line(cache_dir: str | Path) -> Pipeline:
    """As `line`, long enough to be stopped in the middle."""
    return build_line(cache_dir, "long_line", 90)


def build_third_line(cache_dir: str | Path) -> Pipeline:
    """As `long_line`, of other rows, so that no step is shared with it."""
    return build_line(cache_dir, "third-line", 99)


def build_replicated(cache_dir: str | Path) -> Pipeline:
    """As `long_line`, with two processes for `scale`."""
    with Pipeline("replicated", cache_dir=str(cache_dir)) as pipeline:
        load = LoadDataFromDicts(name="load", data=_ids(90), batch_size=3)
        scale = Scale(name="scale", input_batch_size=3, resources=StepResources(replicas=2))
        load >> scale >> Scale(name="leaf", column="again", input_batch_size=3)
    return pipeline


@routing_batch_function()
def two_of_three(steps: list[str], seq_no: int) -> list[str]:
    return [name for index, name in enumerate(steps) if index != seq_no % 3]


def build_all_kinds(cache_dir: str | Path) -> Pipeline:
    """Routed branches that come together, then a leaf and a global step; names that Dagster doesn't take."""
    with Pipeline("all-kinds", cache_dir=str(cache_dir)) as pipeline:
        load = LoadDataFromDicts(name="load-it", data=_ids(48), batch_size=4)
        branches = [Scale(name=f"branch-{each}", column=each, input_batch_size=4) for each in "abc"]
        join = Join(name="join", input_batch_size=4)
        leaf = Scale(name="a-leaf", column="d", input_batch_size=5)
        total = Total(name="in-total")
        load >> two_of_three >> branches >> join >> [leaf, total]
    return pipeline


def build_needy(cache_dir: str | Path) -> Pipeline:
    """Has a runtime parameter that must be set by the run."""
    with Pipeline("needy", cache_dir=str(cache_dir)) as pipeline:
        load = LoadDataFromDicts(name="load", data=_ids(3))
        need = Need(name="need")
        load >> need
    return pipeline


def build_chat(cache_dir: str | Path, enable_metadata: bool = False, **options: Any) -> Pipeline:
    """A task with a model that has parameters and secrets of its own."""
    with Pipeline("chat", cache_dir=str(cache_dir), enable_metadata=enable_metadata) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": f"Say {number}"} for number in range(4)])
        answer = TextGeneration(name="answer", llm=Echo(**options))
        load >> answer
    return pipeline


PRICE_USD_PER_MILLION = 1000.0


def build_asking(
    cache_dir: str | Path,
    rows: int = 10,
    *,
    has_price: bool = True,
    template: str = "Answer {{ question }}",
    **llm: Any,
) -> Pipeline:
    """`load >> ask >> answer >> scale`: two tasks that ask the server that `$OPENAI_BASE_URL` names."""
    price = PRICE_USD_PER_MILLION if has_price else None
    prices = {f"{kind}_price_usd_per_million": price for kind in ("input", "output")}
    model = OpenAILLM(model="tiny", max_concurrency=4, **prices, **llm)
    with Pipeline("asking", cache_dir=str(cache_dir)) as pipeline:
        load = LoadDataFromDicts(
            name="load", data=[{**row, "text": f"text {row['id']}"} for row in _ids(rows)]
        )
        ask = TextGeneration(
            name="ask",
            llm=model,
            template="Ask about {{ text }}",
            columns="text",
            output_mappings={"generation": "question"},
            input_batch_size=5,
        )
        answer = TextGeneration(
            name="answer", llm=model, template=template, columns="question", input_batch_size=5
        )
        load >> ask >> answer >> Scale(name="scale", input_batch_size=5)
    return pipeline


def build_long_asking(cache_dir: str | Path) -> Pipeline:
    """As `asking`, long enough to be killed in the middle."""
    return build_asking(cache_dir, 60)


BUILDERS: dict[str, Callable[[str], Pipeline]] = {
    "line": build_line,
    "long_line": build_long_line,
    "third-line": build_third_line,
    "replicated": build_replicated,
    "all-kinds": build_all_kinds,
    "asking": build_long_asking,
}
