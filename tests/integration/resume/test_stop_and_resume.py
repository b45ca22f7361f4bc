"""A run is stopped from outside at some moment; the next one goes on, and nobody can tell from the rows."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.resume.conftest import Driver
from tests.integration.resume.pipelines import ROWS

MakeDriver = Callable[[str], Driver]
STOPPED_IN = {
    "linear": "work",
    "routed": "join",
    "two_leaves": "work",
    "global_step": "leaf",
    "replicas": "work",
}


@pytest.mark.parametrize("pipeline", STOPPED_IN)
def test_killed_run_goes_on_from_what_is_committed(
    pipeline: str, make_driver: MakeDriver, tmp_path: Path
) -> None:
    driver = make_driver(pipeline)
    driver.run_and_stop(signal.SIGKILL, STOPPED_IN[pipeline])
    committed = {
        step: [row["id"] for row in store.read_all().to_pylist()] for step, store in driver.stores().items()
    }
    assert len(committed[STOPPED_IN[pipeline]]) > 0
    assert not all(store.is_complete for store in driver.stores().values())

    rows, log = driver.finish_in_new_process() if pipeline == "linear" else driver.finish()

    assert rows == driver.undisturbed_rows(tmp_path)
    assert "Load pipeline from cache" in log[0]
    for step, ids in committed.items():
        assert f"`{step}` ({len(ids)} rows" in log[0]
        again = {each: count for each, count in driver.given(step).items() if each in ids and count > 1}
        assert not again, f"rows of `{step}` that were committed were computed again"
    assert all(store.is_complete for store in driver.stores().values())
    for place in ("steps_data", "*/data"):
        assert not list(driver.cache_dir.glob(f"{place}/*/.*.tmp")), "left behind by the killed run"


@pytest.mark.parametrize(
    ("pipeline", "number"),
    [
        ("linear", signal.SIGINT),
        ("linear", signal.SIGTERM),
        ("routed", signal.SIGINT),
        ("replicas", signal.SIGTERM),
    ],
)
def test_stopped_run_commits_what_it_has_begun(
    pipeline: str, number: signal.Signals, make_driver: MakeDriver, tmp_path: Path
) -> None:
    driver = make_driver(pipeline)
    terminal = driver.run_and_stop(number, STOPPED_IN[pipeline], parts=1)
    returncode = driver.processes[-1].returncode

    if number == signal.SIGINT:
        assert terminal.rstrip().endswith("KeyboardInterrupt")
        assert returncode in (1, 130, -signal.SIGINT)
    else:
        assert returncode == -signal.SIGTERM
    stopped = driver.log_lines()
    unfinished = [step for step, store in driver.stores().items() if not store.is_complete]
    assert STOPPED_IN[pipeline] in unfinished
    for told in ("\n".join(stopped), terminal):
        assert f"Stop requested ({number.name})" in told
        for step, store in driver.stores().items():
            committed = sum(record.size for record in store.records)
            if step in unfinished:
                assert f"Step `{step}`: stop received, {committed} rows are committed" in told
        assert "Stopped. Not finished: " in told

    rows, log = driver.finish("no_replicas" if pipeline == "replicas" else pipeline)  # they're one pipeline

    assert rows == driver.undisturbed_rows(tmp_path)
    assert log[0].startswith("Load pipeline from cache; done: ")
    counts = {step: driver.given(step) for step in driver.stores()}
    again = {step: count for step, given in counts.items() if (count := [n for n in given.values() if n > 1])}
    assert not again, "what a clean stop let finish was computed again"


def test_a_run_can_be_killed_again_and_again(make_driver: MakeDriver, tmp_path: Path) -> None:
    driver = make_driver("linear")
    for parts in (1, 2, 3):
        driver.run_and_stop(signal.SIGKILL, "work", parts=parts, batch_s=0.08)
    before = driver.stores()["work"].records
    rows, _ = driver.finish()
    assert rows == driver.undisturbed_rows(tmp_path)
    assert driver.stores()["work"].records[: len(before)] == before
    assert set(driver.given("leaf")) == {number for number in range(ROWS) if number % 3}


def test_finished_pipeline_computes_nothing_when_run_again(make_driver: MakeDriver) -> None:
    driver = make_driver("linear")
    first, _ = driver.finish_in_new_process()
    parts = {path: path.stat().st_mtime_ns for path in driver.cache_dir.rglob("*.parquet")}
    given = driver.given("work")

    again, log = driver.finish()

    assert again == first
    assert driver.given("work") == given
    assert {path: path.stat().st_mtime_ns for path in driver.cache_dir.rglob("*.parquet")} == parts
    assert re.search(r"Load pipeline from cache; done: .*; left: nothing", log[0])
    assert "nothing to compute" in log[-1]


def test_second_signal_ends_the_run_at_once(make_driver: MakeDriver, tmp_path: Path) -> None:
    driver = make_driver("linear")
    process = driver.start(batch_s=4)
    driver.wait_until(process, lambda: bool(driver.given("work")))
    process.send_signal(signal.SIGINT)
    time.sleep(0.7)  # nearer together they count as one
    assert process.poll() is None, "the batch being computed gets its time"
    begun = time.monotonic()
    terminal = driver.stop(process, signal.SIGINT)
    assert time.monotonic() - begun < 5
    assert process.returncode != 0
    assert "KeyboardInterrupt" in terminal

    rows, _ = driver.finish()
    assert rows == driver.undisturbed_rows(tmp_path)


def test_two_signals_close_together_count_as_one(make_driver: MakeDriver) -> None:
    """A terminal's Ctrl+C reaches a process twice where its parent hands it on as well."""
    driver = make_driver("linear")
    process = driver.start(batch_s=0.3)
    driver.wait_until(process, lambda: bool(driver.given("work")))
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    terminal = driver.stop(process, signal.SIGINT)
    assert "Step `work`: stop received" in terminal
    assert "Stopped. Not finished: " in terminal
    assert sum(record.size for record in driver.stores()["work"].records) == len(driver.given("work"))
