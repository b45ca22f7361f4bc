"""Calls that fail: which are made again, which aren't, and what an endpoint costs that's down."""

import re
import time
from collections import Counter
from pathlib import Path

import pytest

from distilabel_dagster.errors import DistilabelDagsterError
from tests.integration.generation import pipelines
from tests.integration.generation.conftest import Pay, Processes
from tests.integration.generation.pipelines import build_chain, build_one, make_rows
from tests.llm_server import LLMServer, count_most_at_once, measure_ideal_s, measure_span_s

MIX = {"rate_limit": 0.10, "server_error": 0.05, "hang": 0.02, "truncated": 0.01}


def test_everything_finishes_in_good_time_whatever_fails(
    server: LLMServer, processes: Processes, cache: str
) -> None:
    cap, rows = 16, 1000
    server.reset(latency_s=0.1, failures=MIX, retry_after_s=0.2)
    arguments = {
        "url": server.url,
        "rows": rows,
        "llm": {"max_concurrency": cap, "timeout_s": 2, "max_retries": 6},
    }
    made = processes.finish(processes.start("one", cache_dir=cache, **arguments))

    calls = server.calls()
    assert [row["id"] for row in made] == list(range(rows))
    assert None not in [row["generation"] for row in made]
    assert sum(call.is_answered for call in calls) == rows
    assert {call.failure for call in calls} == {None, *MIX}, "the mix holds nothing unless all of it came"
    assert count_most_at_once(calls) <= cap
    ideal_s = measure_ideal_s(calls, cap)
    assert measure_span_s(calls) <= 1.5 * ideal_s, f"{measure_span_s(calls):.1f} s, at best {ideal_s:.1f} s"


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_retry_after_holds_all_calls(server: LLMServer, pay: Pay, cache: str, unit: str) -> None:
    server.reset(marked={"text 0": "rate_limit"}, retry_after_s=1, retry_after_unit=unit, latency_s=0.05)
    rows = [{"id": number, "text": f"text {number}"} for number in (0, 1, 2, 3, 4, 5)]
    paid = pay(build_one(cache, server.url, rows=rows, llm={"max_concurrency": 2, "max_retries": 1}))
    refused = [call for call in paid.calls if call.failure == "rate_limit"]
    assert len(refused) == 2
    ended_at = refused[0].ended_at or 0
    begun_in_quiet = [call.text for call in paid.calls if ended_at + 0.05 < call.at < ended_at + 0.95]
    assert begun_in_quiet == []
    assert any(call.at > ended_at + 0.95 for call in paid.calls if call.failure is None)
    assert [row["generation"] is None for row in paid.rows] == [True, *[False] * 5]


@pytest.mark.parametrize(
    "kind", ["truncated", "cut_off", "reset", "html", "no_choices", "stalled", "unavailable"]
)
def test_torn_answers_are_asked_for_again(server: LLMServer, pay: Pay, cache: str, kind: str) -> None:
    server.reset(failures={kind: 0.2}, seed=5)
    paid = pay(build_one(cache, server.url, llm={"timeout_s": 1, "max_retries": 6}))
    assert None not in paid.column("generation")
    assert sum(call.failure == kind for call in paid.calls) >= 1
    assert sum(call.is_answered for call in paid.calls) == 12


@pytest.mark.parametrize(("kind", "told"), [("unauthorized", "401"), ("not_found", "404")])
def test_what_every_call_would_meet_isnt_tried_again_and_ends_the_run(
    server: LLMServer, pay: Pay, cache: str, kind: str, told: str
) -> None:
    server.reset(broken_after=10, broken_kind=kind, latency_s=0.02)
    with pytest.raises(DistilabelDagsterError) as raised:
        build_one(cache, server.url, rows=60, llm={"max_concurrency": 4}).run()
    message = str(raised.value)
    assert server.url in message
    assert "`ask`" in message
    assert told in message
    server.wait_until_idle()
    refused = Counter(call.body for call in server.calls() if call.failure == kind)
    assert set(refused.values()) == {1}
    assert refused.total() <= 2 * 4
    server.configure(broken_after=None)
    assert len(pay(build_one(cache, server.url, rows=60, llm={"max_concurrency": 4})).calls) == 50


