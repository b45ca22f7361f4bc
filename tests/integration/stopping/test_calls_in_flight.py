"""A run is told to stop while calls are on the wire: they're answered and kept, and no other is made."""

import datetime as dt
import signal
import time
from pathlib import Path
from subprocess import Popen

import dagster as dg
import pytest

from tests.integration.stopping import pipelines
from tests.integration.stopping.conftest import Stoppable
from tests.llm_server import LLMServer

ROWS = 60
LATENCY_S = 3.0
AT_ONCE = 8
SLACK_S = 90.0
ON_THE_WAY_S = 1.0
"""What may lie between the moment at which a run makes a call and the one that the server notes."""


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKING_ROWS", str(ROWS))


def stopped_at(cache: Path) -> float:
    """When the run had taken the signal in, in seconds since 1970."""
    for log in cache.glob("*/pipeline.log"):
        for line in log.read_text().splitlines():
            if "Stop requested" in line:
                return dt.datetime.fromisoformat(line.split()[0]).timestamp()
    raise AssertionError("the log says nothing of a stop")


def check_stop(stoppable: Stoppable, process: "Popen[str]", server: LLMServer, number: int) -> int:
    """Stop the run amid its calls; give its exit code."""
    # Amid the third round of calls: they all take the same time, so they begin and end together.
    stoppable.wait_until(process, lambda: server.state()["arrived"] == 3 * AT_ONCE)
    signalled_at = time.time()
    ended = stoppable.stop(process, number, to_all=True)
    server.wait_until_idle()
    calls = server.calls()
    taken_in_at = stopped_at(Path(stoppable.cache))
    latest = max(call.at for call in calls)
    print(
        f"gone after {ended.after_s:.1f} s with calls of {LATENCY_S:g} s; signal taken in after "
        f"{taken_in_at - signalled_at:.3f} s, last call {latest - taken_in_at:.3f} s after that"
    )
    assert [call for call in calls if call.at > taken_in_at + ON_THE_WAY_S] == [], "begun after the stop"
    assert all(call.is_answered for call in calls), "what was on the wire was given up"
    assert LATENCY_S / 2 < ended.after_s < LATENCY_S + SLACK_S
    assert len(calls) < 2 * ROWS
    server.configure(latency_s=0.0)
    before = len(calls)
    stoppable.check_resume()
    again = server.calls()[before:]
    # What the resumed run asked, and then what one asked that nobody stopped.
    assert len(again) == 2 * ROWS - before + 2 * ROWS
    assert {call.body for call in calls}.isdisjoint(call.body for call in again[: 2 * ROWS - before])
    return ended.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_a_run_in_python(stoppable: Stoppable, server: LLMServer, number: signal.Signals) -> None:
    server.configure(latency_s=LATENCY_S)
    stoppable.name = "asking"
    code = check_stop(stoppable, stoppable.start(grace_s=60.0), server, number)
    assert code in (-number, 128 + number)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("executor", ["", "dg.multiprocess_executor"])
def test_a_job(stoppable: Stoppable, server: LLMServer, executor: str, number: signal.Signals) -> None:
    server.configure(latency_s=LATENCY_S)
    stoppable.name = "asking"
    process = stoppable.start_job(executor=executor, grace_s=60.0)
    assert check_stop(stoppable, process, server, number) != 0
    run = stoppable.latest_run()
    assert run.status == dg.DagsterRunStatus.FAILURE, (
        "what Dagster makes of an interruption on the command line"
    )


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line(stoppable: Stoppable, server: LLMServer, number: signal.Signals) -> None:
    server.configure(latency_s=LATENCY_S)
    stoppable.name = "asking"
    assert check_stop(stoppable, stoppable.start_command(), server, number) == 128 + number
    home = Path(stoppable.cache) / ".dagster"
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        (run,) = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.CANCELED


@pytest.mark.soak
def test_the_grace_period_is_the_longest_that_calls_get(stoppable: Stoppable, server: LLMServer) -> None:
    server.configure(latency_s=600.0)
    stoppable.name = "asking"
    process = stoppable.start(grace_s=2.0)
    stoppable.wait_until(process, lambda: server.state()["in_flight"] == AT_ONCE)
    ended = stoppable.stop(process)
    print(f"gone after {ended.after_s:.1f} s with calls of 600 s and a grace period of 2 s")
    assert 2.0 <= ended.after_s < 2.0 + SLACK_S
    server.configure(latency_s=0.0)
    assert server.count() == AT_ONCE
    stoppable.check_resume()


def test_pipeline_has_as_many_rows_as_these_tests_say(tmp_path: Path, server: LLMServer) -> None:
    assert len(pipelines.run(pipelines.build_asking(tmp_path), 30.0)) == ROWS
    assert server.count() == 2 * ROWS
