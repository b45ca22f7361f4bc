"""Calls that a step's own code makes: from its thread, from others, in generators, in global steps, in replicas."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from distilabel_dagster.engine.events import RunStopped, StepFinished
from distilabel_dagster.errors import CostLimitError, StepProcessError
from distilabel_dagster.models import LLM
from distilabel_dagster.models.limits import CallsStopped
from distilabel_dagster.steps import GlobalStep, Step, StepResources
from distilabel_dagster.steps.tasks import GeneratorTask, GlobalTask, Task
from tests.integration.engine.llm_replica_steps import CountingLLM
from tests.integration.engine.llm_runs import Ask, LedgerBench, LocalLLM, Server, SimLLM, chat
from tests.unit.engine.runs import Numbers

pytestmark = pytest.mark.timeout(90)
Make = Callable[..., LedgerBench]
MODELS = pytest.mark.parametrize("model", [SimLLM, LocalLLM])


def ask(llm: LLM, *texts: str) -> list[Any]:
    outputs = llm.generate_outputs([chat(text) for text in texts], **llm.get_generation_kwargs())
    return [output["generations"][0] for output in outputs]


class PastTheContract(Task):
    """Calls `generate`, which distilabel's users do as well."""

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["answer"]

    def format_input(self, input: Any) -> Any:  # noqa: A002 (distilabel's name)
        raise AssertionError("not used")

    def format_output(self, output: Any, input: Any = None) -> Any:  # noqa: A002 (distilabel's name)
        raise AssertionError("not used")

    def process(self, inputs: Any) -> Any:  # type: ignore[override]  # as any task's
        outputs = self.llm.generate([chat(f"q{row['n']}") for row in inputs])
        yield [
            {**row, "answer": output["generations"][0]} for row, output in zip(inputs, outputs, strict=True)
        ]


def test_generate_of_a_remote_model_has_the_ledger_under_it_too(bench: Make, server: Server) -> None:
    def make() -> Any:
        return Numbers(name="load", count=6) >> PastTheContract(name="ask", llm=SimLLM())

    bench(make).go()
    again = bench(make)
    again.go(use_cache=False)
    assert server.calls == 6
    assert [row["answer"] for row in again.rows("ask")] == [f"q{n}#0" for n in range(6)]


class Twice(Task):
    """Asks twice per batch, the second time about the first answers."""

    in_threads: bool = False

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["first", "second"]

    def format_input(self, input: Any) -> Any:  # noqa: A002 (distilabel's name)
        raise AssertionError("not used")

    def format_output(self, output: Any, input: Any = None) -> Any:  # noqa: A002 (distilabel's name)
        raise AssertionError("not used")

    def process(self, inputs: Any) -> Any:  # type: ignore[override]  # as any task's
        first = self._ask(*(f"q{row['n'] % 5}" for row in inputs))
        second = self._ask(*(f"about {text}" for text in first))
        yield [{**row, "first": a, "second": b} for row, a, b in zip(inputs, first, second, strict=True)]

    def _ask(self, *texts: str) -> list[Any]:
        if not self.in_threads:
            return ask(self.llm, *texts)
        found: dict[int, Any] = {}

        def work(index: int) -> None:
            found[index] = ask(self.llm, texts[index])[0]

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[index] for index in range(len(texts))]


def of_numbers(make: Callable[[], Step], count: int = 20) -> Callable[[], Any]:
    def declare() -> Any:
        return Numbers(name="load", count=count, batch_size=5) >> make()

    return declare


def stop_at(run: LedgerBench, server: Server, call: int) -> None:
    """Run to a stop at a call, then to the end."""
    server.on_ask = lambda count: run.ask_stop() if count == call else None
    run.go()
    assert run.last(RunStopped)
    assert not run.is_finished
    server.on_ask = lambda count: None
    run.go()
    assert run.is_finished


