"""A step that never returns, in a process that's told to stop: the process ends, and says which step it was."""

import signal

import dagster as dg
import pytest

from tests.integration.stopping.conftest import GRACE_S, PATIENCE_S, Stoppable

SLACK_S = 90.0
"""Far beyond what is promised, 2 s; a busy machine isn't what's tested."""
PLACES = {
    "process": "`process()` hasn't returned (pipelines.py:",
    "load": "`load()` hasn't returned (pipelines.py:",
    "unload": "`unload()` hasn't returned (pipelines.py:",
    "generator": "`process()` hasn't returned (pipelines.py:",
    "C code": "`process()` hasn't returned (pipelines.py:",
    "a lock": "`process()` hasn't returned (pipelines.py:",
    "threads of its own": "`process()` hasn't returned (",
}
SHORT = {"process", "threads of its own"}


def mark(names: "list[str] | dict[str, str]", short: set[str]) -> list[object]:
    return [each if each in short else pytest.param(each, marks=pytest.mark.soak) for each in names]


@pytest.mark.parametrize("place", mark(PLACES, SHORT))
def test_a_step_that_never_returns(stoppable: Stoppable, place: str) -> None:
    process = stoppable.start(place)
    stoppable.wait_until(process, stoppable.hangs)
    ended = stoppable.stop(process)
    print(f"{place}: gone after {ended.after_s:.1f} s")
    step = "load" if place == "generator" else "work"
    assert f"Step `{step}`: {PLACES[place]}" in ended.terminal
    assert "Stopped. Not finished: " in ended.terminal
    assert "KeyboardInterrupt" in ended.terminal
    assert ended.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert GRACE_S <= ended.after_s < GRACE_S + SLACK_S
    stoppable.check_resume()


@pytest.mark.parametrize(
    "place", mark(["process", "load", "unload", "C code with the GIL"], {"C code with the GIL"})
)
def test_replicas_that_never_return(stoppable: Stoppable, place: str) -> None:
    """A process can be ended whatever it does, even while it keeps Python's lock."""
    stoppable.name = "replicated"
    process = stoppable.start(place)
    stoppable.wait_until(process, stoppable.hangs)
    ended = stoppable.stop(process, to_all=True)
    print(f"replicas, {place}: gone after {ended.after_s:.1f} s")
    assert "Step `work`: its worker processes (" in ended.terminal
    assert "haven't returned" in ended.terminal
    assert GRACE_S <= ended.after_s < GRACE_S + SLACK_S
    stoppable.check_resume()


@pytest.mark.soak
@pytest.mark.parametrize("name", ["hanging", "replicated"])
@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_further_signals_end_it_at_once(
    stoppable: Stoppable, name: str, times: int, number: signal.Signals
) -> None:
    stoppable.name = name
    process = stoppable.start("process", grace_s=PATIENCE_S)
    stoppable.wait_until(process, stoppable.hangs)
    ended = stoppable.stop(process, number, times=times, to_all=True)
    print(f"{name}, {number.name} {times} times: gone after {ended.after_s:.1f} s")
    assert ended.after_s < SLACK_S
    stoppable.check_resume()


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("executor", ["", "dg.multiprocess_executor"])
@pytest.mark.parametrize("place", ["process", "load", "threads of its own"])
def test_a_job_whose_step_never_returns(
    stoppable: Stoppable, place: str, executor: str, number: signal.Signals
) -> None:
    process = stoppable.start_job(place, executor=executor)
    stoppable.wait_until(process, stoppable.hangs)
    ended = stoppable.stop(process, number, to_all=True)
    print(f"job, {executor or 'in process'}, {place}, {number.name}: gone after {ended.after_s:.1f} s")
    assert f"Step `work`: {PLACES[place]}" in ended.terminal
    assert stoppable.latest_run().status == dg.DagsterRunStatus.FAILURE
    assert ended.returncode != 0
    assert ended.after_s < GRACE_S + SLACK_S
    stoppable.check_resume()


@pytest.mark.soak
@pytest.mark.parametrize("times", [1, 2])
def test_the_command_line_when_a_step_never_returns(stoppable: Stoppable, times: int) -> None:
    process = stoppable.start_command("process")
    stoppable.wait_until(process, stoppable.hangs)
    ended = stoppable.stop(process, times=times)
    print(f"command, {times} times: gone after {ended.after_s:.1f} s")
    assert ended.returncode == 128 + signal.SIGINT
    assert ended.after_s < (30 if times == 1 else 0) + SLACK_S
    if times == 1:
        assert f"Step `work`: {PLACES['process']}" in ended.terminal
    stoppable.check_resume()
