"""What a step's calls come to, counted while they're made."""

from collections import Counter

from distilabel_dagster.ledger.calls import StoredResponse
from distilabel_dagster.ledger.usage import Usage


def describe_usage(usage: Usage) -> str:
    """Say in a line what calls came to."""
    told = [f"{usage.calls} call{'' if usage.calls == 1 else 's'}", f"{usage.calls_reused} reused"]
    if usage.input_tokens or usage.output_tokens:
        told.append(f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out")
    if usage.cost_usd:
        told.append(f"${usage.cost_usd:.4f}" + (" and more" if usage.calls_without_price else ""))
    if usage.failures:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(usage.failures.items()))
        told.append(f"failed attempts: {kinds}")
    return ", ".join(told)


def is_unused(usage: Usage) -> bool:
    """Whether no call was asked for."""
    return not (usage.calls or usage.calls_reused or usage.failures)


class Tally:
    """Counts the calls of one step in this run; from the event loop.

    Args:
        before: what earlier runs of the step came to.
    """

    def __init__(self, before: Usage | None = None) -> None:
        self.before = before or Usage()
        self.calls = 0
        self.reused = 0
        self.failures: Counter[str] = Counter()
        self._input_tokens = 0
        self._output_tokens = 0
        self._cost_usd = 0.0
        self._without_price = 0
        self._without_tokens = 0

    def add_call(self, stored: StoredResponse) -> None:
        """Count a call that was answered."""
        self.calls += 1
        self._without_tokens += stored.input_tokens is None
        self._input_tokens += stored.input_tokens or 0
        self._output_tokens += stored.output_tokens or 0
        if stored.cost_usd is None:
            self._without_price += 1
        else:
            self._cost_usd += stored.cost_usd

    @property
    def usage(self) -> Usage:
        """What this run came to so far."""
        return Usage(
            calls=self.calls,
            calls_reused=self.reused,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            calls_without_tokens=self._without_tokens,
            cost_usd=self._cost_usd,
            calls_without_price=self._without_price,
            failures=dict(+self.failures),
        )

    @property
    def total(self) -> Usage:
        """What all runs of the step came to."""
        return self.before + self.usage
