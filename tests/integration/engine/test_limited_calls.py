"""Runs that may make few calls or none: they compute all that is free, and end."""

from collections.abc import Callable
from typing import Any

import pytest

from distilabel_dagster.engine.events import RunStopped, StepFinished
from distilabel_dagster.pipeline import routing_batch_function
from distilabel_dagster.steps import GlobalStep
from tests.integration.engine.llm_runs import Ask, LedgerBench, LocalLLM, Server, SimLLM
from tests.unit.engine.runs import BODIES, Calls, Numbers, mark, merge

pytestmark = pytest.mark.timeout(60)
Make = Callable[..., LedgerBench]
MODELS = pytest.mark.parametrize("model", [SimLLM, LocalLLM])


@pytest.fixture(autouse=True)
def bodies() -> None:
    BODIES.clear()
    for name in ("free", "after", "b"):
        BODIES[name] = mark(name)
    BODIES["join"] = merge


def finished(run: LedgerBench) -> set[str]:
    return {event.step for event in run.stops(StepFinished)}


@MODELS
@pytest.mark.parametrize("few", [0, 1, 7])
def test_two_leaves(bench: Make, server: Server, model: Any, few: int) -> None:
    def declare() -> None:
        load = Numbers(name="load", count=40, batch_size=4)
        load.connect(Ask(name="ask", llm=model(), input_batch_size=4))
        load.connect(Calls(name="free", input_batch_size=3))

    run = bench(declare)
    run.go(max_new_calls=few, max_rows_ahead=6)
    assert finished(run) == {"load", "free"}
    assert run.last(RunStopped).unfinished == ("ask",)
    assert server.calls <= few
    run.go()
    assert finished(run) == {"load", "free", "ask"}
    assert server.asked == {f"q{n}": 1 for n in range(40)}


@MODELS
@pytest.mark.parametrize("few", [0, 8])
def test_a_join_behind_a_step_that_has_ended_holds_up_nobody(
    bench: Make, server: Server, model: Any, few: int
) -> None:
    """The other branch has more rows than steps may be ahead of each other."""

    def declare() -> None:
        load = Numbers(name="load", count=200, batch_size=10)
        ask, other = Ask(name="ask", llm=model(), input_batch_size=4), Calls(name="b", input_batch_size=4)
        load.connect(ask, other)
        join = Calls(name="join", input_batch_size=4)
        ask.connect(join)
        other.connect(join)
        join.connect(Calls(name="after", input_batch_size=3))

    run = bench(declare)
    run.go(max_new_calls=few, max_rows_ahead=10)
    assert finished(run) == {"load", "b"}
    assert len(run.rows("b")) == 200
    assert len(run.rows("after")) <= few
    run.go(max_rows_ahead=10)
    assert run.is_finished
    assert server.asked == {f"q{n}": 1 for n in range(200)}
    assert [row["n"] for row in run.rows("after")] == list(range(200))


@routing_batch_function()
def by_turns(steps: list[str], seq_no: int) -> list[str]:
    return [steps[seq_no % len(steps)]]


@pytest.mark.parametrize("few", [0, 4])
def test_routing(bench: Make, server: Server, few: int) -> None:
    def declare() -> None:
        load = Numbers(name="load", count=120, batch_size=4)
        branches = [Ask(name="ask", llm=SimLLM(), input_batch_size=4), Calls(name="b", input_batch_size=4)]
        load.connect(*branches, routing_batch_function=by_turns)
        join = Calls(name="join", input_batch_size=4)
        for branch in branches:
            branch.connect(join)

    run = bench(declare)
    run.go(max_new_calls=few, max_rows_ahead=8)
    assert finished(run) == {"load", "b"}
    run.go(max_rows_ahead=8)
    assert run.is_finished
    assert server.calls == 60


class Whole(GlobalStep):
    def process(self, inputs: Any) -> Any:
        yield [{**row, "total": len(inputs)} for row in inputs]


@MODELS
def test_global_steps_behind_and_beside(bench: Make, server: Server, model: Any) -> None:
    def declare() -> None:
        load = Numbers(name="load", count=20, batch_size=4)
        ask = Ask(name="ask", llm=model(), input_batch_size=4)
        load.connect(ask, Whole(name="beside"))
        ask >> Whole(name="behind") >> Ask(name="last", llm=model(), prefix="last ")

    run = bench(declare)
    run.go(max_new_calls=0)
    assert finished(run) == {"load", "beside"}
    assert run.rows("behind") == []
    run.go(max_new_calls=20)
    assert finished(run) == {"load", "beside", "ask", "behind", "last"}
    assert server.calls == 40


@MODELS
def test_what_is_in_the_ledger_is_free(bench: Make, server: Server, model: Any) -> None:
    def declare(count: int) -> Callable[[], None]:
        def make() -> None:
            first = Ask(name="ask", llm=model(), input_batch_size=5)
            (
                Numbers(name="load", count=count, batch_size=5)
                >> first
                >> Ask(name="second", llm=model(), column="ask", input_batch_size=5)
            )

        return make

    bench(declare(20)).go()
    assert server.calls == 40
    whole, more = bench(declare(20)), bench(declare(40))
    whole.go(max_new_calls=0)
    assert whole.is_finished
    more.go(max_new_calls=0)
    assert server.calls == 40
    assert len(more.rows("second")) == 20
    assert finished(more) == {"load"}


def test_rows_to_be_tried_again_wait_where_no_call_may_be_made(bench: Make, server: Server) -> None:
    def reply(text: str, nth: int) -> str:
        if text in {"q2", "q13"} and not nth:
            raise ValueError("no")
        return text

    def declare() -> None:
        ask = Ask(name="ask", llm=SimLLM(), input_batch_size=4)
        Numbers(name="load", count=20, batch_size=4) >> ask >> Calls(name="after", input_batch_size=5)

    server.reply = reply
    run = bench(declare)
    run.go()
    before = run.rows("after")
    run.go(max_new_calls=0)
    assert server.calls == 20
    assert run.rows("after") == before
    run.go()
    assert server.calls == 22
    assert [row["ask"] for row in run.rows("after")] == [f"q{n}" for n in range(20)]


def test_an_error_in_a_batch_behind_the_end_is_told(bench: Make, server: Server) -> None:
    """A step that gives up waits for its later batches; what fails them isn't lost."""

    class Breaks(Ask):
        def converse(self, rows: Any) -> Any:
            if rows[0]["n"] == 8:
                raise ValueError("mine")
            return (yield from super().converse(rows))

    run = bench(
        lambda: (
            Numbers(name="load", count=12, batch_size=12)
            >> Breaks(name="ask", llm=SimLLM(), input_batch_size=4)
        )
    )
    with pytest.raises(RuntimeError, match="mine"):
        run.go(max_new_calls=0, on_error="raise")


def test_a_step_whose_load_fails_makes_no_call(bench: Make, server: Server) -> None:
    class NotLoaded(SimLLM):
        def load(self) -> None:
            raise ValueError("no key")

    run = bench(
        lambda: (
            Numbers(name="load", count=40, batch_size=40)
            >> Ask(name="ask", llm=NotLoaded(), input_batch_size=4)
        )
    )
    with pytest.raises(RuntimeError, match="no key"):
        run.go()
    assert not server.calls
