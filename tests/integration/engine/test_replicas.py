"""Steps in worker processes: order kept, processes really used, their end told and survived."""

import os
import threading
from pathlib import Path

import pytest

from distilabel_dagster.engine.events import RunStopped, StepStopped
from distilabel_dagster.errors import StepLoadError, StepProcessError
from distilabel_dagster.steps import StepResources
from tests.integration.engine.replica_steps import Failing, Hanging, Killed, Slow, Unsendable
from tests.unit.engine.runs import Bench, Numbers

pytestmark = pytest.mark.timeout(120)


def with_replicas(make, count: int = 12):
    def declare() -> None:
        Numbers(name="load", count=count, batch_size=4) >> make(
            input_batch_size=1, resources=StepResources(replicas=2)
        )

    return declare


def test_rows_keep_their_order_and_each_process_unloads(tmp_path: Path) -> None:
    bench = Bench(with_replicas(lambda **options: Slow(name="a", directory=str(tmp_path), **options)))
    assert bench.run()["a"] == 12
    rows = bench.rows("a")
    assert [row["n"] for row in rows] == list(range(12))
    pids = {row["pid"] for row in rows}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert {path.name for path in tmp_path.glob("unloaded-*")} == {f"unloaded-{pid}" for pid in pids}


def test_a_killed_process_is_a_clear_error_and_a_resume_goes_on(tmp_path: Path) -> None:
    bench = Bench(with_replicas(lambda **options: Killed(name="a", directory=str(tmp_path), **options)))
    with pytest.raises(StepProcessError, match="worker process of step `a` ended"):
        bench.run()
    kept = len(bench.rows("a"))
    assert kept >= 4
    (tmp_path / "survive").touch()
    assert bench.run() == {"load": 0, "a": 12 - kept}
    assert [row["n"] for row in bench.rows("a")] == list(range(12))


def test_failed_rows_are_kept_as_in_a_thread() -> None:
    bench = Bench(with_replicas(lambda **options: Failing(name="a", how="raise", **options)))
    bench.run()
    assert [row["n"] for row in bench.rows("a") if not row["done"]] == [3]


def test_a_step_that_ends_its_process_is_an_error_of_the_step() -> None:
    bench = Bench(with_replicas(lambda **options: Failing(name="a", how="exit", **options)))
    with pytest.raises(StepProcessError, match="SystemExit"):
        bench.run()


def test_a_stop_ends_processes_that_do_not_return() -> None:
    bench = Bench(with_replicas(lambda **options: Hanging(name="a", **options)))
    events = bench.start(grace_period_s=0.2)
    seen = []
    for event in events:
        seen.append(event)
        if getattr(event, "step", "") == "a":
            threading.Timer(0.5, bench.engine.request_stop, ["enough"]).start()
    assert [event.given_up for event in seen if isinstance(event, StepStopped) and event.step == "a"] == [2]
    assert isinstance(seen[-1], RunStopped)


def test_a_step_that_cannot_be_sent_is_an_error_before_its_first_row() -> None:
    bench = Bench(with_replicas(lambda **options: Unsendable(name="a", **options)))
    with pytest.raises(StepLoadError, match="`a` can't be sent to worker processes"):
        bench.run()
    assert bench.rows("a") == []
