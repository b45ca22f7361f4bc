"""What a run's calls may cost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from math import inf

from distilabel_dagster.errors import CostLimitError


class Budget:
    """Keeps the cost of a pipeline's calls under a limit; belongs to the event loop.

    A call's price is known when it's answered, so those in flight count with the mean price of a call so far, and until
    that's known one is made at a time. The limit is passed by as much as calls cost more than the mean.

    Args:
        max_cost_usd: the limit for all runs of the pipeline under its signature; None for none.
        spent_usd: what earlier runs have paid.
        calls_priced: for how many calls.
    """

    def __init__(self, max_cost_usd: float | None, spent_usd: float = 0.0, calls_priced: int = 0) -> None:
        self._limit = max_cost_usd
        self.spent_usd = spent_usd
        self._priced = calls_priced
        self._in_flight = 0
        self._changed = asyncio.Condition()

    def add(self, cost_usd: float | None) -> None:
        """Count what a call cost; None where that isn't known."""
        if cost_usd is not None:
            self.spent_usd += cost_usd
            self._priced += 1

    @property
    def is_limited(self) -> bool:
        """Whether there's a limit; without one, calls needn't ask."""
        return self._limit is not None

    @property
    def _reserved_usd(self) -> float:
        """What the calls in flight are going to cost."""
        return self._in_flight * (self.spent_usd / self._priced if self._priced else 0.0)

    @contextlib.asynccontextmanager
    async def spending(self) -> AsyncIterator[None]:
        """Make a call in the block.

        Raises:
            CostLimitError: it might cost more than is left; it isn't made.
        """
        limit = inf if self._limit is None else self._limit
        async with self._changed:
            await self._changed.wait_for(lambda: self._priced or not (self.is_limited and self._in_flight))
            self._check(limit)
            self._in_flight += 1
        try:
            yield
        finally:
            async with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def _check(self, limit: float) -> None:
        if self.spent_usd + self._reserved_usd < limit:
            return
        on_the_wire = (
            f", and {self._in_flight} more are on the wire (about ${self._reserved_usd:.4f})"
            if self._in_flight
            else ""
        )
        raise CostLimitError(
            f"The calls of this pipeline have cost ${self.spent_usd:.4f}{on_the_wire}; `max_cost_usd` is ${limit:g}, so no "
            "further call is made. What is answered is kept; raise the limit and start the same run again to go on.",
            cost_usd=self.spent_usd,
            max_cost_usd=limit,
        )
