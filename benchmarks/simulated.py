"""A model whose calls only take time, and the schedule that an engine without any cost of its own would keep."""

import asyncio
import heapq
import random
import time
from typing import Any

from distilabel_dagster.models import AsyncLLM, ChatType, GenerateOutput

TASKS = 3
ROWS = 1_000
CAP = 64


def draw_latencies(kind: str, task: int, rows: int = ROWS) -> list[float]:
    """Give the seconds that each row's call takes: 50 ms each, or lognormal between 20 and 500 ms."""
    if kind == "constant":
        return [0.05] * rows
    source = random.Random(task)
    return [min(0.5, max(0.02, source.lognormvariate(-2.3, 0.6))) for _ in range(rows)]


def ideal_span_s(kind: str, batch_size: int, rows: int = ROWS, cap: int = CAP) -> float:
    """Simulate the chain of tasks: `cap` calls in flight for each, a batch handed on when it's whole and all before it are.

    Args:
        kind: of the latencies.
        batch_size: rows that go on together; 1 and `in_order=False` would be rows that overtake each other.
        rows: rows of the dataset.
        cap: calls in flight for each task.
    """
    ready = [0.0] * rows
    for task in range(TASKS):
        done = _run_task(ready, draw_latencies(kind, task, rows), cap)
        ready, before = [], 0.0
        for start in range(0, rows, batch_size):
            batch = done[start : start + batch_size]
            before = max([before, *batch])
            ready += [before] * len(batch)
    return max(ready)


def free_span_s(kind: str, rows: int = ROWS, cap: int = CAP) -> float:
    """Simulate rows that go on one by one and overtake each other, which an engine that keeps their order can't do."""
    ready = [0.0] * rows
    for task in range(TASKS):
        ready = _run_task(ready, draw_latencies(kind, task, rows), cap)
    return max(ready)


def _run_task(ready: list[float], latencies: list[float], cap: int) -> list[float]:
    places = [0.0] * cap
    done = [0.0] * len(ready)
    for row in sorted(range(len(ready)), key=lambda row: (ready[row], row)):
        done[row] = max(heapq.heappop(places), ready[row]) + latencies[row]
        heapq.heappush(places, done[row])
    return done


class Span:
    """From the first call to the last answer."""

    first = 0.0
    last = 0.0
    calls = 0


class SimulatedLLM(AsyncLLM):
    """Answers after the time drawn for its row; the row's number is the first word of the prompt."""

    task: int
    kind: str

    @property
    def model_name(self) -> str:
        return f"simulated-{self.task}"

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:  # noqa: A002
        text = str(input[-1]["content"])
        row = int(text.split(maxsplit=1)[0])
        Span.first = Span.first or time.perf_counter()
        Span.calls += 1
        await asyncio.sleep(draw_cached(self.kind, self.task)[row])
        Span.last = time.perf_counter()
        return {
            "generations": [text],
            "statistics": {"input_tokens": [len(text) // 4], "output_tokens": [len(text) // 4]},
        }


_drawn: dict[tuple[str, int], list[float]] = {}


def draw_cached(kind: str, task: int) -> list[float]:
    """Give the latencies, drawn once."""
    if (kind, task) not in _drawn:
        _drawn[kind, task] = draw_latencies(kind, task)
    return _drawn[kind, task]
