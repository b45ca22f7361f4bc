"""Dagster's runs beside others: jobs, a schedule, the command line, and assets that aren't steps."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from distilabel_dagster import DistilabelIOManager, build_definitions
from distilabel_dagster.orchestration.metadata import BATCHES_COMPUTED, BATCHES_REUSED
from tests.integration.two_at_once import program
from tests.integration.two_at_once.conftest import PATIENCE_S, Shared


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One that a schedule can be given, too."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as made:
        yield made


def log_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(run_id) if not entry.is_dagster_event]


def test_the_run_of_a_schedule_waits_for_one_that_was_started_by_hand(
    shared: Shared, instance: dg.DagsterInstance
) -> None:
    shared.hold()
    by_hand = shared.start()
    by_hand.wait_for_rows()
    defs = build_definitions(shared.build(), cron_schedule="* * * * *", when_in_use="wait")
    schedule = defs.resolve_schedule_def("shared_schedule")
    request = schedule(dg.build_schedule_context(instance=instance))
    shared.release_when_waited_for()
    result = defs.resolve_job_def("shared_job").execute_in_process(
        instance=instance, partition_key=request.partition_key, run_config=request.run_config
    )
    assert result.success
    by_hand.finish()
    told = log_of(instance, result.run_id)
    assert f"is being written by process {by_hand.pid}" in told[0]
    assert told[1].startswith("Load pipeline from cache")
    for event in result.asset_materializations_for_node("shared"):
        assert event.metadata[BATCHES_COMPUTED].value == 0
        assert event.metadata[BATCHES_REUSED].value == 10
    shared.check_rows()
    shared.check_given_once()


def test_a_job_fails_and_says_who_writes_unless_its_config_says_to_wait(
    shared: Shared, instance: dg.DagsterInstance
) -> None:
    shared.hold()
    first = shared.start()
    first.wait_for_rows()
    job = build_definitions(shared.build()).resolve_job_def("shared_job")
    failed = job.execute_in_process(instance=instance, raise_on_error=False)
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    assert f"process {first.pid}" in str(failure.step_failure_data.error)
    shared.release_when_waited_for()
    config = {"ops": {"shared": {"config": {"when_in_use": "wait"}}}}
    waited = job.execute_in_process(instance=instance, run_config=config)
    assert waited.success
    assert log_of(instance, waited.run_id)[0].startswith("Waiting: ")
    first.finish()
    shared.check_rows()
    shared.check_given_once()


@pytest.mark.soak
@pytest.mark.parametrize("executor", ["", "dg.multiprocess_executor"])
@pytest.mark.parametrize("first_is_job", [True, False])
def test_a_job_and_a_run_in_python(shared: Shared, executor: str, first_is_job: bool) -> None:
    """Whoever comes second waits, and both end well."""
    shared.hold()
    if first_is_job:
        first = shared.start_job(executor=executor)
        first.wait_for_rows()
        second = shared.start(when_in_use="wait")
    else:
        first = shared.start()
        first.wait_for_rows()
        second = shared.start_job(executor=executor, when_in_use="wait")
    second.wait_until(shared.is_waited_for)
    shared.release()
    for each, is_job in ((first, first_is_job), (second, not first_is_job)):
        if is_job:
            told = each.finish_job()
            assert each.process.returncode == 0, told
            assert shared.latest_run().status == dg.DagsterRunStatus.SUCCESS
        else:
            assert len(each.finish()) == program.ROWS
    shared.check_rows()
    shared.check_given_once()


@pytest.mark.soak
@pytest.mark.parametrize("when_in_use", ["raise", "wait"])
def test_two_jobs(shared: Shared, when_in_use: str) -> None:
    shared.hold()
    first = shared.start_job()
    first.wait_for_rows()
    second = shared.start_job(when_in_use=when_in_use)
    if when_in_use == "raise":
        told = second.finish_job()
        assert second.process.returncode != 0
        assert f"process {first.pid} on host" in told
        shared.release()
    else:
        second.wait_until(shared.is_waited_for)
        shared.release()
        second.finish_job()
        assert second.process.returncode == 0
    told = first.finish_job()
    assert first.process.returncode == 0, told
    shared.check_rows()
    shared.check_given_once()


@pytest.mark.soak
@pytest.mark.parametrize("when_in_use", ["raise", "wait"])
def test_the_command_line_during_a_run(shared: Shared, when_in_use: str) -> None:
    shared.hold()
    first = shared.start()
    first.wait_for_rows()
    shared.build().save(shared.path / "pipeline.yaml")
    command = [
        str(Path(sys.executable).with_name("distilabel-dagster")),
        "pipeline",
        "run",
        "--config",
        str(shared.path / "pipeline.yaml"),
    ]
    options = ["--trusted-module", "tests.integration.two_at_once.program", "--cache-dir", str(shared.cache)]
    second = shared._start([*command, *options, "--when-in-use", when_in_use], shared.path, ())
    if when_in_use == "raise":
        told = second.finish_job()
        assert second.process.returncode == 1
        assert f"is being written by process {first.pid} on host" in told
        assert "Traceback" not in told
        shared.release()
    else:
        second.wait_until(shared.is_waited_for)
        shared.release()
        told = second.finish_job()
        assert second.process.returncode == 0, told
        assert "Waiting: step `" in told
    first.finish()
    shared.check_rows()
    shared.check_given_once()


def materialize(shared: Shared, rows: Any, when_in_use: str, instance: dg.DagsterInstance) -> bool:
    """Materialize an asset that is no step, in this process."""

    @dg.asset(io_manager_key="io")
    def numbers() -> Any:
        return rows

    io_manager = DistilabelIOManager(cache_dir=str(shared.cache), when_in_use=when_in_use)
    return dg.materialize(
        [numbers], resources={"io": io_manager}, instance=instance, raise_on_error=False
    ).success


class Slow:
    """Rows that come when they may."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[list[dict[str, int]]]:
        yield [{"n": self.value}]
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        yield [{"n": self.value + 1}]


@pytest.mark.parametrize("when_in_use", ["raise", "wait"])
def test_an_asset_that_is_no_step_is_written_by_one_at_a_time(
    shared: Shared, instance: dg.DagsterInstance, when_in_use: str
) -> None:
    slow, succeeded = Slow(1), []
    first = threading.Thread(target=lambda: succeeded.append(materialize(shared, slow, "raise", instance)))
    first.start()
    assert slow.begun.wait(PATIENCE_S)
    if when_in_use == "wait":
        threading.Timer(0.5, slow.may_end.set).start()
    is_written = materialize(shared, [{"n": 7}, {"n": 8}], when_in_use, instance)
    slow.may_end.set()
    first.join(PATIENCE_S)
    assert succeeded == [True]
    assert is_written == (when_in_use == "wait")
    (store,) = shared.cache.glob("steps_data/numbers_*")
    found = [row["n"] for part in sorted(store.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert found == ([7, 8] if is_written else [1, 2])
