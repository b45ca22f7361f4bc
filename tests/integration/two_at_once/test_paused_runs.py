"""A run that was paused until another took its place: when it wakes up it can't write any more."""

import os
import signal
import time

import dagster as dg
import pytest

from distilabel_dagster.engine.events import RunFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import CacheError, StepInUseError
from tests.integration.two_at_once.conftest import PATIENCE_S, Pause, Shared, read_state

POINTS = [
    Pause("file.synced", "/scale_", 2),
    pytest.param(Pause("file.written", "/leaf_", 1), marks=pytest.mark.soak),
    pytest.param(Pause("file.renamed", "/scale_", 2), marks=pytest.mark.soak),
    pytest.param(Pause("file.done", "/load_", 1), marks=pytest.mark.soak),
    pytest.param(Pause("link.made", "/leaf/", 1), marks=pytest.mark.soak),
    pytest.param(Pause("round.begun", "", 3), marks=pytest.mark.soak),
    pytest.param(Pause("round.step_done", "scale", 2), marks=pytest.mark.soak),
    pytest.param(Pause("round.done", "", 2), marks=pytest.mark.soak),
    pytest.param(Pause("snapshot.begun", "", 2), marks=pytest.mark.soak),
    pytest.param(Pause("lease.acquired"), marks=pytest.mark.soak),
    pytest.param(Pause("lease.renewed"), marks=pytest.mark.soak),
    pytest.param(Pause("seal.begun", "load"), marks=pytest.mark.soak),
    pytest.param(Pause("seal.united", "load"), marks=pytest.mark.soak),
]


def files_of(shared: Shared) -> dict[str, bytes]:
    """The parts and markers, with what they hold."""
    found = [*shared.cache.glob("steps_data/*/*"), *shared.cache.glob("*/data/*/*")]
    return {str(path): path.read_bytes() for path in found if not path.name.startswith(".")}


@pytest.mark.parametrize("pause", POINTS, ids=lambda pause: pause.point)
def test_a_run_that_wakes_up_when_another_has_taken_over_writes_nothing(shared: Shared, pause: Pause) -> None:
    shared.set_pace(1.5 if pause.point == "lease.renewed" else 0.1)
    first = shared.start(pause)
    pid = first.wait_for_pause()
    shared.let_leases_expire()
    shared.set_pace(0)
    shared.build().run()
    before = files_of(shared)
    first.wake()
    said = first.finish()
    assert "may write no longer" in said["error"] or "may not write" in said["error"]
    assert pid == first.pid
    assert files_of(shared) == before
    shared.check_rows()


def test_one_that_is_paused_within_a_write_is_named_and_not_written_beside(shared: Shared) -> None:
    """It holds the fence, so what it's about to do when it wakes up can't be helped any more."""
    shared.set_pace(0.1)
    first = shared.start(Pause("file.fenced", "/scale_", 2))
    pid = first.wait_for_pause()
    shared.let_leases_expire()
    before = files_of(shared)
    with pytest.raises(StepInUseError, match=rf"process {pid} is in the middle of writing there") as caught:
        shared.build().run()
    assert caught.value.pid == pid
    assert "kill -CONT" in str(caught.value)
    assert files_of(shared) == before
    shared.set_pace(0)
    first.wake()
    assert "may write no longer" in first.finish()["error"]
    shared.build().run()
    shared.check_rows()


@pytest.mark.soak
def test_one_that_is_paused_within_a_write_is_waited_for(shared: Shared) -> None:
    shared.set_pace(0.1)
    first = shared.start(Pause("file.fenced", "/scale_", 2))
    first.wait_for_pause()
    shared.let_leases_expire()
    events = shared.build().iter_run(RunOptions(when_in_use="wait"))
    waiting = next(events)
    assert (waiting.in_use, waiting.pid) == ("scale", first.pid)
    shared.set_pace(0)
    first.wake()
    assert isinstance(list(events)[-1], RunFinished)
    first.process.communicate(timeout=PATIENCE_S)
    shared.check_rows()


@pytest.mark.soak
@pytest.mark.parametrize(("nth", "pace_s"), [(2, 0.1), (3, 1.5)], ids=["acquiring", "giving a sign of life"])
def test_one_that_is_paused_within_the_ledger_holds_up_all_until_it_wakes(
    shared: Shared, nth: int, pace_s: float
) -> None:
    """Nobody can say who writes while the ledger is locked: that's a clear error, and nothing is written."""
    shared.set_pace(pace_s)
    first = shared.start(Pause("ledger.committing", "", nth))
    first.wait_for_pause()
    with pytest.raises(CacheError, match="locked"):
        shared.build().run()
    shared.set_pace(0)
    first.wake()
    first.finish()
    shared.build().run()
    shared.check_rows()
    shared.check_given_once()


@pytest.mark.soak
@pytest.mark.parametrize("at_s", [0.0, 0.5, 1.0])
def test_one_that_is_paused_from_outside(shared: Shared, at_s: float) -> None:
    shared.set_pace(0.1)
    shared.hold(24)
    first = shared.start()
    first.wait_for_rows()
    time.sleep(at_s)
    os.kill(first.pid, signal.SIGSTOP)
    first.wait_until(lambda: read_state(first.pid) == "T")
    shared.let_leases_expire()
    shared.set_pace(0)
    shared.release()
    held = ""
    try:
        shared.build().run()
    except StepInUseError as error:
        held = str(error)
    if held:  # it stands within a rename, and could finish that at any moment
        assert f"process {first.pid} is in the middle" in held
        first.wake()
        first.finish()
        assert "error" not in shared.start().finish()
        shared.check_rows()
        return
    before = files_of(shared)
    first.wake()
    assert "may" in first.finish()["error"]
    assert files_of(shared) == before
    shared.check_rows()


@pytest.mark.soak
@pytest.mark.parametrize("executor", ["", "dg.multiprocess_executor"])
def test_a_job_that_wakes_up_fails_and_says_why(shared: Shared, executor: str) -> None:
    shared.set_pace(0.2)
    first = shared.start_job(Pause("file.synced", "/scale_", 2), executor=executor)
    pid = first.wait_for_pause()
    shared.let_leases_expire()
    shared.set_pace(0)
    shared.build().run()
    before = files_of(shared)
    os.kill(pid, signal.SIGCONT)
    told = first.finish_job()
    assert "StepInUseError" in told
    assert shared.latest_run().status == dg.DagsterRunStatus.FAILURE
    assert files_of(shared) == before
    shared.check_rows()
