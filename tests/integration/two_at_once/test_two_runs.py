"""The same partition, wanted by two runs at once: one works, the other waits or says who does."""

import logging
import os
import socket
import threading
import time
from datetime import datetime, timezone

import pytest

from distilabel_dagster.engine.events import RunFinished, RunStopped, WaitingForLease
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import StepInUseError
from tests.integration.two_at_once import program
from tests.integration.two_at_once.conftest import PATIENCE_S, Pause, Shared, read_state

WAIT = RunOptions(when_in_use="wait")


def test_a_second_process_is_told_who_writes(shared: Shared) -> None:
    shared.hold()
    first = shared.start()
    first.wait_for_rows()
    with pytest.raises(StepInUseError) as caught:
        shared.build().run()
    error = caught.value
    assert (error.pid, error.host) == (first.pid, socket.gethostname())
    assert abs((datetime.now(timezone.utc) - error.since).total_seconds()) < PATIENCE_S
    assert (
        f"process {first.pid} on host `{socket.gethostname()}` since {error.since:%Y-%m-%d %H:%M:%S}"
        in str(error)
    )
    shared.release()
    assert len(first.finish()) == program.ROWS
    shared.check_rows()
    shared.check_given_once()


def test_a_process_that_waits_uses_what_the_other_has_made(shared: Shared) -> None:
    shared.hold()
    first = shared.start()
    first.wait_for_rows()
    events = shared.build().iter_run(WAIT)
    waiting = next(events)
    assert isinstance(waiting, WaitingForLease)
    assert (waiting.pid, waiting.host) == (first.pid, socket.gethostname())
    assert waiting.in_use in waiting.steps
    assert f"step `{waiting.in_use}` is being written by process {first.pid}" in str(waiting)
    shared.release()
    found = list(events)
    assert not any(isinstance(event, WaitingForLease) for event in found), "told once"
    assert isinstance(found[-1], RunFinished)
    assert found[-1].batches_computed == 0
    first.finish()
    shared.check_rows()
    shared.check_given_once()


def test_waiting_ends_when_what_is_wanted_is_made_though_the_other_goes_on(shared: Shared) -> None:
    """The other has `load` and `scale` long since, when it still works on `leaf`."""
    first = shared.start(Pause("lease.acquired", "leaf"), Pause("seal.done", "scale"))
    pid = first.wait_for_pause()
    events = shared.build().iter_run(WAIT, steps=["load", "scale"])
    assert isinstance(next(events), WaitingForLease)
    first.wake()
    assert first.wait_for_pause() == pid
    assert isinstance(list(events)[-1], RunFinished)
    assert read_state(pid) == "T", "it has the lease still"
    first.wake()
    first.finish()
    shared.check_rows()
    shared.check_given_once()


def test_a_stop_ends_the_waiting(shared: Shared) -> None:
    shared.hold()
    first = shared.start()
    first.wait_for_rows()
    events = shared.build().iter_run(WAIT)
    next(events)
    threading.Timer(0.3, events.stop, ["enough"]).start()
    (stopped,) = events
    assert stopped == RunStopped(("load", "scale", "leaf"))
    shared.release()
    first.finish()
    shared.check_given_once()


def test_two_threads_of_one_process(shared: Shared) -> None:
    """Each with a pipeline of its own, as two jobs of a code server; runs of one object take turns anyway."""
    shared.hold()
    first = threading.Thread(target=shared.build().run)
    first.start()
    while not shared.given("scale"):
        time.sleep(0.01)
    with pytest.raises(StepInUseError, match="That is this very process") as caught:
        shared.build().run()
    assert caught.value.pid == os.getpid()
    second = shared.build().iter_run(WAIT)
    assert isinstance(next(second), WaitingForLease)
    shared.release()
    assert isinstance(list(second)[-1], RunFinished)
    first.join(PATIENCE_S)
    assert not first.is_alive()
    shared.check_rows()
    shared.check_given_once()


def test_a_dead_process_holds_up_nobody(shared: Shared, caplog: pytest.LogCaptureFixture) -> None:
    shared.hold()
    first = shared.start()
    first.wait_for_rows()
    first.kill()
    shared.release()
    with caplog.at_level(logging.WARNING, "distilabel_dagster"):
        rows = program.read_leaf(shared.build().run())
    assert any(f"from process {first.pid} on host" in record.getMessage() for record in caplog.records)
    assert len(rows) == program.ROWS
    shared.check_rows()


def test_a_process_elsewhere_holds_up_others_until_its_time_is_over(shared: Shared) -> None:
    shared.hold()
    first = shared.start()
    first.wait_for_rows()
    first.kill()
    shared.change_leases("host = 'elsewhere [another boot]'")
    with pytest.raises(
        StepInUseError, match=r"if it's gone already, the step is free \d+ s from now"
    ) as caught:
        shared.build().run()
    assert (caught.value.host, caught.value.pid) == ("elsewhere", first.pid)
    shared.release()
    events = shared.build().iter_run(WAIT)
    assert isinstance(next(events), WaitingForLease)
    shared.let_leases_expire()
    assert isinstance(list(events)[-1], RunFinished)
    shared.check_rows()


@pytest.mark.parametrize("when_in_use", ["raise", "wait"])
def test_a_run_that_has_nothing_to_write_needs_nobody(shared: Shared, when_in_use: str) -> None:
    shared.build().run()
    with shared_lease(shared):
        assert len(program.read_leaf(shared.build().run(when_in_use=when_in_use))) == program.ROWS


def shared_lease(shared: Shared):
    from distilabel_dagster.ledger.leases import Leases

    keys = [store.path for store in shared.stores().values()]
    return Leases(str(shared.cache / "ledger.sqlite")).acquire(keys)


def test_what_is_complete_and_not_sealed_is_sealed_by_one(shared: Shared) -> None:
    """Sealing writes, so it's for whoever has the lease."""
    shared.build().run()
    for marker in shared.cache.glob("steps_data/leaf_*/complete.json"):
        marker.unlink()
    with shared_lease(shared), pytest.raises(StepInUseError):
        shared.build().run()
    shared.build().run()
    assert list(shared.cache.glob("steps_data/leaf_*/complete.json"))
    shared.check_given_once()
