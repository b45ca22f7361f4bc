"""Runs that share a ledger share what was paid for, at the same time too."""

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from tests.integration.generation.conftest import Pay, Processes
from tests.integration.generation.pipelines import build_branches, build_chain, build_one, make_rows
from tests.llm_server import LLMServer

ROWS = 12


def test_two_pipelines_that_ask_the_same_share_the_answers(server: LLMServer, pay: Pay, cache: str) -> None:
    first = pay(build_chain(cache, server.url, name="first"))
    assert len(first.calls) == 2 * ROWS
    second = pay(build_chain(cache, server.url, name="second", prefix="other_"))
    assert second.calls == []
    assert second.column("answer") == first.column("answer")


def test_caches_share_the_answers_where_they_share_a_ledger(
    server: LLMServer, pay: Pay, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "shared.sqlite")
    first = pay(build_one(str(tmp_path / "here"), server.url, ledger_url=ledger))
    second = pay(build_one(str(tmp_path / "there"), server.url, ledger_url=ledger))
    assert (len(first.calls), len(second.calls)) == (ROWS, 0)
    assert second.rows == first.rows
    assert len(pay(build_one(str(tmp_path / "elsewhere"), server.url)).calls) == ROWS


def test_two_steps_of_a_pipeline_that_ask_the_same_share_the_answers(server: LLMServer, cache: str) -> None:
    distiset = build_branches(cache, server.url).run()
    assert server.count() == ROWS
    left, right = (distiset[name]["train"]["generation"] for name in ("left", "right"))
    assert left == right
    assert None not in left


def start_two(
    server: LLMServer,
    processes: Processes,
    cache: str,
    first: list[dict[str, Any]],
    second: list[dict[str, Any]],
) -> list["subprocess.Popen[str]"]:
    """Start two runs, each with a key of its own, four calls at a time."""
    return [
        processes.start(
            "chain",
            cache_dir=cache,
            url=server.url,
            rows=rows,
            name=name,
            prefix=f"{name}_",
            batch_size=4,
            llm={"max_concurrency": 4, "api_key": f"sk-{name}"},
        )
        for name, rows in (("first", first), ("second", second))
    ]


def test_two_runs_at_the_same_time_pay_once(server: LLMServer, processes: Processes, cache: str) -> None:
    """They begin at the two ends of the same rows, so both have to pay until they meet, and then neither."""
    server.reset(answer="sample", latency_s=0.1)
    rows = make_rows(120)
    first, second = start_two(server, processes, cache, rows, rows[::-1])
    one, two = processes.finish(first), processes.finish(second)
    assert server.count() == 240
    assert [row["answer"] for row in one] == [row["answer"] for row in two][::-1]
    assert None not in [row["answer"] for row in one]
    calls = Counter(call.key for call in server.calls())
    assert set(calls) == {"sk-first", "sk-second"}
    assert min(calls.values()) >= 8, "both had a share in it"


def test_two_runs_side_by_side_share_the_samples_of_equal_prompts(
    server: LLMServer, processes: Processes, cache: str
) -> None:
    server.reset(answer="sample", latency_s=0.1)
    rows = make_rows(60, same_every=3)
    one, two = (processes.finish(each) for each in start_two(server, processes, cache, rows, rows))
    assert server.count() == 120
    assert [row["answer"] for row in one] == [row["answer"] for row in two]
    assert len({row["question"] for row in one}) == 60


def test_a_run_takes_over_from_one_that_is_killed_beside_it(
    server: LLMServer, processes: Processes, cache: str
) -> None:
    server.reset(latency_s=0.2)
    rows = make_rows(100)
    dying, living = start_two(server, processes, cache, rows, rows[::-1])
    # One alone has no more than four on the wire.
    processes.wait_for(server, lambda state: state["in_flight"] > 4 and state["arrived"] >= 30)
    processes.kill(dying)

    made = processes.finish(living)

    assert [row["answer"] for row in made].count(None) == 0
    calls = Counter(call.body for call in server.calls())
    assert len(calls) == 200
    lost = {call.body for call in server.calls() if call.key == "sk-first" and calls[call.body] > 1}
    assert {body for body, count in calls.items() if count > 1} == lost, "only what the killed one had asked"
    assert calls.total() == 200 + len(lost)
    assert len(lost) <= 4, "only what can have been on the wire"

    again = processes.finish(start_two(server, processes, cache, rows, rows)[0])
    assert [row["answer"] for row in again] == [row["answer"] for row in made][::-1]
    assert server.count() == calls.total()
