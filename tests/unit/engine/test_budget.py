"""What calls may cost: the price of the first is learned before others are begun, and none is begun beyond the limit."""

import asyncio
from typing import Any

import pytest

from distilabel_dagster.engine.budget import Budget
from distilabel_dagster.errors import CostLimitError


async def spend(budget: Budget, log: list[str], name: str, cost_usd: float | None) -> None:
    async with budget.spending():
        log.append(f"begin {name}")
        await asyncio.sleep(0.001)
        budget.add(cost_usd)
        log.append(f"end {name}")


def run(budget: Budget, *costs: float | None) -> tuple[list[str], list[Any]]:
    log: list[str] = []

    async def main() -> list[Any]:
        calls = (spend(budget, log, str(index), cost) for index, cost in enumerate(costs))
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)

    return log, asyncio.run(main())


def test_without_a_limit_all_are_begun_at_once() -> None:
    log, _ = run(Budget(None), 1.0, 1.0, 1.0)
    assert log[:3] == ["begin 0", "begin 1", "begin 2"]


def test_the_first_price_is_learned_before_others_are_begun() -> None:
    log, results = run(Budget(10.0), 1.0, 1.0, 1.0)
    assert log[:2] == ["begin 0", "end 0"]
    assert log[2:4] == ["begin 1", "begin 2"]
    assert results == [None] * 3


def test_a_price_that_earlier_runs_have_paid_needs_no_learning() -> None:
    log, _ = run(Budget(10.0, 4.0, 4), 1.0, 1.0)
    assert log[:2] == ["begin 0", "begin 1"]


def test_the_limit_holds_with_many_calls_at_once() -> None:
    budget = Budget(5.0)
    _, results = run(budget, *[1.0] * 50)
    assert budget.spent_usd == 5.0
    assert sum(isinstance(result, CostLimitError) for result in results) == 45


def test_the_error_counts_what_is_on_the_wire() -> None:
    _, results = run(Budget(3.0, 1.0, 1), 1.0, 1.0, 1.0)
    (error,) = (result for result in results if result is not None)
    assert "have cost $1.0000, and 2 more are on the wire (about $2.0000); `max_cost_usd` is $3" in str(error)
    assert (error.cost_usd, error.max_cost_usd) == (1.0, 3.0)


def test_a_first_call_that_fails_lets_the_next_one_learn() -> None:
    log, results = run(Budget(10.0), None, 1.0, 1.0)
    assert results == [None] * 3
    assert log[:3] == ["begin 0", "end 0", "begin 1"]


@pytest.mark.parametrize("spent", [5.0, 6.0])
def test_nothing_is_begun_at_the_limit(spent: float) -> None:
    log, (error,) = run(Budget(5.0, spent, 1), 1.0)
    assert isinstance(error, CostLimitError)
    assert log == []
