"""Killed at any moment, and then finished: nothing that was answered is asked again, and the rows are the same."""

import itertools
import random
import re
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.integration.generation import pipelines
from tests.integration.generation.conftest import Processes
from tests.integration.generation.pipelines import CAP
from tests.llm_server import Call, LLMServer, count_most_at_once

ROWS, KILLS = 1000, 10


def read_ledger(cache: Path) -> str:
    """What is durable in the ledger, as text; to be read while nobody writes."""
    with closing(sqlite3.connect(cache / "ledger.sqlite")) as connection:
        return "\n".join(connection.iterdump())


def find_answers(cache: Path) -> set[str]:
    """The ids of the answers that the ledger has."""
    return set(re.findall(r"call-[0-9a-f]{16}", read_ledger(cache)))


def test_ten_kills_cost_no_more_than_what_was_on_the_wire(
    server: LLMServer, processes: Processes, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    arguments = {"url": server.url, "rows": pipelines.make_rows(ROWS, same_every=10)}
    server.reset(latency_s=0.01)
    undisturbed = pipelines.run(pipelines.build_chain(str(tmp_path / "undisturbed"), **arguments))
    needed = Counter(call.body for call in server.calls())
    assert needed.total() == 2 * ROWS

    server.reset(latency_s=0.02, latency_sigma=0.5)
    chosen = random.Random(3)
    moments = sorted(chosen.sample(range(1, 2 * ROWS - CAP), KILLS))
    begun: list[float] = []
    kept: list[set[str]] = []
    for moment in moments:
        begun.append(time.time())
        process = processes.start("chain", cache_dir=str(cache), **arguments)
        processes.wait_for(server, lambda state, wanted=moment: state["arrived"] >= wanted)
        time.sleep(chosen.uniform(0, 0.1))
        processes.kill(process)
        server.wait_until_idle()
        kept.append(find_answers(cache))
    begun_last = time.time()
    rows = processes.finish(processes.start("chain", cache_dir=str(cache), **arguments))

    assert rows == undisturbed
    calls = server.calls()
    made = Counter(call.body for call in calls)
    assert needed - made == Counter(), "rows with equal prompts have a call each"
    assert count_most_at_once(calls) <= CAP
    assert kept[0]
    assert kept[-1] > kept[0]
    single = [call for call in calls if needed[call.body] == 1]
    for next_begin, answers in zip([*begun[1:], begun_last], kept, strict=True):
        later = {call.answer_id for call in single if call.at >= next_begin}
        assert later.isdisjoint(answers), "what was kept is asked again"
    # No more than CAP can be on the wire, so what a kill costs beyond that had arrived.
    assert [lost for lost in count_lost(single, [*begun, begun_last]) if lost > CAP] == []
    assert made.total() <= 2 * ROWS + KILLS * CAP


def count_lost(calls: list[Call], begun: list[float]) -> list[int]:
    """For each run but the last, how many of its calls were made again after it; no two rows ask the same."""
    last = {call.body: call.number for call in calls}
    again = [call.at for call in calls if call.number < last[call.body]]
    return [sum(begin <= at < end for at in again) for begin, end in itertools.pairwise(begun)]


def test_samples_of_equal_prompts_are_kept_over_a_kill(
    server: LLMServer, processes: Processes, tmp_path: Path
) -> None:
    server.reset(answer="sample", latency_s=0.1)
    cap = 4
    arguments = {
        "cache_dir": str(tmp_path / "cache"),
        "url": server.url,
        "rows": [{"id": number, "text": "the same"} for number in range(60)],
        "llm": {"max_concurrency": cap},
    }
    process = processes.start("one", **arguments)
    processes.wait_for(server, lambda state: state["ended"] >= 24)
    processes.kill(process)
    server.wait_until_idle()
    kept = set(re.findall(r"sample \d+", read_ledger(tmp_path / "cache")))
    assert server.count() - cap <= len(kept) < 60

    made = processes.finish(processes.start("one", **arguments))

    samples = [" ".join(row["generation"].split()[-2:]) for row in made]
    assert len(set(samples)) == 60, "each row has a sample of its own"
    assert kept <= set(samples), "a sample that was paid for is gone"
    assert 60 <= server.count() <= 60 + cap


def test_killed_task_with_a_process_of_its_own_has_kept_what_was_answered(
    server: LLMServer, processes: Processes, tmp_path: Path
) -> None:
    server.reset(latency_s=0.1)
    cap = 4
    arguments = {"cache_dir": str(tmp_path / "cache"), "url": server.url, "llm": {"max_concurrency": cap}}
    process = processes.start("own_process", rows=40, **arguments)
    processes.wait_for(server, lambda state: state["ended"] >= 50)  # in the second of its two rounds of calls
    processes.kill(process)
    server.wait_until_idle()
    kept = find_answers(tmp_path / "cache")
    before = server.count()
    assert len(kept) >= before - cap

    made = processes.finish(processes.start("own_process", rows=40, **arguments))

    assert all(row["first"] and row["second"] for row in made)
    assert kept.isdisjoint(call.answer_id for call in server.calls()[before:])
    assert 80 <= server.count() <= 80 + cap