@MODELS
def test_a_process_of_its_own_has_the_ledger_under_it(bench: Make, server: Server, model: type[LLM]) -> None:
    make = lambda size: lambda: Twice(name="t", llm=model(), input_batch_size=size)  # noqa: E731  (twice, below)
    first, second = bench(of_numbers(make(4))), bench(of_numbers(make(7)))
    first.go()
    assert server.calls == 40
    assert len({row["first"] for row in first.rows("t")}) == 20, "equal questions have answers of their own"
    assert all(row["second"].startswith(f"about {row['first']}") for row in first.rows("t"))
    second.go()
    assert server.calls == 40
    assert second.rows("t") == first.rows("t")


@MODELS
@pytest.mark.parametrize("call", [1, 7, 21, 33])
def test_it_is_stopped_and_resumed_without_paying_twice(
    bench: Make, server: Server, model: type[LLM], call: int
) -> None:
    run = bench(of_numbers(lambda: Twice(name="t", llm=model(), input_batch_size=4)))
    stop_at(run, server, call)
    assert server.calls == 40
    assert len({row["first"] for row in run.rows("t")}) == 20


@MODELS
def test_threads_that_the_step_starts_have_it_as_well(bench: Make, server: Server, model: type[LLM]) -> None:
    make = lambda: Twice(name="t", llm=model(), input_batch_size=5, in_threads=True)  # noqa: E731  (twice, below)
    first, second = bench(of_numbers(make)), bench(of_numbers(make))
    first.go()
    second.go()
    assert server.calls == 40
    assert {row["first"] for row in first.rows("t")} == {row["first"] for row in second.rows("t")}


class Topics(GeneratorTask):
    """Asks for each batch, from its offset on."""

    @property
    def outputs(self) -> list[str]:
        return ["topic"]

    def process(self, offset: int = 0) -> Any:
        for at in range(offset, 12, 3):
            topics = ask(self.llm, *["a topic"] * 3)
            yield [{"topic": topic} for topic in topics], at + 3 >= 12


class TopicsFromTheBeginning(Topics):
    """Always begins at the first row."""

    def process(self, *_: Any, **__: Any) -> Any:
        for at in range(0, 12, 3):
            topics = ask(self.llm, *["a topic"] * 3)
            yield [{"topic": topic} for topic in topics], at + 3 >= 12


@MODELS
@pytest.mark.parametrize("kind", [Topics, TopicsFromTheBeginning])
@pytest.mark.parametrize("call", [2, 4, 9])
def test_a_generator_is_stopped_and_resumed(
    bench: Make, server: Server, model: type[LLM], kind: type[Topics], call: int
) -> None:
    run = bench(lambda: kind(name="t", llm=model()) >> Ask(name="ask", column="topic", llm=SimLLM()))
    undisturbed = bench(run.declare)
    stop_at(run, server, call)
    assert server.asked["a topic"] == 12
    assert len({row["topic"] for row in run.rows("t")}) == 12
    paid = server.calls
    assert paid == 24
    undisturbed.go()
    assert server.calls == paid
    assert undisturbed.rows("ask") == run.rows("ask")


class Whole(GlobalTask):
    """Asks about all rows together, then about each."""

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["summary", "each"]

    def format_input(self, input: Any) -> Any:  # noqa: A002 (distilabel's name)
        raise AssertionError("not used")

    format_output = format_input

    def process(self, inputs: Any) -> Any:  # type: ignore[override]  # as any task's
        (summary,) = ask(self.llm, f"all {len(inputs)}")
        for row in inputs:
            (each,) = ask(self.llm, f"each {row['n']}")
            row.update(summary=summary, each=each)
        yield inputs


@MODELS
def test_a_global_step_is_stopped_and_resumed(bench: Make, server: Server, model: type[LLM]) -> None:
    run = bench(of_numbers(lambda: Whole(name="g", llm=model()), count=10))
    stop_at(run, server, 6)
    assert server.asked == {"all 10": 1, **{f"each {n}": 1 for n in range(10)}}
    assert [row["each"] for row in run.rows("g")] == [f"each {n}#0" for n in range(10)]


