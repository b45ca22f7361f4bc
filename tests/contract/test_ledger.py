"""Responses and claims, on each database that can hold a ledger."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from distilabel_dagster.errors import CacheError, DamagedFileError
from distilabel_dagster.ledger.calls import StoredResponse
from distilabel_dagster.ledger.database import _left_by_parent, exclusive_transaction, read_transaction
from distilabel_dagster.ledger.processes import read_uptime
from distilabel_dagster.ledger.responses import DAMAGED_ANSWER, ResponseLedger
from distilabel_dagster.ledger.schema import CLAIMS_TABLE, LEASES_TABLE, RESPONSES_TABLE
from distilabel_dagster.ledger.usage import read_usage
from tests.contract.ledger_process import (
    OTHER_STEP,
    STEP,
    OtherLedger,
    answer,
    fail,
    key_of,
    keys_of,
    pay,
)


class Clock:
    """A clock that tests set forward: time goes by for everybody, unless it's said that it jumped."""

    def __init__(self) -> None:
        self.now = time.time()
        self._uptime_ahead = read_uptime() - self.now

    def __call__(self) -> float:
        return self.now

    def uptime(self) -> float:
        return self.now + self._uptime_ahead

    def jump(self, seconds: float) -> None:
        """Set the time of day, and no other clock."""
        self.now += seconds
        self._uptime_ahead -= seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[ResponseLedger]:
    with ResponseLedger(ledger_url, clock=clock, uptime=clock.uptime) as opened:
        yield opened


@pytest.fixture
def second(ledger: ResponseLedger, ledger_url: str, clock: Clock) -> Iterator[ResponseLedger]:
    """Of the same process, and yet a stranger."""
    with ResponseLedger(ledger_url, clock=clock, uptime=clock.uptime) as opened:
        yield opened


@pytest.fixture
def start_other(ledger_url: str) -> Iterator[Callable[[], OtherLedger]]:
    with contextlib.ExitStack() as stack:

        def start() -> OtherLedger:
            other = OtherLedger(ledger_url)
            stack.callback(other.end)
            return other

        yield start


def count(ledger: ResponseLedger, table: Any) -> int:
    with read_transaction(ledger.engine) as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


RESPONSES: list[dict[str, Any]] = [
    {},
    {"text": 'Ünïcode 日本語 🙂 "quoted" \\ \n\t'},
    {"null character": "a\0b", "half a pair": "\ud83d", "key \0": 1},
    {"choices": [{"message": {"content": None, "tool_calls": []}, "logprobs": [-0.1, 1e-300, 1e22]}]},
    {"integers": [0, -1, 2**53 + 1, 2**70], "is": True, "is not": False},
]


@pytest.mark.parametrize("response", RESPONSES, ids=range(len(RESPONSES)))
def test_a_response_comes_back_as_it_was(ledger: ResponseLedger, response: dict[str, Any]) -> None:
    whole = answer(1)._replace(response=response)
    sparse = answer(2, finish_reason=None, input_tokens=None, output_tokens=None, cost_usd=None)
    ledger.store([pay(1, response=response), pay(2, **vars_of(sparse))])
    assert dict(ledger.look_up(keys_of([1, 2, 3]))) == {key_of(1): whole, key_of(2): sparse}
    assert ledger.begin({STEP: keys_of([1, 2])}).found == {key_of(1): whole, key_of(2): sparse}


def vars_of(stored: StoredResponse) -> dict[str, Any]:
    return stored._asdict()


def test_a_finish_reason_that_is_no_text_for_a_database_is_mended(ledger: ResponseLedger) -> None:
    ledger.store([pay(1, finish_reason="st\0p\ud800")])
    assert ledger.look_up([key_of(1)])[key_of(1)].finish_reason == "st\N{REPLACEMENT CHARACTER}p?"


def test_many_keys_are_found_among_more(ledger: ResponseLedger) -> None:
    ledger.store([pay(number, str(number)) for number in range(0, 6_000, 2)])
    asked = keys_of([*range(5_000), 0, 1])
    found = ledger.look_up(iter(asked))
    assert len(found) == 2_500
    assert {key: found[key].response["text"] for key in found} == {
        key_of(number): str(number) for number in range(0, 5_000, 2)
    }
    assert key_of(1) not in found
    assert found.get(key_of(1)) is None
    assert ledger.find_keys(asked) == set(found)
    begun = ledger.begin({STEP: asked})
    assert begun.found.keys() == set(found)
    assert begun.claimed == set(keys_of(range(1, 5_000, 2)))


