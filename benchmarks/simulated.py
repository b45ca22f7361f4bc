"""A model whose calls only take time, and the schedule that an engine without any cost of its own would keep."""

import asyncio
import heapq
import random
import time
from collections import deque
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


def ideal_span_s(
    kind: str,
    batch_size: int,
    *,
    is_shared: bool = False,
    in_order: bool = True,
    rows: int = ROWS,
    cap: int = CAP,
) -> float:
    """Simulate the chain of tasks: calls begin in the order in which they may, as soon as there's a place in flight.

    Args:
        kind: of the latencies.
        batch_size: rows that go on together, when all of them and all before them are answered.
        is_shared: whether the tasks have one model, and so `cap` places together, or `cap` places each.
        in_order: False lets rows go on one by one and overtake each other, which an engine that keeps their order can't.
        rows: rows of the dataset.
        cap: calls in flight.
    """
    latencies = [draw_latencies(kind, task, rows) for task in range(TASKS)]
    waiting: list[deque[tuple[int, int]]] = [deque() for _ in range(TASKS)]
    free = [cap] * TASKS
    left = [[min(batch_size, rows - start) for start in range(0, rows, batch_size)] for _ in range(TASKS)]
    handed_on = [0] * TASKS
    ends: list[tuple[float, int, int]] = []
    now = 0.0

    def begin(queue: int) -> None:
        while free[queue] and waiting[queue]:
            free[queue] -= 1
            task, row = waiting[queue].popleft()
            heapq.heappush(ends, (now + latencies[task][row], task, row))

    def arrive(task: int, arrived: range) -> None:
        if task < TASKS:
            waiting[0 if is_shared else task].extend((task, row) for row in arrived)

    arrive(0, range(rows))
    begin(0)
    while ends:
        now, task, row = heapq.heappop(ends)
        free[0 if is_shared else task] += 1
        if not in_order:
            arrive(task + 1, range(row, row + 1))
        else:
            left[task][row // batch_size] -= 1
            while handed_on[task] < len(left[task]) and not left[task][handed_on[task]]:
                start = handed_on[task] * batch_size
                arrive(task + 1, range(start, min(start + batch_size, rows)))
                handed_on[task] += 1
        for queue in range(TASKS):
            begin(queue)
    return now


class Span:
    """From the first call to the last answer."""

    first = 0.0
    last = 0.0
    calls = 0


class SimulatedLLM(AsyncLLM):
    """Answers after the time drawn for its row; the row's number is the first word of the prompt."""

    task: int
    kind: str
    is_shared: bool = False

    @property
    def model_name(self) -> str:
        return "simulated" if self.is_shared else f"simulated-{self.task}"

    @property
    def endpoint(self) -> str:
        """Limits go by endpoint and model: with one of each, the tasks share their places in flight."""
        return "simulated"

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
