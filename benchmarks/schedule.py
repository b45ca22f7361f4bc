"""Latencies of simulated calls, and the schedule that an engine without any cost of its own would keep."""

import heapq
import random
from collections import deque

TASKS = 3
ROWS = 1_000
CAP = 64


def draw_latencies(kind: str, task: int, rows: int = ROWS) -> list[float]:
    """Give the seconds that each row's call takes: 50 ms each, none at all, or lognormal between 20 and 500 ms."""
    if kind != "lognormal":
        return [{"constant": 0.05, "instant": 0.0}[kind]] * rows
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


def ideal_fan_out_s(kind: str, *, rows: int = ROWS, cap: int = CAP) -> float:
    """The same for tasks side by side, each with its model: the longest of their schedules."""
    return max(_makespan(draw_latencies(kind, task, rows), cap) for task in range(TASKS))


def _makespan(latencies: list[float], cap: int) -> float:
    places = [0.0] * cap
    for latency in latencies:
        heapq.heapreplace(places, places[0] + latency)
    return max(places)
