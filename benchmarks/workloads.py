"""One workload, once, with either engine: the same code but for the root of its imports.

    BENCHMARK_ENGINE=<ours|peer> BENCHMARK_DIRECTORY=<a new one> python -m benchmarks.workloads <workload> <arguments as JSON>

Run by `benchmarks.compare`, in the environment of the engine that's measured. What a step or a call notes on its way in
another process, as distilabel's steps do, is appended to a file in the directory. The result is the last line of the
output.
"""

import asyncio
import functools
import importlib
import json
import logging
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.texts import make_text

ENGINE = os.environ.get("BENCHMARK_ENGINE", "ours")
DIRECTORY = os.environ.get("BENCHMARK_DIRECTORY", ".")
ROOT = {"ours": "distilabel_dagster", "peer": "distilabel"}[ENGINE]

_steps = importlib.import_module(f"{ROOT}.steps")
_tasks = importlib.import_module(f"{ROOT}.steps.tasks")
_models = importlib.import_module(f"{ROOT}.models")
_pipeline = importlib.import_module(f"{ROOT}.pipeline")

CAP = 64


@functools.cache
def _notes(name: str) -> int:
    return os.open(Path(DIRECTORY) / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)


_moments: dict[str, list[float]] = {}
"""Those of this process; a write for each would keep an engine that does all in one process from its work."""


def note(name: str) -> None:
    """Note the moment."""
    if multiprocessing.parent_process() is None:
        _moments.setdefault(name, []).append(time.time())
    else:
        os.write(_notes(name), b"%.6f\n" % time.time())


def read_span(name: str) -> tuple[float, int]:
    """Seconds from the first moment noted to the last, in whichever process, and how many there are."""
    path = Path(DIRECTORY) / name
    elsewhere = [float(line) for line in path.read_text().split()] if path.exists() else []
    moments = [*_moments.get(name, []), *elsewhere]
    return (max(moments) - min(moments) if moments else 0.0), len(moments)


class MakeRows(_steps.GeneratorStep):  # type: ignore[name-defined,misc]  # (the engine is chosen at run time)
    """Rows of about 1 KB."""

    rows: int

    @property
    def outputs(self) -> list[str]:
        return ["number", "text"]

    def process(self, offset: int = 0) -> Any:
        for start in range(offset, self.rows, self.batch_size):
            stop = min(start + self.batch_size, self.rows)
            note("span")
            yield (
                [{"number": number, "text": make_text(number)} for number in range(start, stop)],
                stop >= self.rows,
            )


class AddOne(_steps.Step):  # type: ignore[name-defined,misc]  # (the engine is chosen at run time)
    """A step that costs next to nothing."""

    given: str
    made: str
    added: int = 1

    @property
    def inputs(self) -> list[str]:
        return [self.given, "text"]

    @property
    def outputs(self) -> list[str]:
        return [self.made]

    def process(self, inputs: _steps.StepInput) -> Any:  # type: ignore[name-defined]  # (the engine is chosen at run time)
        for row in inputs:
            row[self.made] = row[self.given] + self.added
        note("span")
        yield inputs


class Burn(_steps.Step):  # type: ignore[name-defined,misc]  # (the engine is chosen at run time)
    """A step that computes: about 2 ms of pure Python a row."""

    @property
    def inputs(self) -> list[str]:
        return ["number"]

    @property
    def outputs(self) -> list[str]:
        return ["burnt"]

    def process(self, inputs: _steps.StepInput) -> Any:  # type: ignore[name-defined]  # (the engine is chosen at run time)
        for row in inputs:
            total = 0
            for number in range(20_000):
                total += number * row["number"] % 7
            row["burnt"] = total
        note("span")
        yield inputs


class Simulated(_models.AsyncLLM):  # type: ignore[name-defined,misc]  # (the engine is chosen at run time)
    """Answers after the time drawn for its row, whose number is the first word of the prompt."""

    task: int
    kind: str

    @property
    def model_name(self) -> str:
        return f"simulated-{self.task}"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:  # noqa: A002 (distilabel's word)
        text = str(input[-1]["content"])
        note("span")
        await asyncio.sleep(_latencies(self.kind, self.task)[int(text.split(maxsplit=1)[0])])
        note("span")
        return {"generations": [text], "statistics": {"input_tokens": [10], "output_tokens": [10]}}


