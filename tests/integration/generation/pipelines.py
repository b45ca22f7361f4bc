"""Pipelines that ask a server; run as a program by the tests that kill them:

    python -m tests.integration.generation.pipelines <name in BUILDERS> <its arguments as JSON>

The rows at the end are printed as JSON.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import SecretStr

from distilabel_dagster.models import OpenAILLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GlobalStep, LoadDataFromDicts, StepInput
from distilabel_dagster.steps.tasks import Task, TextGeneration

CAP = 32


class Upper(TextGeneration):
    """The task whose parsing is about to be edited …"""

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        return {"generation": (output or "").upper()}


class Title(TextGeneration):
    """… and after the edit."""

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        words = (output or "").split()
        return {"generation": " ".join(word.title() for word in words)}


class Picky(TextGeneration):
    """Can't read answers that have a 7 in them, nearly two of three …"""

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        if "7" in (output or ""):
            raise ValueError("a 7")
        return {"generation": output}


class Tolerant(TextGeneration):
    """… and after the edit."""

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        return {"generation": output}


class OwnProcess(Task):
    """A task that doesn't use `Task.process` at all; asks twice about each row."""

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["first", "second"]

    def format_input(self, input: dict[str, Any]) -> Any:  # noqa: A002 (distilabel's name)
        return [{"role": "user", "content": f"Once: {input['text']}"}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        return {"first": output}

    def process(self, inputs: StepInput) -> Any:
        once = self.llm.generate_outputs([self.format_input(row) for row in inputs])
        twice = self.llm.generate_outputs(
            [[{"role": "user", "content": f"Again: {output['generations'][0]}"}] for output in once]
        )
        for row, first, second in zip(inputs, once, twice, strict=True):
            row["first"] = first["generations"][0]
            row["second"] = second["generations"][0]
        yield inputs


class Count(GlobalStep):
    """Says to each row how many of all have an answer."""

    @property
    def inputs(self) -> list[str]:
        return ["answer"]

    @property
    def outputs(self) -> list[str]:
        return ["answered", "total"]

    def process(self, inputs: StepInput) -> Any:
        answered = sum(row["answer"] is not None for row in inputs)
        yield [{**row, "answered": answered, "total": len(inputs)} for row in inputs]


def make_rows(count: int, same_every: int = 0) -> list[dict[str, Any]]:
    """Make rows with a text each; every `same_every`-th text is the same."""
    texts = ["the same" if same_every and n % same_every == 0 else f"text {n}" for n in range(count)]
    return [{"id": number, "text": text} for number, text in enumerate(texts)]


def make_llm(url: str, **fields: Any) -> OpenAILLM:
    settings: dict[str, Any] = {
        "model": "tiny",
        "api_key": SecretStr("sk-loopback"),
        "timeout_s": 30,
        "max_concurrency": CAP,
        "max_retries": 2,
    }
    return OpenAILLM(base_url=url, **{**settings, **fields})


def build_one(
    cache_dir: str,
    url: str,
    *,
    rows: list[dict[str, Any]] | int = 12,
    name: str = "one",
    step: str = "ask",
    task: type[Task] = TextGeneration,
    llm: dict[str, Any] | None = None,
    batch_size: int = 50,
    ledger_url: str | None = None,
    **fields: Any,
) -> Pipeline:
    """`load >> ask`."""
    data = make_rows(rows) if isinstance(rows, int) else rows
    if task is not OwnProcess:
        fields = {"template": "About {{ text }}", "columns": "text", **fields}
    with Pipeline(name, cache_dir=cache_dir, ledger_url=ledger_url, enable_metadata=True) as pipeline:
        load = LoadDataFromDicts(name="load", data=data, batch_size=batch_size)
        load >> task(name=step, llm=make_llm(url, **(llm or {})), input_batch_size=batch_size, **fields)
    return pipeline


def build_chain(
    cache_dir: str,
    url: str,
    *,
    rows: list[dict[str, Any]] | int = 12,
    name: str = "chain",
    prefix: str = "",
    first: str = "Ask about {{ text }}",
    second: str = "Answer {{ question }}",
    task: type[TextGeneration] = TextGeneration,
    llm: dict[str, Any] | None = None,
    count: bool = False,
    note: bool = False,
    batch_size: int = 50,
) -> Pipeline:
    """`load >> ask >> answer`: the answer's prompt is made of what `ask` gave.

    `prefix` begins the steps' names: one process at a time may write a step. `note` puts a third task behind them, whose prompt is made of the row's text alone, and `count` a global step.
    """
    data = make_rows(rows) if isinstance(rows, int) else rows
    model = make_llm(url, **(llm or {}))
    with Pipeline(name, cache_dir=cache_dir, enable_metadata=True) as pipeline:
        last: Any = LoadDataFromDicts(name=f"{prefix}load", data=data, batch_size=batch_size)

        def add(step: str, column: str, template: str, reads: str, kind: type[TextGeneration]) -> None:
            nonlocal last
            task = kind(
                name=f"{prefix}{step}",
                llm=model,
                template=template,
                columns=reads,
                output_mappings={"generation": column},
                input_batch_size=batch_size,
            )
            last = last >> task

        add("ask", "question", first, "text", task)
        add("answer", "answer", second, "question", TextGeneration)
        if note:
            add("note", "note", "Note on {{ text }}", "text", TextGeneration)
        if count:
            last = last >> Count(name="count")
    return pipeline


def build_branches(cache_dir: str, url: str, *, rows: int = 12) -> Pipeline:
    """Two tasks side by side that ask the same."""
    model = make_llm(url)
    with Pipeline("branches", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(name="load", data=make_rows(rows))
        tasks = [
            TextGeneration(name=name, llm=model, template="About {{ text }}", columns="text")
            for name in ("left", "right")
        ]
        load >> tasks
    return pipeline


BUILDERS: dict[str, Callable[..., Pipeline]] = {
    "one": build_one,
    "own_process": partial(build_one, task=OwnProcess),
    "chain": build_chain,
    "branches": build_branches,
}


def run(pipeline: Pipeline, **options: Any) -> list[dict[str, Any]]:
    """Run; give the rows of the one leaf, in order."""
    distiset = pipeline.run(**options)
    (leaf,) = set(distiset) - {"default"} or {"default"}
    rows: list[dict[str, Any]] = distiset[leaf]["train"].to_list()
    return rows


if __name__ == "__main__":
    made = BUILDERS[sys.argv[1]](**json.loads(sys.argv[2]))
    print("\n" + json.dumps(run(made)))
