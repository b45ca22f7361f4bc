"""What a run is going to call and pay, as values and as a table."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

PLAN_TITLES: Final = (
    "step",
    "model",
    "calls to make",
    "in the ledger",
    "tokens in",
    "tokens out",
    "cost",
)
"""Titles of the columns of `RunPlan.table`; all but the first two are numbers."""

_Amount = TypeVar("_Amount", int, float)
_UNKNOWN: Final = "unknown"
_COMPUTED: Final = (
    "Steps in front of the first model, and those whose calls are all in the ledger, were computed and kept. No call was "
    "made for this plan, except for a sample where one was asked for."
)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The calls that one step is going to make.

    Attributes:
        step: its name.
        model: its model's name.
        calls: calls to be made and paid, as far as they can be told.
        calls_in_ledger: calls that are answered already.
        rows_expected: rows that the step gets and that aren't there yet; the calls for them are estimated.
        is_estimated: whether `calls` is an estimate: for rows that aren't there yet, or of a step whose own code
            decides what is asked.
        is_open: whether more calls may come than `calls`, since nobody knows how many rows there will be.
        input_tokens: tokens that the calls to be made read, estimated; None where nothing is known of calls like them.
        output_tokens: the same for tokens that they write.
        cost_usd: what the calls to be made cost, estimated; None where it can't be told.
    """

    step: str
    model: str
    calls: int
    calls_in_ledger: int
    rows_expected: int = 0
    is_estimated: bool = False
    is_open: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    @property
    def pays(self) -> bool:
        """Whether calls are to be made, or may be."""
        return self.calls > 0 or self.is_open


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The calls that a run is going to make.

    Attributes:
        steps: the steps with a model, in the order of the graph.
        rows: each step -> rows that it has, or is expected to give.
    """

    steps: list[StepPlan]
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Calls to be made and paid, as far as they can be told."""
        return sum(step.calls for step in self.steps)

    @property
    def calls_in_ledger(self) -> int:
        """Calls that are answered already."""
        return sum(step.calls_in_ledger for step in self.steps)

    @property
    def is_estimated(self) -> bool:
        """Whether `calls` is an estimate."""
        return any(step.is_estimated for step in self.steps)

    @property
    def is_open(self) -> bool:
        """Whether more calls may come than `calls`."""
        return any(step.is_open for step in self.steps)

    @property
    def input_tokens(self) -> int | None:
        """Tokens that the calls to be made read; None where it isn't known of a step."""
        return _add_up(step.input_tokens for step in self.steps if step.pays)

    @property
    def output_tokens(self) -> int | None:
        """Tokens that the calls to be made write; None where it isn't known of a step."""
        return _add_up(step.output_tokens for step in self.steps if step.pays)

    @property
    def cost_usd(self) -> float | None:
        """What the calls to be made cost; None where it isn't known of a step."""
        return _add_up(step.cost_usd for step in self.steps if step.pays)

    def only(self, steps: Iterable[str]) -> "RunPlan":
        """Give the plan of some of the steps."""
        wanted = set(steps)
        return RunPlan([step for step in self.steps if step.step in wanted], self.rows)

    @property
    def table(self) -> list[tuple[str, ...]]:
        """A row per step with a model, and one for all of them, below `PLAN_TITLES`."""
        rows = [(step.step, step.model, *_tell_numbers(step)) for step in self.steps]
        return [*rows, ("in all", "", *_tell_numbers(self))]

    @property
    def remarks(self) -> list[str]:
        """What one has to know to read the table, a sentence each."""
        if not self.steps:
            return ["No step calls a model."]
        told = [_COMPUTED]
        if not any(step.pays for step in self.steps):
            return [*told, "A run makes no call: all of them are in the ledger."]
        if any(step.input_tokens is not None for step in self.steps):
            told.append(
                "Tokens and cost are estimates, from calls like these that were made before, else from the length of the "
                "prompts."
            )
        if self.is_estimated:
            told.append(
                '"About" stands before calls for rows that a model has to make first, and calls of steps that ask by '
                "code of their own: they're estimated. Other calls are counted."
            )
        if self.is_open:
            told.append(
                'Behind "at least" and "unknown" nobody can tell how many rows a step will give, since it makes them up '
                "as it runs."
            )
        if self.cost_usd is None and not self.is_open:
            told.append(
                "A cost is unknown where no call like these was made yet (`distilabel-dagster plan --sample` makes a few), or where the model "
                "has no price."
            )
        return told

    def __str__(self) -> str:
        widths = [
            max(len(row[index]) for row in [PLAN_TITLES, *self.table]) for index in range(len(PLAN_TITLES))
        ]
        lines = [
            "  ".join(
                cell.ljust(width) if index < 2 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in [PLAN_TITLES, *self.table]
        ]
        return "\n".join([*lines, "", *self.remarks])


def describe_plan(plan: RunPlan) -> dict[str, Any]:
    """Give a plan as plain data."""
    return {
        "calls": plan.calls,
        "calls_in_ledger": plan.calls_in_ledger,
        "is_estimated": plan.is_estimated,
        "is_open": plan.is_open,
        "input_tokens": plan.input_tokens,
        "output_tokens": plan.output_tokens,
        "cost_usd": plan.cost_usd,
        "steps": [asdict(step) for step in plan.steps],
        "rows": dict(plan.rows),
    }


def _add_up(amounts: Iterable[_Amount | None]) -> _Amount | int | None:
    """Give the sum; None where one of them isn't known."""
    found = list(amounts)
    known = [amount for amount in found if amount is not None]
    return sum(known) if len(known) == len(found) else None


def _tell_numbers(plan: StepPlan | RunPlan) -> tuple[str, ...]:
    calls = f"{plan.calls:,}"
    if plan.is_open:
        calls = f"at least {calls}" if plan.calls else _UNKNOWN
    elif plan.is_estimated:
        calls = f"about {calls}"
    in_ledger = f"{plan.calls_in_ledger:,}"
    if not (plan.calls or plan.is_open):
        return (calls, in_ledger, "0", "0", tell_cost(0.0))
    tokens = [
        _UNKNOWN if each is None else f"about {each:,}" for each in (plan.input_tokens, plan.output_tokens)
    ]
    cost = _UNKNOWN if plan.cost_usd is None else f"about {tell_cost(plan.cost_usd)}"
    return (calls, in_ledger, *tokens, cost)


def tell_cost(cost_usd: float) -> str:
    """Tell an amount of US dollars: `$12.34`, and with more digits where it's small: `$0.0012`."""
    return f"${cost_usd:,.2f}" if cost_usd >= 1 or not cost_usd else f"${cost_usd:.4f}"
