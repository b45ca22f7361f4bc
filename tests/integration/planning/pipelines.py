"""Pipelines whose models are simulated, and count what they're asked."""

import asyncio
from collections import Counter
from typing import Any, ClassVar

from distilabel_dagster.errors import ModelCallError
from distilabel_dagster.models import AsyncLLM
from distilabel_dagster.pipeline import Pipeline, routing_batch_function
from distilabel_dagster.steps import GlobalStep, LoadDataFromDicts, Step, StepInput
from distilabel_dagster.steps.tasks import GeneratorTask, Task, TextGeneration

asked: Counter[str] = Counter()
"""Calls by model."""
fail_on: set[str] = set()
"""Texts whose requests fail, as words of the prompt."""
IN, OUT = 10, 20
COST = (IN * 1.0 + OUT * 2.0) / 1_000_000


class Simulated(AsyncLLM):
    """Answers at once; each call uses as many tokens as the next."""

    one_call_per_generation: ClassVar[bool] = True

    called: str = "simulated"

    @property
    def model_name(self) -> str:
        return self.called

    async def agenerate(self, input: Any, num_generations: int = 1, **kwargs: Any) -> Any:  # noqa: A002
        asked[self.called] += 1
        await asyncio.sleep(0)
        said = input[-1]["content"]
        if fail_on.intersection(said.split()):
            raise ModelCallError("refused", model=self.called, endpoint="", kind="context_length")
        return {
            "generations": [f"to {said}"] * num_generations,
            "statistics": {"input_tokens": [IN] * num_generations, "output_tokens": [OUT] * num_generations},
        }


class Half(Step):
    """Keeps every second row."""

    def process(self, inputs: StepInput) -> Any:
        yield [row for row in inputs if row["id"] % 2 == 0]


class OwnProcess(Task):
    """Decides itself what it asks: twice about each row."""

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["first"]

    def format_input(self, input: dict[str, Any]) -> Any:  # noqa: A002
        return [{"role": "user", "content": input["text"]}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: A002
        return {"first": output}

    def process(self, inputs: StepInput) -> Any:
        once = self.llm.generate_outputs([self.format_input(row) for row in inputs])
        yield [{**row, "first": each["generations"][0]} for row, each in zip(inputs, once, strict=True)]


class Topics(GeneratorTask):
    """Makes rows up by a model."""

    @property
    def outputs(self) -> list[str]:
        return ["text"]

    def process(self, offset: int = 0) -> Any:
        for number in range(offset, 3):
            (answer,) = self.llm.generate_outputs([[{"role": "user", "content": f"topic {number}"}]])
            yield [{"text": answer["generations"][0]}], number == 2


class Total(GlobalStep):
    """Adds how many rows there are."""

    def process(self, *inputs: StepInput) -> Any:
        rows = [row for each in inputs for row in each]
        yield [{**row, "total": len(rows)} for row in rows]


@routing_batch_function()
def one_of_two(steps: list[str], seq_no: int) -> list[str]:
    return [steps[seq_no % 2]]


def make_llm(called: str = "simulated", *, has_price: bool = True) -> Simulated:
    prices = {"input_price_usd_per_million": 1.0, "output_price_usd_per_million": 2.0} if has_price else {}
    return Simulated(called=called, max_concurrency=8, **prices)


def make_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"text{number} and more"} for number in range(count)]


def add_task(name: str, reads: str, gives: str, **fields: Any) -> TextGeneration:
    template = fields.pop("template", "Say {{ it }}")
    return TextGeneration(
        name=name,
        llm=fields.pop("llm", None) or make_llm(f"model-{name}"),
        template=template.replace("it", reads),
        columns=reads,
        output_mappings={"generation": gives},
        input_batch_size=fields.pop("input_batch_size", 5),
        **fields,
    )


def build_chain(
    cache: str, rows: int = 12, *, second: str = "Say {{ it }}", name: str = "chain", **fields: Any
) -> Pipeline:
    """`load >> ask >> answer`."""
    with Pipeline(name, cache_dir=cache) as pipeline:
        load = LoadDataFromDicts(name="load", data=make_rows(rows), batch_size=5)
        ask = add_task("ask", "text", "question", **fields)
        answer = add_task("answer", "question", "reply", template=second)
        load >> ask >> answer
    return pipeline
