"""The span of 3 x 1,000 chained simulated calls with 64 in flight for each model, against the schedule without an engine.

`make bench` runs it. Each run is a process and a cache of its own; kinds and batch sizes alternate.
"""

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import at_most, give_verdict
from benchmarks.schedule import CAP, ROWS, TASKS, ideal_span_s
from benchmarks.simulated import SimulatedLLM, Span

RESULTS = Path(__file__).parent / "results" / "calls.json"
TARGETS = {"constant": 1.15, "lognormal": 1.05}
CASES = [
    (kind, is_shared, batch_size)
    for is_shared in (True, False)
    for kind in TARGETS
    for batch_size in (50, 10)
]
REPEATS = 3
TEXT = "word " * 50


def run_once(kind: str, is_shared: bool, batch_size: int) -> dict[str, float]:
    """Run the pipeline in this process, in a new cache."""
    from distilabel_dagster.pipeline import Pipeline
    from distilabel_dagster.steps import LoadDataFromDicts
    from distilabel_dagster.steps.tasks import TextGeneration

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory, Pipeline("calls", cache_dir=directory) as pipeline:
        before: Any = LoadDataFromDicts(name="load", data=[{"text": f"{row} {TEXT}"} for row in range(ROWS)])
        for task in range(TASKS):
            llm = SimulatedLLM(task=task, kind=kind, is_shared=is_shared, max_concurrency=CAP)
            ask = TextGeneration(
                name=f"ask_{task}",
                llm=llm,
                input_batch_size=batch_size,
                input_mappings={"instruction": "text"},
                output_mappings={"generation": "text"},
            )
            before = before >> ask
        begun_at, begun_cpu = time.perf_counter(), time.process_time()
        pipeline.run()
        total, cpu = time.perf_counter() - begun_at, time.process_time() - begun_cpu
    assert Span.calls == TASKS * ROWS
    return {"span_s": Span.last - Span.first, "total_s": total, "cpu_s": cpu}


def main() -> int:
    if len(sys.argv) == 4:
        print(json.dumps(run_once(sys.argv[1], sys.argv[2] == "shared", int(sys.argv[3]))))
        return 0
    found: dict[tuple[str, bool, int], list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(REPEATS):
        for case in CASES:
            kind, is_shared, batch_size = case
            told = [kind, "shared" if is_shared else "apart", str(batch_size)]
            command = [sys.executable, "-m", "benchmarks.calls", *told]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[case].append(json.loads(done.stdout))
    rows = [describe(*case, runs) for case, runs in found.items()]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    print_table(rows)
    return 0


def describe(kind: str, is_shared: bool, batch_size: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    ideal = ideal_span_s(kind, batch_size, is_shared=is_shared)
    spans = [run["span_s"] for run in runs]
    return {
        "latencies": kind,
        "models": 1 if is_shared else TASKS,
        "batch_size": batch_size,
        "ideal_s": round(ideal, 3),
        "without_order_s": round(ideal_span_s(kind, 1, is_shared=is_shared, in_order=False), 3),
        "span_s": round(statistics.median(spans), 3),
        "ratio": round(statistics.median(span / ideal for span in spans), 3),
        "best_ratio": round(min(span / ideal for span in spans), 3),
        "target": TARGETS[kind],
        "met": give_verdict([at_most(statistics.median(span / ideal for span in spans), TARGETS[kind])]),
        "cpu_s": round(statistics.median(run["cpu_s"] for run in runs), 3),
        "repeats": len(runs),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{TASKS} chained tasks, {ROWS} rows, {CAP} calls in flight for each model")
    told = {
        "latencies": "latencies",
        "models": "models",
        "batch_size": "batch",
        "ideal_s": "ideal s",
        "span_s": "span s",
        "ratio": "ratio",
        "best_ratio": "best",
        "target": "target",
        "met": "met",
        "cpu_s": "cpu s",
    }
    for title in told.values():
        table.add_column(title, justify="left" if title == "latencies" else "right")
    for row in rows:
        table.add_row(*(str(row[name]) for name in told))
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
