"""What calls have used: calls, tokens, cost and failures of each step, kept as counters."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import fsum, inf
from typing import Any, Final

from sqlalchemy import Connection, Engine, RowMapping, Table, func, select

from distilabel_dagster.ledger.calls import FailedAttempt, Paid, StepInRun, StoredResponse, encode_step
from distilabel_dagster.ledger.database import read_transaction, upsert
from distilabel_dagster.ledger.database_errors import build_error, describe_url
from distilabel_dagster.ledger.schema import FAILED_ATTEMPTS_TABLE, FAILURES_TABLE, USAGE_TABLE

_STEP: Final = ("partition", "step_key", "step", "model", "endpoint")
_COUNTERS: Final = (
    "calls",
    "calls_reused",
    "input_tokens",
    "output_tokens",
    "calls_without_tokens",
    "cost_usd",
    "calls_without_price",
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a step has used, over all runs; two can be added.

    Attributes:
        calls: calls that were answered and paid.
        calls_reused: answers that came from the ledger.
        input_tokens: of the calls, as far as known.
        output_tokens: of the calls, as far as known.
        calls_without_tokens: calls of which the tokens aren't known.
        cost_usd: of the calls, as far as known.
        calls_without_price: calls of which the cost isn't known.
        failures: failed attempts by kind.
    """

    calls: int = 0
    calls_reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    calls_without_tokens: int = 0
    cost_usd: float = 0.0
    calls_without_price: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Usage") -> "Usage":
        counters = {name: getattr(self, name) + getattr(other, name) for name in _COUNTERS}
        failures = Counter(self.failures)
        failures.update(other.failures)
        return Usage(**counters, failures=dict(failures))


@dataclass(frozen=True, slots=True)
class AverageUsage:
    """What a call has used on average; None where it isn't known of any call.

    Attributes:
        calls: how many it's the average of.
        input_tokens: of a call.
        output_tokens: of a call.
        cost_usd: of a call.
    """

    calls: int
    input_tokens: float | None
    output_tokens: float | None
    cost_usd: float | None


def usage_of(paid: Iterable[Paid], failed: Iterable[FailedAttempt] = ()) -> dict[StepInRun, Usage]:
    """Add up what some calls have used, for each step."""
    responses: dict[StepInRun, list[StoredResponse]] = {}
    kinds: dict[StepInRun, Counter[str]] = {}
    for each in paid:
        responses.setdefault(each.step, []).append(each.response)
    for attempt in failed:
        kinds.setdefault(attempt.step, Counter())[attempt.kind] += 1
    return {
        step: _add_up_calls(responses.get(step, []), kinds.get(step, {})) for step in {**responses, **kinds}
    }


def add_up(usages: Iterable[Usage]) -> Usage:
    """Give the total."""
    return sum(usages, Usage())


def count_usage(connection: Connection, used: Mapping[StepInRun, Usage]) -> None:
    """Add to the counters, in a transaction of the caller."""
    counted = [
        {**encode_step(step), **{name: getattr(usage, name) for name in _COUNTERS}}
        for step, usage in used.items()
        if usage.calls or usage.calls_reused
    ]
    failures = [
        {**encode_step(step), "kind": kind, "attempts": count}
        for step, usage in used.items()
        for kind, count in usage.failures.items()
    ]
    if counted:
        connection.execute(upsert(connection, USAGE_TABLE, added=_COUNTERS), counted)
    if failures:
        connection.execute(upsert(connection, FAILURES_TABLE, added=("attempts",)), failures)


def read_usage(
    engine: Engine, *, partition: str | None = None, step_key: str | None = None
) -> dict[StepInRun, Usage]:
    """Read the counters of all steps, or of those of a pipeline, or of one step.

    A step that changed its model without a change of its signature has an entry for each model.

    Raises:
        CacheError: the database can't be read.
    """
    totals: dict[StepInRun, Usage] = {}
    with read_transaction(engine) as connection:
        counted = connection.execute(_select(USAGE_TABLE, partition, step_key)).mappings().all()
        failures = connection.execute(_select(FAILURES_TABLE, partition, step_key)).mappings().all()
    for row in counted:
        _check(engine, row, texts=_STEP, numbers=_COUNTERS)
        totals[_to_step(row)] = Usage(**{name: row[name] for name in _COUNTERS})
    for row in failures:
        _check(engine, row, texts=(*_STEP, "kind"), numbers=("attempts",))
        step = _to_step(row)
        totals[step] = totals.get(step, Usage()) + Usage(failures={row["kind"]: row["attempts"]})
    return totals