def test_nothing_asked_is_nothing_done(ledger: ResponseLedger) -> None:
    assert ledger.find_keys([]) == set()
    assert len(ledger.look_up([])) == 0
    begun = ledger.begin({})
    assert (begun.found, begun.claimed, begun.elsewhere) == ({}, set(), set())
    ledger.store([])
    ledger.release([])


def test_the_first_response_stays_and_the_second_is_counted(
    ledger: ResponseLedger, second: ResponseLedger
) -> None:
    ledger.store([pay(1, "first"), pay(1, "twin")])
    others = second.store([pay(1, "second", run_id="run-2"), pay(2, "new", run_id="run-2")])
    assert {key: stored.response["text"] for key, stored in others.items()} == {key_of(1): "first"}
    texts = {key: stored.response["text"] for key, stored in ledger.look_up(keys_of([1, 2])).items()}
    assert texts == {key_of(1): "first", key_of(2): "new"}
    assert read_usage(ledger.engine)[STEP].calls == 4


def test_a_key_is_claimed_by_one(ledger: ResponseLedger, second: ResponseLedger) -> None:
    ledger.store([pay(1)])
    begun = ledger.begin({STEP: keys_of([1, 2])})
    assert (begun.found.keys(), begun.claimed, begun.elsewhere) == ({key_of(1)}, {key_of(2)}, set())
    asked = second.begin({STEP: keys_of([1, 2, 3])})
    assert (asked.found.keys(), asked.claimed, asked.elsewhere) == (
        {key_of(1)},
        {key_of(3)},
        {key_of(2)},
    )
    assert ledger.begin({STEP: keys_of([2, 3])}).claimed == {key_of(2)}
    ledger.store([pay(2)])
    assert second.begin({STEP: keys_of([2])}).found.keys() == {key_of(2)}
    assert count(ledger, CLAIMS_TABLE) == 1


def test_two_steps_may_want_the_same_key(ledger: ResponseLedger) -> None:
    begun = ledger.begin({STEP: keys_of([1, 2]), OTHER_STEP: keys_of([2, 3])})
    assert begun.claimed == set(keys_of([1, 2, 3]))
    ledger.store([pay(number) for number in (1, 2, 3)])
    begun = ledger.begin({STEP: keys_of([1, 2]), OTHER_STEP: keys_of([2, 3, 4])})
    assert begun.found.keys() == set(keys_of([1, 2, 3]))
    assert begun.claimed == {key_of(4)}
    usage = read_usage(ledger.engine)
    assert (usage[STEP].calls, usage[STEP].calls_reused) == (3, 2)
    assert (usage[OTHER_STEP].calls, usage[OTHER_STEP].calls_reused) == (0, 2)


def test_released_claims_are_free_and_others_stay(ledger: ResponseLedger, second: ResponseLedger) -> None:
    ledger.begin({STEP: keys_of([1, 2])})
    second.begin({STEP: keys_of([3])})
    ledger.release(keys_of([1, 3, 4]))
    begun = second.begin({STEP: keys_of([1, 2, 3])})
    assert (begun.claimed, begun.elsewhere) == (set(keys_of([1, 3])), {key_of(2)})
    assert ledger.begin({STEP: keys_of([3])}).elsewhere == {key_of(3)}


def test_a_failed_attempt_keeps_its_claim(ledger: ResponseLedger, second: ResponseLedger) -> None:
    ledger.begin({STEP: keys_of([1])})
    ledger.store([], [fail(1)])
    assert second.begin({STEP: keys_of([1])}).elsewhere == {key_of(1)}
    assert not ledger.look_up(keys_of([1]))


def test_closing_gives_everything_back(ledger: ResponseLedger, second: ResponseLedger) -> None:
    ledger.begin({STEP: keys_of([1])})
    ledger.close()
    ledger.close()
    assert count(second, CLAIMS_TABLE) == 0
    assert second.begin({STEP: keys_of([1])}).claimed == {key_of(1)}
    with pytest.raises(RuntimeError, match="open_claims"):
        ledger.begin({STEP: keys_of([2])})
    ledger.store([pay(5)])
    ledger.open_claims()
    ledger.open_claims()
    assert ledger.begin({STEP: keys_of([1, 2])}).claimed == {key_of(2)}
    assert count(ledger, LEASES_TABLE) == 2


