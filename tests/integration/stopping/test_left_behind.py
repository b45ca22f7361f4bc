"""No process is left when the one that has started it is killed, whatever either was doing."""

import signal
import time

import pytest

from tests.integration.stopping.conftest import PATIENCE_S, Stoppable
from tests.process_sessions import list_session, wait_for_empty_session


def replicas_of(main: int) -> int:
    return sum(each.parent == main and not each.is_tracker for each in list_session(main))


@pytest.mark.parametrize(
    "place",
    [
        "load",
        pytest.param("process", marks=pytest.mark.soak),
        pytest.param("unload", marks=pytest.mark.soak),
        pytest.param("", marks=pytest.mark.soak),
    ],
)
def test_replicas_end_with_the_process_that_has_started_them(stoppable: Stoppable, place: str) -> None:
    stoppable.name = "replicated"
    main = stoppable.start(place)
    stoppable.wait_until(main, stoppable.hangs if place else lambda: replicas_of(main.pid) == 2)
    main.kill()
    main.wait()
    print(f"{place or 'starting'}: replicas gone after {wait_for_empty_session(main.pid, PATIENCE_S):.2f} s")
    stoppable.check_resume()


@pytest.mark.soak
@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.6, 1.0, 1.5, 2.0])
def test_replicas_that_are_just_being_started(stoppable: Stoppable, after_s: float) -> None:
    """Before they watch their parent they import what it has imported; then they see that it's gone."""
    stoppable.name = "replicated"
    main = stoppable.start("load")
    stoppable.wait_until(main, lambda: replicas_of(main.pid))
    time.sleep(after_s)
    main.send_signal(signal.SIGKILL)
    main.wait()
    print(f"{after_s} s: replicas gone after {wait_for_empty_session(main.pid, PATIENCE_S):.2f} s")
    stoppable.check_resume()


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process(stoppable: Stoppable, number: signal.Signals) -> None:
    stoppable.name = "replicated"
    main = stoppable.start(grace_s=60.0)
    stoppable.wait_until(main, lambda: replicas_of(main.pid) == 2)
    stoppable.stop(main, number, to_all=True)
    stoppable.check_resume()


@pytest.mark.soak
def test_a_step_that_keeps_pythons_lock_can_only_be_killed(stoppable: Stoppable) -> None:
    """Not a line of Python runs in its process then, ours included; what was committed is there all the same."""
    main = stoppable.start("C code with the GIL")
    stoppable.wait_until(main, stoppable.hangs)
    main.send_signal(signal.SIGINT)
    time.sleep(5)
    assert main.poll() is None
    main.kill()
    main.wait()
    wait_for_empty_session(main.pid, PATIENCE_S)
    stoppable.check_resume()
