"""Steps that never come back: what a stop does with them, and what is told."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distilabel_dagster.engine import engine, step_worker
from distilabel_dagster.engine.daemon_threads import DaemonThreads
from distilabel_dagster.engine.events import RunFinished, RunStopped, StepStopped, StepWarning
from distilabel_dagster.models import AsyncLLM
from distilabel_dagster.steps import GeneratorStep, Step
from distilabel_dagster.steps.tasks import TextGeneration
from tests.unit.engine.runs import BODIES, Bench, Numbers, mark

pytestmark = pytest.mark.timeout(60)
leave = threading.Event()
entered = threading.Event()


def hang() -> None:
    entered.set()
    leave.wait(50)


class Hanging(Step):
    """Doesn't return from the method that it's told."""

    where: str

    @property
    def outputs(self) -> list[str]:
        return ["done"]

    def load(self) -> None:
        super().load()
        if self.where == "load":
            hang()

    def unload(self) -> None:
        if self.where == "unload":
            hang()

    def process(self, inputs: Any) -> Any:
        if self.where == "process":
            hang()
        yield [{**row, "done": True} for row in inputs]


class NeverYields(GeneratorStep):
    """A generator that gives nothing, and doesn't end."""

    @property
    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, offset: int = 0) -> Any:
        hang()
        yield [], True


class Blocking(AsyncLLM):
    """A model whose coroutine blocks the event loop, or goes on when it's cancelled."""

    how: str

    @property
    def model_name(self) -> str:
        return "blocking"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:  # noqa: A002 (distilabel's name)
        if self.how == "blocks":
            hang()
        entered.set()
        while not leave.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        return {"generations": ["late"], "statistics": {}}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    entered.clear()
    leave.clear()
    yield
    leave.set()
    deadline = time.monotonic() + 30
    while any(thread.name in ("engine", "step-a") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stop_when_it_hangs(declare: Callable[[], Any], **options: Any) -> tuple[Bench, list[Any]]:
    """Run until the step hangs, stop, and go through to the end."""
    bench = Bench(declare)

    def stop() -> None:
        entered.wait(40)
        bench.engine.request_stop("enough")

    events = bench.start(grace_period_s=0.1, **options)
    threading.Thread(target=stop, daemon=True).start()
    return bench, list(events)


def with_step(where: str) -> Callable[[], Any]:
    return lambda: (
        Numbers(name="load", count=4, batch_size=2) >> Hanging(name="a", where=where, input_batch_size=2)
    )


@pytest.mark.parametrize("where", ["load", "process", "unload"])
def test_the_message_says_which_step_where(where: str) -> None:
    bench, events = stop_when_it_hangs(with_step(where))
    (warning,) = [event for event in events if isinstance(event, StepWarning)]
    assert warning.step == "a"
    assert f"`{where}()` hasn't returned (test_hanging_steps.py:" in warning.message
    assert any(isinstance(event, StepStopped) and event.step == "a" for event in events)
    assert isinstance(events[-1], RunStopped)
    assert "a" in events[-1].unfinished
    assert events[-1].left_at == ""
    assert len(bench.rows("load")) == 4, "what others had made is committed"
    leave.set()
    assert isinstance(list(Bench(with_step(where), bench.root).start())[-1], RunFinished)


def test_a_generator_that_never_yields() -> None:
    _, events = stop_when_it_hangs(lambda: NeverYields(name="a"))
    (warning,) = [event for event in events if isinstance(event, StepWarning)]
    assert warning.step == "a"
    assert "`process()` hasn't returned (test_hanging_steps.py:" in warning.message
    assert isinstance(events[-1], RunStopped)


@pytest.mark.parametrize("how", ["blocks", "goes on"])
def test_a_model_that_holds_up_the_event_loop_itself(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_GIVE_UP_S", 0.5)
    monkeypatch.setattr(engine, "_LOOK_EVERY_S", 0.05)

    def declare() -> None:
        mapping = {"instruction": "n"}
        Numbers(name="load", count=2) >> TextGeneration(
            name="a", llm=Blocking(how=how), input_mappings=mapping, template="{{ instruction }}"
        )

    _, events = stop_when_it_hangs(declare)
    assert isinstance(events[-1], RunStopped)
    assert "a" in events[-1].unfinished
    if how == "blocks":
        assert events[-1].left_at.startswith("test_hanging_steps.py:")
        assert "was left, at test_hanging_steps.py:" in str(events[-1])


def test_a_run_whose_rows_are_all_made_does_not_wait_for_ever_for_unload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step_worker, "UNLOAD_PATIENCE_S", 0.2)
    events = list(Bench(with_step("unload")).start())
    (warning,) = [event for event in events if isinstance(event, StepWarning)]
    assert "`unload()` hasn't returned (test_hanging_steps.py:" in warning.message
    assert "for 0.2 s; the run goes on" in warning.message
    assert isinstance(events[-1], RunFinished)


def test_what_wakes_up_behind_the_end_of_the_run_writes_nothing() -> None:
    bench, _ = stop_when_it_hangs(with_step("process"))
    before = bench.rows("a")
    leave.set()
    time.sleep(0.3)
    assert bench.rows("a") == before == []


def test_closing_the_events_of_a_run_that_hangs() -> None:
    bench = Bench(with_step("process"))
    events = bench.start(grace_period_s=0.1)
    while not entered.is_set():
        next(events)
        entered.wait(0.2)
    events.close()


def test_other_steps_are_not_named() -> None:
    BODIES.update(b=mark("b"))
    from tests.unit.engine.runs import Calls

    def declare() -> None:
        load = Numbers(name="load", count=4, batch_size=2)
        load >> [Hanging(name="a", where="process", input_batch_size=2), Calls(name="b", input_batch_size=2)]

    _, events = stop_when_it_hangs(declare)
    assert [event.step for event in events if isinstance(event, StepWarning)] == ["a"]


def test_helper_threads_are_daemons_and_nobody_waits_for_them() -> None:
    executor = DaemonThreads()
    hanging = executor.submit(hang)
    assert entered.wait(30)
    assert executor.submit(lambda: 7).result(30) == 7
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 // 0).result(30)
    executor.shutdown(wait=True)
    assert not hanging.done()
    helpers = [thread for thread in threading.enumerate() if thread.name == "engine-helper"]
    assert helpers
    assert all(thread.daemon for thread in helpers)


def test_many_calls_share_few_threads() -> None:
    executor = DaemonThreads()
    seen: set[int] = set()

    def note(number: int) -> int:
        seen.add(threading.get_ident())
        time.sleep(0.001)
        return number

    futures = [executor.submit(note, number) for number in range(200)]
    assert [future.result(30) for future in futures] == list(range(200))
    assert 0 < len(seen) <= 32