@pytest.mark.parametrize("kind", ["context_length", "bad_request"])
def test_what_one_call_meets_isnt_tried_again_and_fails_its_row(
    server: LLMServer, pay: Pay, cache: str, kind: str
) -> None:
    server.reset(marked={"text 3": kind})
    paid = pay(build_one(cache, server.url))
    assert [row["id"] for row in paid.rows if row["generation"] is None] == [3]
    assert Counter(call.body for call in paid.calls).most_common(1)[0][1] == 1
    assert len(paid.calls) == 12


def read_rows_done(message: str) -> int:
    """The number of rows that an error says are done."""
    found = re.search(r"(\d+)(?: of \d+)? rows?\b", message)
    assert found is not None, message
    return int(found[1])


def test_endpoint_that_was_never_up_ends_the_run(tmp_path: Path, cache: str) -> None:
    with LLMServer(tmp_path) as server:
        server.stop()
        begun = time.monotonic()
        with pytest.raises(DistilabelDagsterError) as raised:
            build_chain(cache, server.url, rows=200, llm={"max_retries": 2}).run()
        assert time.monotonic() - begun < 30
        message = str(raised.value)
        assert server.url in message
        assert "`ask`" in message
        assert read_rows_done(message) == 0
        server.start()
        assert [row["id"] for row in pipelines.run(build_chain(cache, server.url, rows=200))] == list(
            range(200)
        )
        assert server.count() == 400


def test_endpoint_that_goes_down_in_the_middle_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, processes: Processes, cache: str
) -> None:
    arguments = {"cache_dir": cache, "rows": make_rows(200), "llm": {"max_concurrency": 8, "max_retries": 2}}
    with LLMServer(tmp_path, latency_s=0.1) as server:
        process = processes.start("chain", url=server.url, **arguments)
        processes.wait_for(server, lambda state: state["ended"] >= 120)
        received = {call.body for call in server.calls() if call.is_answered}
        time.sleep(0.3)
        server.stop()
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "never retrieved" not in err, err
        error = err[err.rindex("distilabel_dagster.errors.") :]
        assert server.url in error
        assert re.search("`ask`|`answer`", error)
        assert 0 <= read_rows_done(error) <= 200
        server.start()
        rows = processes.finish(processes.start("chain", url=server.url, **arguments))
        assert None not in [row["answer"] for row in rows]
        assert received.isdisjoint(call.body for call in server.calls())
        assert server.count() <= 400 - len(received)


def test_endpoint_that_begins_to_fail_ends_the_run_and_the_next_one_goes_on(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    server.reset(broken_after=30, latency_s=0.02)
    with pytest.raises(DistilabelDagsterError) as raised:
        build_one(
            cache, server.url, rows=100, llm={"max_concurrency": 8, "max_retries": 2}, batch_size=5
        ).run()
    message = str(raised.value)
    assert server.url in message
    assert "`ask`" in message
    assert 0 <= read_rows_done(message) <= 30
    assert sum(call.is_answered for call in server.calls()) == 30
    failed = Counter(call.body for call in server.calls() if call.failure)
    assert max(failed.values()) <= 3, "after its retries"
    # Twice the cap is prepared ahead, and a batch is begun as a whole.
    assert failed.total() <= 3 * (2 * 8 + 5), "not each of the rows that are left tries it out"

    server.configure(broken_after=None)
    rest = pay(build_one(cache, server.url, rows=100, llm={"max_concurrency": 8}, batch_size=5))
    assert len(rest.calls) == 70
    assert None not in rest.column("generation")
