"""What a run's calls may cost."""

import contextlib
from collections.abc import Iterator

from distilabel_dagster.errors import CostLimitError


class Budget:
    """Keeps the cost of a pipeline's calls under a limit; belongs to the event loop.

    A call's price is known when it's answered, so those in flight count with the mean price of a call so far. What
    the first few cost can't be foreseen: the limit may be passed by no more than the calls in flight.

    Args:
        max_cost_usd: the limit for all runs of the pipeline under its signature; None for none.
        spent_usd: what earlier runs have paid.
    """

    def __init__(self, max_cost_usd: float | None, spent_usd: float = 0.0) -> None:
        self._limit = max_cost_usd
        self.spent_usd = spent_usd
        self._priced = 0
        self._paid_here = 0.0
        self._in_flight = 0

    def add(self, cost_usd: float | None) -> None:
        """Count what a call cost; None where that isn't known."""
        if cost_usd is not None:
            self.spent_usd += cost_usd
            self._paid_here += cost_usd
            self._priced += 1

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Make a call in the block.

        Raises:
            CostLimitError: it might cost more than is left; it isn't made.
        """
        mean = self._paid_here / self._priced if self._priced else 0.0
        expected = self.spent_usd + self._in_flight * mean
        if self._limit is not None and expected >= self._limit:
            raise CostLimitError(
                f"The calls of this pipeline have cost ${self.spent_usd:.4f}, and `max_cost_usd` is ${self._limit:g}: no "
                "further call is made. What was answered is kept; raise the limit and start the same run again to go "
                "on.",
                cost_usd=self.spent_usd,
                max_cost_usd=self._limit,
            )
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