def test_all_of_a_round_is_kept_or_nothing(ledger: ResponseLedger, second: ResponseLedger) -> None:
    ledger.begin({STEP: keys_of([1, 2])})
    with pytest.raises(TypeError):
        ledger.store([pay(1), pay(2, response={"no data": object()})], [fail(1)])
    with pytest.raises(CacheError):
        ledger.store([pay(1), pay(2, attempts=None)], [fail(1)])
    assert not ledger.find_keys(keys_of([1, 2]))
    assert read_usage(ledger.engine) == {}
    assert second.begin({STEP: keys_of([1, 2])}).elsewhere == set(keys_of([1, 2]))
    ledger.store([pay(1), pay(2)], [fail(1)])
    assert read_usage(ledger.engine)[STEP].calls == 2


# --- answers that aren't what was written ---------------------------------------------------------


def damage(ledger: ResponseLedger, number: int, **changes: Any) -> None:
    values = changes or {"response": '{"text":"Ho"}'}
    with exclusive_transaction(ledger.engine) as connection:
        connection.execute(
            update(RESPONSES_TABLE).where(RESPONSES_TABLE.c.key == key_of(number)).values(values)
        )


def test_a_damaged_answer_is_asked_for_again_and_replaced(
    ledger: ResponseLedger, second: ResponseLedger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.store([pay(1), pay(2)])
    damage(ledger, 1)
    begun = ledger.begin({STEP: keys_of([1, 2]), OTHER_STEP: keys_of([1])})
    assert begun.found == {key_of(2): answer(2)}
    assert (begun.claimed, begun.damaged, begun.elsewhere) == ({key_of(1)}, {key_of(1)}, set())
    assert f"the response under {key_of(1).hex()} does not have the checksum" in caplog.text
    assert "1 answer in the ledger can't be used and is asked for again" in caplog.text
    usage = read_usage(ledger.engine)
    assert (usage[STEP].calls_reused, usage[STEP].failures) == (1, {DAMAGED_ANSWER: 1})
    assert (usage[OTHER_STEP].calls_reused, usage[OTHER_STEP].failures) == (0, {DAMAGED_ANSWER: 1})
    caplog.clear()
    waiting = second.begin({STEP: keys_of([1])})
    assert (waiting.found, waiting.elsewhere, waiting.damaged) == ({}, {key_of(1)}, set())
    assert ledger.begin({STEP: keys_of([1])}).claimed == {key_of(1)}
    assert caplog.text == ""
    assert read_usage(ledger.engine)[STEP].failures == {DAMAGED_ANSWER: 1}
    assert ledger.store([pay(1, "again", run_id="run-2")]) == {}
    found = second.begin({STEP: keys_of([1])}).found
    assert found == {key_of(1): answer(1, "again", run_id="run-2")}
    others = second.store([pay(1, "late", run_id="run-3")])
    assert {key: each.response["text"] for key, each in others.items()} == {key_of(1): "again"}
    assert count(ledger, RESPONSES_TABLE) == 2


def test_of_two_answers_for_a_damaged_one_the_first_stays(ledger: ResponseLedger) -> None:
    ledger.store([pay(1), pay(2)])
    damage(ledger, 1, response="{half")
    ledger.store([pay(1, "first"), pay(1, "twin"), pay(2, "other")])
    texts = {key: each.response["text"] for key, each in ledger.look_up(keys_of([1, 2])).items()}
    assert texts == {key_of(1): "first", key_of(2): "Hi"}


def test_a_damaged_answer_that_another_has_replaced_meanwhile_is_found(
    ledger: ResponseLedger, second: ResponseLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.store([pay(1)])
    damage(ledger, 1)
    act, acts = ledger._while_alive, []

    def act_late(*arguments: Any) -> Any:
        if acts:
            second.store([pay(1, "again")])
        acts.append(arguments)
        return act(*arguments)

    monkeypatch.setattr(ledger, "_while_alive", act_late)
    begun = ledger.begin({STEP: keys_of([1])})
    assert (begun.found, begun.claimed, begun.damaged) == ({key_of(1): answer(1, "again")}, set(), set())
    usage = read_usage(ledger.engine)[STEP]
    assert (usage.calls_reused, usage.failures) == (1, {})


def test_a_damaged_answer_is_named_to_who_looks_it_up(ledger: ResponseLedger) -> None:
    ledger.store([pay(1), pay(2)])
    damage(ledger, 1, cost_usd=0.5)
    found = ledger.look_up(keys_of([1, 2]))
    assert found[key_of(2)] == answer(2)
    with pytest.raises(DamagedFileError, match=f"the response under {key_of(1).hex()} does not have"):
        found[key_of(1)]


def test_many_damaged_answers_are_told_in_a_line(
    ledger: ResponseLedger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.store([pay(number) for number in range(50)])
    for number in range(40):
        damage(ledger, number)
    begun = ledger.begin({STEP: keys_of(range(50))})
    assert begun.claimed == begun.damaged == set(keys_of(range(40)))
    assert len(caplog.messages) == 1
    assert "40 answers in the ledger can't be used and are asked for again" in caplog.text
    ledger.store([pay(number) for number in range(40)])
    assert len(ledger.begin({STEP: keys_of(range(50))}).found) == 50


# --- several at once ------------------------------------------------------------------------------


def test_one_of_many_threads_claims_a_key(ledger: ResponseLedger, ledger_url: str) -> None:
    start = Barrier(6, timeout=30)

    def race(_: int) -> list[frozenset[bytes]]:
        with ResponseLedger(ledger_url) as own:
            start.wait()
            claimed = [
                own.begin({STEP: keys_of(range(first, first + 7))}).claimed for first in range(0, 70, 7)
            ]
            start.wait()
        return claimed

    with ThreadPoolExecutor(6) as pool:
        claimed = [key for rounds in pool.map(race, range(6)) for keys in rounds for key in keys]
    assert sorted(claimed) == keys_of(range(70))


def test_threads_may_share_a_ledger(ledger: ResponseLedger) -> None:
    def work(number: int) -> None:
        keys = keys_of(range(number * 10, number * 10 + 10))
        assert ledger.begin({STEP: keys}).claimed == set(keys)
        ledger.store([pay(number * 10 + each) for each in range(10)])
        assert len(ledger.look_up(keys)) == 10

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert read_usage(ledger.engine)[STEP].calls == count(ledger, RESPONSES_TABLE) == 400


def test_one_of_many_processes_claims_a_key(start_other: Callable[[], OtherLedger]) -> None:
    others = [start_other() for _ in range(3)]
    rounds = [list(range(first, first + 20)) for first in range(0, 600, 20)]
    at = time.time() + 0.2
    for other in others:
        other.tell("begin_at", at, rounds)
    answers = [other.answer() for other in others]
    assert sorted(key for told in answers for each in told for key in each["claimed"]) == list(range(600))
    assert sum(len(each["elsewhere"]) for told in answers for each in told) == 1_200
    assert all(each["claimed"] for told in answers for each in told if not each["elsewhere"])


def test_counters_are_exact_when_processes_store_at_once(
    ledger: ResponseLedger, start_other: Callable[[], OtherLedger]
) -> None:
    others = [start_other() for _ in range(2)]
    for place, other in enumerate(others):
        first = place * 1_000
        other.tell("store", [list(range(first + n, first + n + 5)) for n in range(0, 500, 5)])
    assert [other.answer() for other in others] == ["ok", "ok"]
    usage = read_usage(ledger.engine)[STEP]
    assert (usage.calls, usage.input_tokens, usage.output_tokens) == (1_000, 10_000, 3_000)
    assert usage.cost_usd == 250.0
    assert usage.failures == {"rate_limit": 1_000}
    assert count(ledger, RESPONSES_TABLE) == 1_000


# --- owners that die, sleep or are forked ---------------------------------------------------------


def test_what_a_killed_process_claimed_is_taken_over_at_once(
    ledger: ResponseLedger, start_other: Callable[[], OtherLedger]
) -> None:
    other = start_other()
    assert other.do("begin", [1, 2, 3])["claimed"] == [1, 2, 3]
    other.do("store", [[3]])
    assert ledger.begin({STEP: keys_of([1])}).elsewhere == {key_of(1)}
    other.kill()
    begun = ledger.begin({STEP: keys_of([1, 3])})
    assert (begun.claimed, begun.found.keys()) == ({key_of(1)}, {key_of(3)})
    other.end()
    assert ledger.begin({STEP: keys_of([1, 2])}).claimed == set(keys_of([1, 2]))


def test_what_a_killed_process_left_is_cleared_away(
    ledger: ResponseLedger, start_other: Callable[[], OtherLedger], ledger_url: str
) -> None:
    other = start_other()
    other.do("begin", [1, 2])
    ledger.begin({STEP: keys_of([3])})
    other.kill()
    assert (count(ledger, LEASES_TABLE), count(ledger, CLAIMS_TABLE)) == (2, 3)
    with ResponseLedger(ledger_url):
        assert (count(ledger, LEASES_TABLE), count(ledger, CLAIMS_TABLE)) == (2, 1)
    assert ledger.begin({STEP: keys_of([3])}).claimed == {key_of(3)}


def test_a_paused_process_is_waited_for_and_then_taken_for_dead(
    ledger: ResponseLedger, clock: Clock, start_other: Callable[[], OtherLedger]
) -> None:
    other = start_other()
    other.do("begin", [1, 2, 3, 4])
    os.kill(other.process.pid, signal.SIGSTOP)
    assert ledger.begin({STEP: keys_of([1])}).elsewhere == {key_of(1)}
    clock.now = time.time() + 61
    assert ledger.begin({STEP: keys_of([1])}).claimed == {key_of(1)}
    ledger.store([pay(1, "first")])
    assert ledger.begin({STEP: keys_of([3])}).claimed == {key_of(3)}
    os.kill(other.process.pid, signal.SIGCONT)
    assert other.do("store", [[1, 2]]) == "ok"
    texts = [stored.response["text"] for stored in ledger.look_up(keys_of([1, 2])).values()]
    assert sorted(texts) == ["first", "other"]
    # Its lease is still there, and with it what nobody has taken; what others have is theirs.
    told = other.do("begin", [1, 3, 4, 5])
    assert told == {"found": [1], "claimed": [4, 5], "elsewhere": [3]}
    assert other.do("release", [3]) == "ok"
    clock.now = time.time()
    assert ledger.begin({STEP: keys_of([3, 4])}).claimed == {key_of(3)}


@pytest.mark.parametrize("seconds", [7_200, -7_200])
def test_a_jump_of_the_clock_takes_nobody_for_dead(
    ledger: ResponseLedger,
    clock: Clock,
    start_other: Callable[[], OtherLedger],
    ledger_url: str,
    seconds: int,
) -> None:
    other = start_other()
    other.do("begin", [1])
    clock.now = time.time()
    clock.jump(seconds)
    assert ledger.begin({STEP: keys_of([1, 2])}).elsewhere == {key_of(1)}
    with ResponseLedger(ledger_url, clock=clock, uptime=clock.uptime) as third:
        assert third.begin({STEP: keys_of([1, 2])}).elsewhere == set(keys_of([1, 2]))
    clock.jump(-seconds)
    assert other.do("begin", [2])["elsewhere"] == [2]
    assert ledger.begin({STEP: keys_of([1])}).elsewhere == {key_of(1)}


def test_a_process_that_is_always_taken_for_dead_is_told_so(
    ledger: ResponseLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = ledger._take_lease

    def take_in_vain() -> None:
        take()
        with exclusive_transaction(ledger.engine) as connection:
            connection.execute(delete(LEASES_TABLE))

    monkeypatch.setattr(ledger, "_take_lease", take_in_vain)
    with exclusive_transaction(ledger.engine) as connection:
        connection.execute(delete(LEASES_TABLE))
    with pytest.raises(CacheError, match="Set the clocks of the hosts"):
        ledger.begin({STEP: keys_of([1])})


def test_a_ledger_that_was_taken_for_dead_goes_on(
    ledger: ResponseLedger, second: ResponseLedger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.begin({STEP: keys_of([1])})
    with exclusive_transaction(ledger.engine) as connection:
        connection.execute(delete(LEASES_TABLE).where(LEASES_TABLE.c.key == ledger._held.keys[0]))
    assert second.begin({STEP: keys_of([1])}).claimed == {key_of(1)}
    begun = ledger.begin({STEP: keys_of([1, 2])})
    assert (begun.claimed, begun.elsewhere) == ({key_of(2)}, {key_of(1)})
    assert "took it for dead" in caplog.text
    assert second.begin({STEP: keys_of([2])}).elsewhere == {key_of(2)}


def test_asking_is_a_sign_of_life(ledger: ResponseLedger, second: ResponseLedger, clock: Clock) -> None:
    ledger.begin({STEP: keys_of([1])})
    clock.now += 59
    ledger.begin({STEP: keys_of([2])})
    clock.now += 59
    assert second.begin({STEP: keys_of([1])}).elsewhere == {key_of(1)}
    clock.now += 2
    assert second.begin({STEP: keys_of([1])}).claimed == {key_of(1)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_fork_may_read_and_has_no_claims(ledger: ResponseLedger) -> None:
    ledger.begin({STEP: keys_of([1])})
    ledger.store([pay(2)])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"nothing"
        try:
            said = f"{len(ledger.look_up(keys_of([2])))}, {len(_left_by_parent)} left alone;".encode()
            ledger.close()
            ledger.begin({STEP: keys_of([1])})
        except RuntimeError as error:
            said += b" " + str(error).encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reading, 1_000).decode()
    assert told.startswith("1, 1 left alone; This ledger was made by process ")
    assert "Make another ResponseLedger" in told
    assert ledger.begin({STEP: keys_of([1, 2])}).claimed == {key_of(1)}
