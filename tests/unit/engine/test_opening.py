"""What a run does when another one has its steps: simulated leases on a cache in memory."""

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from distilabel_dagster.engine import opening
from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.events import (
    RunEvent,
    RunFinished,
    RunStarted,
    RunStopped,
    StepFinished,
    WaitingForLease,
)
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import StepInUseError
from tests.unit.engine.runs import BODIES, Bench, chain, mark

SINCE = datetime(2026, 5, 4, 3, 2, 1, tzinfo=timezone.utc)


class Lease:
    """A lease that counts how often it's looked at."""

    def __init__(self) -> None:
        self.checks = 0
        self.is_lost = self.is_released = False

    def check(self) -> None:
        self.checks += 1
        if self.is_lost or self.is_released:
            raise StepInUseError("lost")

    def release(self) -> None:
        self.is_released = True


class Ledger:
    """Gives leases when `is_free` says so.

    Attributes:
        on_ask: called at each request, with its number from 1.
    """

    def __init__(
        self, is_free: Callable[[int], bool], on_ask: Callable[[int], None] = lambda _: None
    ) -> None:
        self.is_free = is_free
        self.on_ask = on_ask
        self.asked: list[list[str]] = []
        self.given: list[Lease] = []

    def acquire(self, steps: list[str]) -> Lease:
        self.asked.append(steps)
        self.on_ask(len(self.asked))
        if not self.is_free(len(self.asked)):
            raise StepInUseError("in use", key=f"steps_data/a_{'0' * 40}", host="box", pid=7, since=SINCE)
        self.given.append(Lease())
        return self.given[-1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_ASK_EVERY_S", 0.001)
    BODIES.update(a=mark("a"), b=mark("b"))


@pytest.fixture
def bench() -> Bench:
    return Bench(chain("a", "b"))


def start(bench: Bench, ledger: Ledger, **options: Any) -> Any:
    pipeline, bench.cache = bench.open()
    bench.engine = Engine(
        pipeline.dag, bench.cache, pipeline.get_load_stages(), RunOptions(**options), acquire=ledger.acquire
    )
    return bench.engine.run()


def go(bench: Bench, events: Any) -> list[RunEvent]:
    found = []
    for event in events:
        found.append(event)
        if isinstance(event, StepFinished):
            bench.cache.seal_step(event.step)
    return found


def test_who_writes_is_raised_at_once(bench: Bench) -> None:
    ledger = Ledger(lambda _: False)
    with pytest.raises(StepInUseError, match="in use"):
        next(start(bench, ledger))
    assert ledger.asked == [["load", "a", "b"]]
    assert bench.rows("load") == []


def test_waiting_is_told_once_and_ends_with_the_lease(bench: Bench) -> None:
    ledger = Ledger(lambda asked: asked > 5)
    found = go(bench, start(bench, ledger, when_in_use="wait"))
    assert isinstance(found[1], RunStarted)
    assert isinstance(found[-1], RunFinished)
    waiting = [event for event in found if isinstance(event, WaitingForLease)]
    (told,) = waiting
    assert (told.steps, told.host, told.pid, told.since) == (("load", "a", "b"), "box", 7, SINCE)
    assert "process 7 on host `box` since 2026-05-04 03:02:01 UTC" in str(told)
    assert [lease.is_released for lease in ledger.given] == [True]
    assert ledger.given[0].checks, "each write asks"


def test_what_was_made_meanwhile_is_used(bench: Bench) -> None:
    def make(asked: int) -> None:
        if asked == 3:
            other = Bench(bench.declare, bench.root)
            other.run(steps=["load", "a"])

    ledger = Ledger(lambda asked: asked > 3, make)
    found = go(bench, start(bench, ledger, when_in_use="wait"))
    started = next(event for event in found if isinstance(event, RunStarted))
    assert {name: state.is_complete for name, state in started.steps.items()} == {
        "load": True,
        "a": True,
        "b": False,
    }
    assert found[-1] == RunFinished(4, 9)


def test_no_lease_is_needed_when_all_is_made_meanwhile(bench: Bench) -> None:
    def make(asked: int) -> None:
        if asked == 3:
            Bench(bench.declare, bench.root).run()

    ledger = Ledger(lambda _: False, make)
    found = go(bench, start(bench, ledger, when_in_use="wait"))
    assert found[-1] == RunFinished(0, 13)


def test_what_changes_between_the_look_and_the_lease_is_seen(bench: Bench) -> None:
    """`a` was whole when it was looked at, so only `b` was asked for; then someone dropped it."""
    bench.run(steps=["load", "a"])

    def drop(asked: int) -> None:
        if asked == 1:
            _, cache = bench.open()
            cache.stores["a"].open()
            cache.stores["a"].reset()

    ledger = Ledger(lambda _: True, drop)
    found = go(bench, start(bench, ledger))
    assert isinstance(found[-1], RunFinished)
    assert [row["b"] for row in bench.rows("b")] == list(range(10))


@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_a_stop_ends_the_waiting_with_nothing_taken(bench: Bench, when: str) -> None:
    ledger = Ledger(lambda _: False)
    events = start(bench, ledger, when_in_use="wait", grace_period_s=60)
    if when == "before":
        bench.engine.request_stop("early")
        found = list(events)
        assert len(ledger.asked) == 1
    else:
        found = [next(events)]
        threading.Timer(0.05, bench.engine.request_stop, ["enough"]).start()
        found += events
        assert len(ledger.asked) > 1
    assert found[1:] == [RunStopped(("load", "a", "b"))]
    assert bench.rows("load") == []


def test_a_lease_that_is_lost_ends_the_run_and_nothing_more_is_written(bench: Bench) -> None:
    ledger = Ledger(lambda _: True)

    def lose(rows: Any) -> Any:
        ledger.given[0].is_lost = True
        return mark("a")(rows)

    BODIES.update(a=lose)
    with pytest.raises(StepInUseError, match="lost"):
        go(bench, start(bench, ledger))
    assert bench.rows("a") == []


def test_nothing_is_written_when_the_lease_is_given_back(bench: Bench) -> None:
    """So a thread that is left behind, and wakes up later, can't do it either."""
    ledger = Ledger(lambda _: True)
    go(bench, start(bench, ledger))
    with pytest.raises(StepInUseError):
        bench.cache.stores["a"].reset()
    again = go(bench, start(bench, ledger, use_cache=False))
    assert isinstance(again[-1], RunFinished), "a run of its own may"