def test_an_ordinary_global_task_keeps_failed_rows(bench: Make, server: Server) -> None:
    class Each(GlobalTask, Ask):
        pass

    def reply(text: str, nth: int) -> str:
        if text == "q3" and not nth:
            raise ValueError("no")
        return text

    server.reply = reply
    run = bench(of_numbers(lambda: Each(name="g", llm=SimLLM()), count=8))
    run.go()
    assert [row["g"] for row in run.rows("g")] == ["q0", "q1", "q2", None, "q4", "q5", "q6", "q7"]
    run.go()
    assert server.calls == 9
    assert run.rows("g")[3]["g"] == "q3"


class MakesItsModel(Step):
    """Makes a model in `load`, where nobody sees it beforehand."""

    _llm: Any = PrivateAttr(None)

    @property
    def outputs(self) -> list[str]:
        return ["said"]

    def load(self) -> None:
        super().load()
        self._llm = MODEL[0]()

    def process(self, inputs: Any) -> Any:
        said = ask(self._llm, *(f"q{row['n']}" for row in inputs))
        yield [{**row, "said": text} for row, text in zip(inputs, said, strict=True)]


MODEL: list[type[LLM]] = [SimLLM]


@MODELS
def test_a_model_made_while_loading_is_called_through_the_ledger(
    bench: Make, server: Server, model: type[LLM]
) -> None:
    MODEL[0] = model
    run = bench(of_numbers(lambda: MakesItsModel(name="m", input_batch_size=4)))
    stop_at(run, server, 7)
    assert server.asked == {f"q{n}": 1 for n in range(20)}
    assert run.last(StepFinished).usage.calls >= 1