def average_usage(engine: Engine, endpoint: str, model: str, step: str | None = None) -> AverageUsage | None:
    """Tell what a call to a model has used on average, in all steps or in those with one name; None without calls.

    Raises:
        CacheError: the database can't be read.
    """
    table = USAGE_TABLE.c
    query = select(*(func.sum(table[name]) for name in _COUNTERS)).where(
        table.model == model, table.endpoint == endpoint
    )
    if step is not None:
        query = query.where(table.step == step)
    with read_transaction(engine) as connection:
        found = dict(zip(_COUNTERS, connection.execute(query).one(), strict=True))
    if not found["calls"]:
        return None
    _check(engine, found, texts=(), numbers=_COUNTERS)
    calls = int(found["calls"])
    counted = calls - int(found["calls_without_tokens"])
    priced = calls - int(found["calls_without_price"])
    return AverageUsage(
        calls=calls,
        input_tokens=float(found["input_tokens"]) / counted if counted else None,
        output_tokens=float(found["output_tokens"]) / counted if counted else None,
        cost_usd=float(found["cost_usd"]) / priced if priced else None,
    )


def read_failed_attempts(
    engine: Engine, partition: str, step_key: str, limit: int = 20
) -> list[FailedAttempt]:
    """Read a step's last failed attempts, the latest first.

    Raises:
        CacheError: the database can't be read.
    """
    table = FAILED_ATTEMPTS_TABLE.c
    query = (
        select(FAILED_ATTEMPTS_TABLE)
        .where(table.partition == partition, table.step_key == step_key)
        .order_by(table.id.desc())
        .limit(limit)
    )
    with read_transaction(engine) as connection:
        rows = connection.execute(query).mappings().all()
    for row in rows:
        _check(engine, row, texts=(*_STEP, "kind", "message", "run_id"), numbers=("at",))
    return [
        FailedAttempt(
            key=row["key"],
            step=_to_step(row),
            **{name: row[name] for name in ("kind", "status_code", "message", "run_id", "at")},
        )
        for row in rows
    ]


def _add_up_calls(responses: list[StoredResponse], failures: Mapping[str, int]) -> Usage:
    is_counted = [each.input_tokens is not None and each.output_tokens is not None for each in responses]
    return Usage(
        calls=len(responses),
        input_tokens=sum(each.input_tokens or 0 for each in responses),
        output_tokens=sum(each.output_tokens or 0 for each in responses),
        calls_without_tokens=is_counted.count(False),
        cost_usd=fsum(each.cost_usd or 0.0 for each in responses),
        calls_without_price=sum(each.cost_usd is None for each in responses),
        failures=dict(failures),
    )


def _select(table: Table, partition: str | None, step_key: str | None) -> Any:
    query = select(table)
    if partition is not None:
        query = query.where(table.c.partition == partition)
    if step_key is not None:
        query = query.where(table.c.step_key == step_key)
    return query


def _check(engine: Engine, row: Mapping[Any, Any], texts: Iterable[str], numbers: Iterable[str]) -> None:
    """Make sure that a row holds what can be in it.

    Raises:
        DamagedFileError: it doesn't.
    """
    if all(isinstance(row[name], str) for name in texts) and all(
        isinstance(row[name], int | float | Decimal) and abs(row[name]) < inf for name in numbers
    ):
        return
    reason = "a row of its counters holds values of other types than were written"
    raise build_error("damaged", describe_url(engine.url), "read", reason)


def _to_step(row: RowMapping) -> StepInRun:
    return StepInRun(**{name: row[name] for name in _STEP})
