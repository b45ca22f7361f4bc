import signal
import threading

import pytest

from distilabel_dagster.engine import signals
from distilabel_dagster.engine.signals import stop_on_signals


class TerminatedError(Exception):
    pass


@pytest.fixture(autouse=True)
def own_handlers():
    def terminate(number, frame):
        raise TerminatedError

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TerminatedError)]
)
def test_the_first_signal_asks_for_a_stop_and_is_delivered_when_the_run_has_ended(number, raised) -> None:
    reasons = []

    def run():
        with stop_on_signals(reasons.append):
            signal.raise_signal(number)
            reasons.append("went on")

    with pytest.raises(raised):
        run()
    assert reasons == [signal.Signals(number).name, "went on"]


def test_a_second_signal_is_delivered_at_once(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    reached = []

    def run():
        with stop_on_signals(reached.append):
            signal.raise_signal(signal.SIGINT)
            now[0] = 1.0
            signal.raise_signal(signal.SIGTERM)
            reached.append("too far")

    with pytest.raises(TerminatedError):
        run()
    assert reached == ["SIGINT"]


def test_the_same_signal_twice_within_half_a_second_is_one(monkeypatch) -> None:
    monkeypatch.setattr(signals.time, "monotonic", lambda: 0.0)
    reached = []

    def run():
        with stop_on_signals(reached.append):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            reached.append("went on")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert reached == ["SIGINT", "went on"]


def test_the_handlers_that_were_there_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(lambda reason: None):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_the_main_thread_nothing_is_touched() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        with stop_on_signals(lambda reason: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