class Judged(Ask):
    """Has a second model, which its reading of an answer asks."""

    judge: Any = None

    @property
    def outputs(self) -> list[str]:
        return [self.name, "verdict"]

    def format_output(self, output: str | None, input: Any = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        return {self.name: output, "verdict": ask(self.judge, f"judge {output}")[0]}


@MODELS
def test_a_second_model_of_a_step_has_the_ledger_too(bench: Make, server: Server, model: type[LLM]) -> None:
    class JudgedBy(Judged):
        judge: model  # type: ignore[valid-type]  # the parameter

    make = lambda: JudgedBy(name="a", llm=SimLLM(), judge=model(), input_batch_size=3)  # noqa: E731  (twice, below)
    first, second = bench(of_numbers(make, 9)), bench(of_numbers(make, 9))
    first.go()
    assert server.calls == 18
    second.go()
    assert server.calls == 18
    assert first.rows("a") == second.rows("a")
    assert first.rows("a")[0]["verdict"] == "judge q0#0#0"


def test_steps_that_share_a_model_in_this_process_ask_it_once(bench: Make, server: Server) -> None:
    def declare() -> None:
        load = Numbers(name="load", count=30, batch_size=10)
        llm = LocalLLM()
        for index, name in enumerate(("a", "b", "c")):
            load.connect(Ask(name=name, llm=llm, input_batch_size=3 + index))

    run = bench(declare)
    run.go()
    assert server.asked == {f"q{n}": 1 for n in range(30)}
    expected = [f"q{n}#0" for n in range(30)]
    for name in ("a", "b", "c"):
        assert [row[name] for row in run.rows(name)] == expected


def test_a_model_in_this_process_that_fails_is_asked_again_by_the_next_run(
    bench: Make, server: Server
) -> None:
    server.reply = lambda text, nth: {"generations": [None if text == "q3" and not nth else text]}
    run = bench(of_numbers(lambda: Ask(name="ask", llm=LocalLLM(), input_batch_size=4), count=8))
    run.go()
    assert [row["ask"] for row in run.rows("ask")].index(None) == 3
    run.go()
    assert server.calls == 9
    assert run.rows("ask")[3]["ask"] == "q3"


def test_a_batch_of_own_code_that_fails_is_made_again_from_what_was_paid(bench: Make, server: Server) -> None:
    broken = [True]

    class Breaks(Twice):
        def _ask(self, *texts: str) -> list[Any]:
            if broken[0] and texts[0].startswith("about"):
                raise ValueError("mine")
            return super()._ask(*texts)

    run = bench(of_numbers(lambda: Breaks(name="t", llm=SimLLM(), input_batch_size=4)))
    run.go()
    assert run.last(StepFinished).rows_failed == 20
    assert server.calls == 20
    broken[0] = False
    run.go()
    assert server.calls == 40
    assert len({row["first"] for row in run.rows("t")}) == 20


def test_a_stop_and_a_limit_go_through_code_that_catches_every_exception(bench: Make, server: Server) -> None:
    class Catches(Twice):
        def _ask(self, *texts: str) -> list[Any]:
            try:
                return super()._ask(*texts)
            except Exception:  # noqa: BLE001  (as careless as can be)
                return ["nothing"] * len(texts)

    run = bench(of_numbers(lambda: Catches(name="t", llm=SimLLM(), input_batch_size=4)))
    stop_at(run, server, 6)
    assert server.calls == 40
    assert "nothing" not in {row["first"] for row in run.rows("t")}
    assert not issubclass(CallsStopped, Exception)


def test_the_cost_limit_ends_a_run_of_own_code(bench: Make, server: Server) -> None:
    prices = {"input_price_usd_per_million": 1e6 / 3, "output_price_usd_per_million": 0.0}
    run = bench(
        of_numbers(lambda: Twice(name="t", llm=SimLLM(max_concurrency=1, **prices), input_batch_size=4))
    )
    with pytest.raises(CostLimitError):
        run.go(max_cost_usd=6.0)
    assert server.calls == 6


def replicated(directory: Path, count: int = 24) -> Callable[[], Any]:
    def declare() -> Any:
        return Numbers(name="load", count=count, batch_size=6) >> Ask(
            name="ask",
            llm=CountingLLM(directory=str(directory)),
            input_batch_size=2,
            modulo=8,
            resources=StepResources(replicas=2),
        )

    return declare


def calls_in(directory: Path) -> int:
    return len(list(directory.iterdir()))


def test_replicas_share_the_ledger_and_resume(bench: Make, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    run = bench(replicated(calls))
    threads = threading.active_count()
    seen = 0
    for event in run.start():
        if type(event).__name__ == "Progress" or getattr(event, "step", "") == "ask":
            seen += 1
            run.ask_stop()
    run.go()
    assert calls_in(calls) == 24
    rows = run.rows("ask")
    assert [row["n"] for row in rows] == list(range(24))
    assert len({row["ask"] for row in rows}) == 24
    for thread in threading.enumerate():
        if thread.name == "replica-desk":
            thread.join(5)
    assert not [thread for thread in threading.enumerate() if thread.name == "replica-desk"]
    assert threading.active_count() <= threads + 2


def test_a_ledger_that_fails_under_replicas_is_an_error_of_the_run(bench: Make, tmp_path: Path) -> None:
    from tests.integration.engine.test_generation import FullLedger

    calls = tmp_path / "calls"
    calls.mkdir()
    run = bench(replicated(calls), make_ledger=FullLedger)
    with pytest.raises(OSError, match="full"):
        run.go()


def test_other_errors_of_a_global_step_are_its_own(bench: Make, server: Server) -> None:
    class Fails(GlobalStep):
        def process(self, inputs: Any) -> Any:
            raise ValueError("mine")

    run = bench(of_numbers(lambda: Fails(name="g")))
    with pytest.raises(StepProcessError, match="mine"):
        run.go()
