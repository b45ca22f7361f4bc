import threading

import pytest

from distilabel_dagster.engine.events import RunStarted, RunStopped, StepStopped, StopRequested
from tests.unit.engine.runs import BODIES, Bench, chain, mark

pytestmark = pytest.mark.timeout(30)


def test_closing_the_iterator_stops_the_run() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait(rows):
        entered.set()
        leave.wait(20)
        return mark("a")(rows)

    BODIES.update(a=wait)
    bench = Bench(chain("a"))
    events = bench.start()
    assert isinstance(next(events), RunStarted)
    next(events)
    assert entered.wait(20)
    leave.set()
    events.close()
    assert not any(thread.name == "engine" and thread.is_alive() for thread in threading.enumerate())
    BODIES.update(a=mark("a"))
    bench.run()
    assert len(bench.rows("a")) == 10


def test_a_step_that_never_returns_is_given_up_after_the_grace_period() -> None:
    leave = threading.Event()
    bench = Bench(chain("a", "b", size=2))

    def hang(rows):
        bench.engine.request_stop("enough")
        leave.wait(20)
        return mark("b")(rows)

    BODIES.update(a=mark("a"), b=hang)
    bench.run(grace_period_s=0.05)
    assert [event.reason for event in bench.stops(StopRequested)] == ["enough"]
    assert {event.step: event.given_up for event in bench.stops(StepStopped)}["b"] == 1
    assert bench.stops(RunStopped)[0].unfinished[-1] == "b"
    leave.set()
    BODIES.update(b=mark("b"))
    bench.run()
    assert [row["b"] for row in bench.rows("b")] == list(range(10))


def test_a_stop_commits_what_is_being_computed_and_begins_nothing_new() -> None:
    bench = Bench(chain("a", size=2))
    calls = []

    def stop(rows):
        calls.append(len(rows))
        bench.engine.request_stop("enough")
        return mark("a")(rows)

    BODIES.update(a=stop)
    bench.run()
    assert {event.step: event.given_up for event in bench.stops(StepStopped)}["a"] == 0
    assert (calls, len(bench.rows("a"))) == ([2], 2)


def test_a_stop_asked_for_before_the_run_begins_holds() -> None:
    BODIES.update(a=mark("a"))
    bench = Bench(chain("a"))
    events = bench.start()
    assert isinstance(next(events), RunStarted)
    bench.engine.request_stop("early")
    assert isinstance(list(events)[-1], RunStopped)
    assert bench.rows("load") == []
