"""A model whose calls only take time."""

import asyncio
import time
from typing import Any

from benchmarks.schedule import draw_latencies
from distilabel_dagster.models import AsyncLLM, ChatType, GenerateOutput


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

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:  # noqa: A002 (distilabel's word)
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
