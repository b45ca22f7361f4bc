"""The calls of a run: each made once, kept before it's used, rows in order, and ends that are clean."""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilabel_dagster.engine import ledger_io
from distilabel_dagster.engine.events import RunStopped, StepFinished, StepStopped
from distilabel_dagster.errors import (
    CacheFullError,
    CostLimitError,
    ModelCallError,
    StepProcessError,
)
from distilabel_dagster.ledger.calls import Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.responses import DAMAGED_ANSWER, ResponseLedger
from tests.integration.engine.llm_runs import Ask, LedgerBench, OneByOneLLM, Server, SimLLM
from tests.unit.engine.runs import Numbers

pytestmark = pytest.mark.timeout(60)
Make = Callable[..., LedgerBench]


def one_task(count: int = 20, batch: int = 4, llm: type[SimLLM] = SimLLM, **fields: Any) -> Callable[[], Any]:
    options = fields.pop("llm_options", {})

    def declare() -> Any:
        return Numbers(name="load", count=count, batch_size=5) >> Ask(
            name="ask", llm=llm(**options), input_batch_size=batch, **fields
        )

    return declare


def answers(rows: list[dict[str, Any]], step: str = "ask") -> list[Any]:
    return [row[step] for row in rows]


def failure(kind: str) -> ModelCallError:
    return ModelCallError("No.", model="m", endpoint="sim://main", kind=kind, status_code=None)


def test_rows_keep_their_order_whatever_answers_first(bench: Make, server: Server) -> None:
    server.delay_s = lambda text: 0.005 * (40 - int(text[1:]))
    run = bench(one_task(40))
    run.go()
    assert answers(run.rows("ask")) == [f"q{n}#0" for n in range(40)]
    assert server.most_in_flight == 16
    assert server.closed == 1
    finished = {event.step: event for event in run.stops(StepFinished)}
    usage = finished["ask"].usage
    assert (usage.calls, usage.calls_reused, usage.input_tokens, usage.output_tokens) == (40, 0, 120, 80)


def test_another_cache_pays_nothing(bench: Make, server: Server) -> None:
    first, second = bench(one_task()), bench(one_task(batch=7))
    first.go()
    second.go()
    assert server.calls == 20
    assert second.rows("ask") == first.rows("ask")


def test_without_a_ledger_all_goes_as_well(server: Server) -> None:
    run = LedgerBench(one_task())
    run.go()
    assert answers(run.rows("ask")) == [f"q{n}#0" for n in range(20)]


def test_equal_questions_get_answers_of_their_own_and_the_same_again(bench: Make, server: Server) -> None:
    first, second = bench(one_task(12, modulo=3)), bench(one_task(14, batch=5, modulo=3))
    first.go()
    found = answers(first.rows("ask"))
    assert sorted(found) == sorted(f"q{n % 3}#{n // 3}" for n in range(12))
    second.go()
    assert answers(second.rows("ask"))[:12] == found
    assert sorted(answers(second.rows("ask"))) == sorted(f"q{n % 3}#{n // 3}" for n in range(14))
    assert server.calls == 14


def test_two_steps_that_want_the_same_call_make_it_once(bench: Make, server: Server) -> None:
    server.delay_s = lambda text: 0.01

    def declare() -> None:
        load = Numbers(name="load", count=10, batch_size=10)
        llm = SimLLM()
        for name in ("a", "b", "c"):
            load.connect(Ask(name=name, llm=llm if name != "c" else SimLLM(), input_batch_size=3))

    run = bench(declare)
    run.go()
    assert server.asked == {f"q{n}": 1 for n in range(10)}
    assert answers(run.rows("a"), "a") == answers(run.rows("b"), "b") == answers(run.rows("c"), "c")
    usages = [event.usage for event in run.stops(StepFinished) if event.step != "load"]
    assert sum(usage.calls for usage in usages) == 10
    assert sum(usage.calls_reused for usage in usages) == 20