@functools.cache
def _latencies(kind: str, task: int) -> list[float]:
    from benchmarks.schedule import draw_latencies

    return draw_latencies(kind, task)


def _make_simulated(task: int, kind: str) -> Any:
    return Simulated(task=task, kind=kind, **({"max_concurrency": CAP} if ENGINE == "ours" else {}))


def build_steps(
    rows: int, batch: int, adds: int = 2, added: int = 1, columns: list[str] | None = None
) -> None:
    """`make >> add_1 >> … >> keep`, with so many steps that add; the last keeps the first column and the last."""
    step = MakeRows(name="make", rows=rows, batch_size=batch)
    made = "number"
    for number in range(1, adds + 1):
        given, made = made, f"made_{number}"
        add = AddOne(name=f"add_{number}", given=given, made=made, added=added, input_batch_size=batch)
        step >> add
        step = add
    keep = _steps.KeepColumns(
        name="keep", columns=columns or ["number", made, "text"], input_batch_size=batch
    )
    step >> keep


def _ask(name: str, llm: Any, column: str, made: str, batch: int) -> Any:
    return _tasks.TextGeneration(
        name=name,
        llm=llm,
        input_batch_size=batch,
        input_mappings={"instruction": column},
        output_mappings={"generation": made, "model_name": f"model_of_{made}"},
    )


def _load(rows: int, batch: int, words: str = "") -> Any:
    data = [{"text": f"{row} {words}{'word ' * 50}"} for row in range(rows)]
    return _steps.LoadDataFromDicts(name="load", data=data, batch_size=batch)


def build_chain(rows: int, batch: int, kind: str, words: str = "") -> None:
    """`load >> ask_0 >> ask_1 >> ask_2`, a model each; other words make other calls."""
    before, column = _load(rows, batch, words), "text"
    for task in range(3):
        ask = _ask(f"ask_{task}", _make_simulated(task, kind), column, f"answer_{task}", batch)
        before >> ask
        before, column = ask, f"answer_{task}"


def build_fan_out(rows: int, batch: int, kind: str) -> None:
    """`load >> [ask_0, ask_1, ask_2] >> group`."""
    asks = [_ask(f"ask_{task}", _make_simulated(task, kind), "text", "answer", batch) for task in range(3)]
    group = _steps.GroupColumns(
        name="group", columns=["answer"], output_columns=["answers"], input_batch_size=batch
    )
    _load(rows, batch) >> asks >> group


def build_http(rows: int, batch: int, url: str) -> None:
    """`load >> ask`, by HTTP."""
    extra = {"max_concurrency": CAP} if ENGINE == "ours" else {}
    llm = _models.OpenAILLM(model="tiny", base_url=url, api_key="sk-loopback", **extra)
    _load(rows, batch) >> _ask("ask", llm, "text", "answer", batch)


def build_burn(rows: int, batch: int, replicas: int) -> None:
    """`make >> burn` in some processes."""
    resources = _steps.StepResources(replicas=replicas)
    burn = Burn(name="burn", input_batch_size=batch, resources=resources)
    MakeRows(name="make", rows=rows, batch_size=batch) >> burn


BUILDERS: dict[str, Callable[..., None]] = {
    "steps": build_steps,
    "chain": build_chain,
    "fan_out": build_fan_out,
    "http": build_http,
    "burn": build_burn,
}


def run(workload: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a workload in the directory's cache; give the seconds of its work, and its rows."""
    expected = arguments.pop("expected", arguments["rows"])
    with _pipeline.Pipeline(workload, cache_dir=f"{DIRECTORY}/cache") as pipeline:
        BUILDERS[workload](**arguments)
    importlib.import_module("datasets")  # one engine does it when it begins, the other when it needs it
    begun, begun_cpu = time.perf_counter(), time.process_time()
    distiset = pipeline.run(use_cache=True)
    run_s, run_cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    ((_, splits),) = distiset.items()
    rows = splits["train"].num_rows
    if rows != expected:
        raise SystemExit(f"{rows} rows came out, {expected} were expected")
    span_s, notes = read_span("span")
    return {"run_s": run_s, "run_cpu_s": run_cpu_s, "span_s": span_s, "notes": notes, "rows": rows}


def main() -> None:
    logging.disable(logging.WARNING)
    result = run(sys.argv[1], json.loads(sys.argv[2]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak_mb {peak:.1f}", file=sys.stderr)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