def test_two_runs_at_the_same_time_make_each_call_once(bench: Make, server: Server) -> None:
    server.delay_s = lambda text: 0.02
    runs = [bench(one_task(30)), bench(one_task(30))]
    threads = [threading.Thread(target=run.go) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert server.asked == {f"q{n}": 1 for n in range(30)}
    assert runs[0].rows("ask") == runs[1].rows("ask")


def test_a_failing_call_fails_its_row_only_and_is_tried_by_the_next_run(bench: Make, server: Server) -> None:
    def reply(text: str, nth: int) -> str:
        if text in {"q3", "q11"} and server.asked[text] < 2:
            raise failure("context_length")
        return f"{text} is fine"

    server.reply = reply
    run = bench(one_task())
    run.go()
    assert [n for n, answer in enumerate(answers(run.rows("ask"))) if answer is None] == [3, 11]
    assert run.last(StepFinished).rows_failed == 2
    run.go()
    assert server.calls == 22
    assert answers(run.rows("ask")) == [f"q{n} is fine" for n in range(20)]
    usage = run.last(StepFinished).usage
    assert (usage.calls, usage.failures) == (20, {"context_length": 2})


@pytest.mark.parametrize("said", [{"generations": [None]}, {"generations": []}])
def test_an_answer_without_text_is_a_failed_row(bench: Make, server: Server, said: Any) -> None:
    server.reply = lambda text, nth: said if text == "q3" else text
    run = bench(one_task(6))
    run.go()
    assert answers(run.rows("ask")) == ["q0", "q1", "q2", None, "q4", "q5"]


@pytest.mark.parametrize(
    "said",
    [
        {"generations": ["x", "y"]},
        {"generations": "x"},
        {"no": "generations"},
        {"generations": ["x"], "score": [object()]},
        {"generations": ["x"], "statistics": 5},
        {("a", "tuple"): 1},
    ],
    ids=["too many", "no list", "no generations", "no data", "no statistics", "no name"],
)
def test_what_is_no_output_fails_its_row_only_and_is_not_kept(bench: Make, server: Server, said: Any) -> None:
    server.reply = lambda text, nth: said if text == "q3" and not nth else text
    run = bench(one_task(6))
    run.go()
    assert answers(run.rows("ask")) == ["q0", "q1", "q2", None, "q4", "q5"]
    assert "Output" in str(run.rows("ask")[3]["distilabel_metadata"]) or "error_ask" in str(
        run.rows("ask")[3]
    )
    run.go()
    assert answers(run.rows("ask"))[3] == "q3", "what can't be read isn't taken from the ledger for ever"


@pytest.mark.parametrize("count", [2**70, -1, True, "many", 0.5])
def test_numbers_of_tokens_that_can_be_none_are_left_out(bench: Make, server: Server, count: Any) -> None:
    odd = {"generations": ["x"], "statistics": {"input_tokens": [count]}, "finish_reasons": [3]}
    server.reply = lambda text, nth: odd if text == "q3" else text
    run = bench(one_task(30))
    run.go()
    assert answers(run.rows("ask")) == [
        *(f"q{row}" for row in range(3)),
        "x",
        *(f"q{row}" for row in range(4, 30)),
    ]
    assert server.calls == 30
    run.go()
    assert server.calls == 30


def test_values_that_are_nearly_json_are_equal_now_and_later(bench: Make, server: Server) -> None:
    server.reply = lambda text, nth: {
        "generations": (np.str_(text),),
        "statistics": {"input_tokens": np.array([3]), "output_tokens": (np.int64(2),)},
        "scores": [[np.float32(0.5), float("-inf"), 1e300]],
        "words": [("ä", text, "\U0001f426")],
    }
    first, second = bench(one_task(6)), bench(one_task(6))
    first.go()
    second.go()
    assert server.calls == 6
    assert first.rows("ask") == second.rows("ask")
    row = first.rows("ask")[1]
    assert row["llm_ask_scores"] == [0.5, float("-inf"), 1e300]
    assert row["ask"] == "q1"
    usage = first.last(StepFinished).usage
    assert (usage.input_tokens, usage.output_tokens) == (18, 12)


@pytest.mark.parametrize(("llm", "calls"), [(SimLLM, [6, 12]), (OneByOneLLM, [12, 18])])
@pytest.mark.parametrize("grouped", [False, True])
def test_generations(
    bench: Make, server: Server, llm: type[SimLLM], calls: list[int], *, grouped: bool
) -> None:
    found = []
    for wanted in (2, 3):
        run = bench(one_task(6, llm=llm, num_generations=wanted, group_generations=grouped))
        run.go()
        found.append(answers(run.rows("ask")))
        assert server.calls == calls[wanted - 2], "a further one costs one, where each is a call"
    two, three = found
    if not grouped:
        two, three = (
            [two[at : at + 2] for at in range(0, 12, 2)],
            [three[at : at + 3] for at in range(0, 18, 3)],
        )
    assert [len(set(each)) for each in (*two, *three)] == [2] * 6 + [3] * 6
    assert all(each.startswith(f"q{n}#") for n, of_row in enumerate(three) for each in of_row)
    if llm is OneByOneLLM:
        assert [each[:2] for each in three] == two


def test_one_generation_that_fails_leaves_the_others(bench: Make, server: Server) -> None:
    def reply(text: str, nth: int) -> str:
        if text == "q1" and nth == 1:
            raise failure("content_filter")
        return f"{text}#{nth}"

    server.reply = reply
    run = bench(one_task(3, llm=OneByOneLLM, num_generations=3))
    run.go()
    assert answers(run.rows("ask"))[3:6].count(None) == 1
    run.go()
    assert None not in answers(run.rows("ask"))
    assert server.calls == 10, "only what failed is called again"


def test_answers_that_cannot_be_read_are_followed_up_and_resumed(bench: Make, server: Server) -> None:
    def reply(text: str, nth: int) -> str:
        if text.startswith("again") and "q3" in text:
            return "bad for good"
        return f"fine, {len(text)}" if text.startswith("again") else f"bad {text}"

    server.reply = reply
    server.on_ask = lambda count: run.ask_stop() if count == 14 else None
    run = bench(one_task(10, turns=1, llm_options={"max_concurrency": 2}))
    run.go()
    assert run.last(RunStopped)
    server.on_ask = lambda count: None
    run.go()
    assert run.is_finished
    assert [n for n, answer in enumerate(answers(run.rows("ask"))) if answer is None] == [3]
    assert answers(run.rows("ask"))[0] == "fine, 12"
    assert server.calls == 20, "each turn was paid once"


def test_follow_ups_of_equal_questions_and_of_each_generation(bench: Make, server: Server) -> None:
    server.reply = lambda text, nth: f"fine {nth}" if text.startswith("again") else "bad"
    fields = {"turns": 2, "modulo": 2, "num_generations": 2, "llm": OneByOneLLM}
    first, second = bench(one_task(6, **fields)), bench(one_task(6, batch=1, **fields))
    first.go()
    second.go()
    assert server.asked == {"q0": 6, "q1": 6, "again bad": 12}
    assert answers(first.rows("ask")) == answers(second.rows("ask"))
    assert len(set(answers(first.rows("ask")))) == 12


def test_at_a_stop_nothing_new_begins_and_what_was_on_the_wire_is_kept(bench: Make, server: Server) -> None:
    server.delay_s = lambda text: 0.2
    server.on_ask = lambda count: run.ask_stop() if count == 8 else None
    run = bench(one_task(60, llm_options={"max_concurrency": 4}))
    run.go()
    assert run.last(RunStopped).unfinished
    asked = server.calls
    assert asked <= 8
    assert server.answered.total() == asked, "what was on the wire could end"
    assert not run.stops(StepFinished) or run.last(StepFinished).step == "load"
    server.on_ask, server.delay_s = (lambda count: None), (lambda text: 0.0)
    run.go()
    assert server.asked == {f"q{n}": 1 for n in range(60)}
    assert answers(run.rows("ask")) == [f"q{n}#0" for n in range(60)]


def test_after_the_grace_period_what_is_on_the_wire_is_given_up(bench: Make, server: Server) -> None:
    server.delay_s = lambda text: 100.0 if text == "q6" else 0.0
    server.on_ask = lambda count: run.ask_stop() if count == 7 else None
    run = bench(one_task(20, llm_options={"max_concurrency": 1}))
    begun = time.monotonic()
    run.go(grace_period_s=0.3)
    assert time.monotonic() - begun < 10
    assert run.stops(StepStopped)
    server.on_ask, server.delay_s = (lambda count: None), (lambda text: 0.0)
    run.go()
    assert server.asked == {f"q{n}": 1 + (n == 6) for n in range(20)}


def test_a_model_that_blocks_the_loop_is_slow_and_right(bench: Make, server: Server) -> None:
    def reply(text: str, nth: int) -> str:
        time.sleep(0.005)
        return text

    server.reply = reply
    run = bench(one_task(20))
    run.go()
    assert answers(run.rows("ask")) == [f"q{n}" for n in range(20)]


@pytest.mark.parametrize("kind", ["authentication", "quota", "connection"])
def test_an_endpoint_that_cannot_be_used_ends_the_run(bench: Make, server: Server, kind: str) -> None:
    def reply(text: str, nth: int) -> str:
        if int(text[1:]) >= 8:
            raise failure(kind)
        return text

    server.reply, server.delay_s = reply, (lambda text: 0.02 if int(text[1:]) >= 8 else 0.0)
    run = bench(one_task(200, batch=50, llm_options={"max_concurrency": 4, "max_retries": 0}))
    with pytest.raises(StepProcessError) as raised:
        run.go()
    told = str(raised.value)
    assert "`ask`" in told
    assert "0 rows done" in told
    assert (raised.value.endpoint, raised.value.kind) == ("sim://main", kind)  # type: ignore[attr-defined]  # set as keywords
    assert server.calls <= 8 + 2 * 4, "no further calls are made where each fails in the same way"
    server.reply = lambda text, nth: text
    server.asked.clear()
    run.go()
    assert answers(run.rows("ask")) == [f"q{n}" for n in range(200)]
    assert server.calls == 192, "what was answered isn't asked again"


def test_an_endpoint_that_fails_in_a_later_batch_is_told_all_the_same(bench: Make, server: Server) -> None:
    """The first batch waits for a slow answer meanwhile; a stop isn't taken for the end of the story."""

    def reply(text: str, nth: int) -> str:
        if text == "q9":
            raise failure("permission")
        return text

    server.reply = reply
    server.delay_s = lambda text: 0.3 if text in {"q0", "q4"} else 0.05 if text == "q9" else 0.0
    run = bench(one_task(40, llm_options={"max_concurrency": 3}))
    with pytest.raises(StepProcessError, match="can't go on"):
        run.go()


def test_the_cost_limit_ends_the_run_and_a_higher_one_goes_on(bench: Make, server: Server) -> None:
    prices = {"input_price_usd_per_million": 1e6 / 3, "output_price_usd_per_million": 0.0}
    run = bench(one_task(60, llm_options={"max_concurrency": 3, **prices}))
    with pytest.raises(CostLimitError, match="max_cost_usd"):
        run.go(max_cost_usd=10.0)
    assert 10 <= server.calls <= 10 + 3
    with pytest.raises(CostLimitError):
        run.go(max_cost_usd=10.0)
    paid = server.calls
    assert paid <= 13
    run.go(max_cost_usd=61.0)
    assert server.asked == {f"q{n}": 1 for n in range(60)}


class FullLedger(ResponseLedger):
    """Its disk is full from the n-th round of answers on."""

    rounds_left = 3

    def store(self, paid: Any, failed: Any = ()) -> None:
        if paid:
            self.rounds_left -= 1
        if self.rounds_left < 0:
            raise CacheFullError("The disk is full.", path=str(self.location))
        super().store(paid, failed)


def test_a_ledger_that_fails_in_the_middle_ends_the_run_at_once(bench: Make, server: Server) -> None:
    server.delay_s = lambda text: 0.005
    run = bench(one_task(400, batch=100, llm_options={"max_concurrency": 2}), make_ledger=FullLedger)
    with pytest.raises(CacheFullError):
        run.go()
    assert server.calls <= 20, "what can't be kept isn't paid for"
    kept = count_responses(run)
    server.asked.clear()
    run.make_ledger = ResponseLedger
    run.go()
    assert server.calls == 400 - kept
    assert answers(run.rows("ask"))[:3] == ["q0#0", "q1#0", "q2#0"] or run.is_finished


class BrokenAtBegin(ResponseLedger):
    """Can't claim from the n-th time on."""

    times_left = 2

    def begin(self, wanted: Any) -> Any:
        self.times_left -= 1
        if self.times_left < 0:
            raise CacheFullError("The disk is full.", path=str(self.location))
        return super().begin(wanted)


def test_a_ledger_that_cannot_claim_ends_the_run(bench: Make, server: Server) -> None:
    def declare() -> None:
        load = Numbers(name="load", count=400, batch_size=4)
        load.connect(Ask(name="a", llm=SimLLM(), input_batch_size=4))
        load.connect(Ask(name="b", llm=SimLLM(), input_batch_size=3))

    run = bench(declare, make_ledger=BrokenAtBegin)
    with pytest.raises(CacheFullError):
        run.go()


def test_a_ledger_that_is_gone_is_an_error_before_any_call(
    bench: Make, server: Server, tmp_path: Path
) -> None:
    run = bench(one_task())
    (tmp_path / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OSError, match="ledger"):
        run.go()
    assert not server.calls


def count_responses(run: LedgerBench) -> int:
    with sqlite3.connect(str(run.path)) as connection:
        return int(connection.execute("select count(*) from responses").fetchone()[0])


def test_batches_are_prepared_only_as_far_ahead_as_calls_need(bench: Make, server: Server) -> None:
    server.delay_s = lambda text: 100.0
    prepared: list[int] = []

    class Counting(Ask):
        def format_input(self, input: Any) -> Any:  # noqa: A002 (distilabel's name)
            prepared.append(input["n"])
            return super().format_input(input)

    def declare() -> None:
        Numbers(name="load", count=500, batch_size=500) >> Counting(
            name="ask", llm=SimLLM(max_concurrency=4), input_batch_size=2
        )

    run = bench(declare)
    threading.Timer(1.5, run.ask_stop).start()
    run.go(grace_period_s=0.1)
    assert 4 <= len(prepared) <= 16


def test_a_slow_row_holds_up_nothing_but_its_batch(bench: Make, server: Server) -> None:
    server.delay_s = lambda text: 5.0 if text == "q0" else 0.001
    run = bench(one_task(200, batch=4, llm_options={"max_concurrency": 4}))
    begun: list[float] = []
    server.on_ask = lambda count: begun.append(time.monotonic())
    run.go()
    assert begun[-1] - begun[0] < 4.9, "the others were all called while it was waited for"


def test_tokens_per_minute_are_charged_as_they_were_used(bench: Make, server: Server) -> None:
    run = bench(one_task(8, llm_options={"max_concurrency": 8, "tokens_per_minute": 600_000}))
    before = time.time()
    run.go()
    with sqlite3.connect(str(run.path)) as connection:
        (free_at,) = connection.execute("select free_at from rate_limits").fetchone()
    # 8 calls of 5 tokens, at 10,000 a second; the rest is how long the run had been going at the first of them.
    charged = (free_at - before) * 10_000
    assert charged >= 40
    assert server.calls == 8


def test_a_run_that_was_paused_takes_what_others_paid_for_meanwhile(
    bench: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call looks again whether it's still its own, as after a long pause; the first answer under a key counts."""
    monkeypatch.setattr(ledger_io, "_SILENT_AFTER_S", -1.0)
    run = bench(one_task(12, llm_options={"max_concurrency": 3}))
    theirs: dict[bytes, Any] = {}

    def take_over(count: int) -> None:
        """While the first call is out, another run stores answers under all keys that are claimed by then."""
        if count != 1:
            return
        with sqlite3.connect(str(run.path)) as connection:
            keys = [row[0] for row in connection.execute("select key from claims")]
        for key in keys:
            theirs[key] = StoredResponse(
                key,
                {"generations": ["theirs"]},
                "sim",
                "",
                None,
                None,
                None,
                None,
                0.1,
                1,
                0.0,
                "another run",
            )
        with ResponseLedger(str(run.path)) as ledger:
            step = StepInRun("another", "another", "another", "sim", "")
            ledger.store([Paid(stored, step) for stored in theirs.values()])

    server.on_ask = take_over
    run.go()
    assert answers(run.rows("ask")).count("theirs") == len(theirs) > 3
    assert server.calls <= 12 - len(theirs) + 3


def test_a_machine_that_slept_counts_as_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of `time.monotonic` stands still meanwhile, and others take calls over by one that doesn't."""
    elapsed = 1_000.0
    monkeypatch.setattr(ledger_io, "read_elapsed", lambda: elapsed)
    io = ledger_io.LedgerIO(lambda: None)
    assert not io.is_silent
    elapsed += 3_600.0
    assert io.is_silent


def test_a_damaged_answer_is_counted_in_the_run_that_asks_again(bench: Make, server: Server) -> None:
    first, second = bench(one_task()), bench(one_task())
    first.go()
    with sqlite3.connect(str(first.path)) as connection:
        connection.execute(
            "update responses set latency_s = latency_s + 1 where key = (select min(key) from responses)"
        )
    second.go()
    assert server.calls == 21
    (usage,) = [event.usage for event in second.stops(StepFinished) if event.step == "ask"]
    assert (usage.calls, usage.calls_reused, usage.failures) == (20 + 1, 19, {DAMAGED_ANSWER: 1})
