"""Runs that the UI has launched, told to stop there, or left by the server that launched them."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from tests.integration.stopping import pipelines
from tests.integration.stopping.conftest import PATIENCE_S
from tests.llm_server import LLMServer
from tests.process_sessions import Process, list_session
from tests.ui.conftest import ROOT, Server, serve

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
ROWS, AT_ONCE, LATENCY_S = 60, 8, 3.0
_DEFINITIONS = """\
import dagster as dg
from distilabel_dagster import build_definitions
from tests.integration.stopping.pipelines import build_asking, build_plain

spread = {{"executor_def": dg.multiprocess_executor}} if {is_spread} else {{}}
defs = dg.Definitions.merge(
    build_definitions(build_plain({cache!r}), pool="one_at_a_time", **spread),
    build_definitions(build_asking({cache!r}), **spread),
)
"""
_POOLS = """
run_monitoring: {enabled: true, poll_interval_seconds: 5, free_slots_after_run_end_seconds: 1}
concurrency: {pools: {granularity: op, default_limit: 1}}
"""
_TERMINATE = (
    "mutation ($id: String!) { terminateRun(runId: $id, terminatePolicy: SAFE_TERMINATE) { __typename } }"
)
_RELOAD = 'mutation { reloadRepositoryLocation(repositoryLocationName: "definitions") { __typename } }'


@pytest.fixture(scope="module", params=["in process", "multiprocess"])
def dev(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server_process: LLMServer
) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("dev") / "project"
    (path / "side").mkdir(parents=True)
    settings = (ROOT / "dagster.yaml").read_text().partition("run_monitoring:")[0]
    (path / "dagster.yaml").write_text(
        settings.replace("base_dir: .dagster", f"base_dir: {path}/.dagster").replace(
            "max_retries: 2", "max_retries: 0"
        )
        + _POOLS
    )
    os.environ["ASKING_ROWS"] = str(ROWS)
    definitions = _DEFINITIONS.format(cache=str(path / "cache"), is_spread=request.param == "multiprocess")
    with serve(
        path,
        definitions,
        ASKING_ROWS=str(ROWS),
        OPENAI_BASE_URL=server_process.url,
        OPENAI_API_KEY="sk-loopback",
        NO_PROXY="127.0.0.1",
    ) as made:
        yield made
    del os.environ["ASKING_ROWS"]


@pytest.fixture(autouse=True)
def undisturbed(dev: Server, server: LLMServer) -> Iterator[None]:
    """Nothing hangs, and nothing is cached, at the beginning of a test."""
    import shutil

    shutil.rmtree(dev.path / "cache", ignore_errors=True)
    for file in (dev.path / "side").iterdir():
        file.unlink()
    yield
    (dev.path / "side" / "hang_in").unlink(missing_ok=True)


def launch(dev: Server, name: str, grace_s: float = 60.0) -> str:
    pipeline = pipelines.BUILDERS[name](dev.path / "cache")
    instance_of(dev).add_dynamic_partitions(f"{name}_signatures", [pipeline.signature])
    assets = [[name, step] for step in [*pipeline.dag.steps, "distiset"]]
    config = {"resources": {f"{name}_distilabel": {"config": {"grace_period_s": grace_s}}}}
    return dev.launch(f"{name}_job", pipeline.signature, assets, config)


def instance_of(dev: Server) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(dev.path))


def processes_of_runs(dev: Server) -> list[Process]:
    """What the code server has started, and what that has: none when no run is on."""
    return [each for each in list_session(dev.process.pid) if "spawn_main" in each.command]


def wait_until_gone(dev: Server) -> float:
    begun = time.monotonic()
    while left := processes_of_runs(dev):
        assert time.monotonic() - begun < PATIENCE_S, left
        time.sleep(0.1)
    return time.monotonic() - begun


def hang_in(dev: Server, place: str) -> None:
    (dev.path / "side" / "hang_in").write_text(place)


def terminate(dev: Server, run_id: str) -> None:
    assert dev.ask(_TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"


def test_terminate_with_calls_on_the_wire(dev: Server, server: LLMServer) -> None:
    server.configure(latency_s=LATENCY_S)
    run_id = launch(dev, "asking")
    dev.wait_until(lambda: server.state()["arrived"] == 3 * AT_ONCE)
    terminated_at = time.time()
    terminate(dev, run_id)
    gone_s = wait_until_gone(dev)
    assert dev.wait_for_end(run_id) == "CANCELED"
    server.wait_until_idle()
    calls = server.calls()
    print(f"gone {gone_s:.1f} s after Terminate, with calls of {LATENCY_S:g} s")
    # Dagster takes a moment to bring the wish to the process, but less than a call takes.
    assert max(call.at for call in calls) < terminated_at + LATENCY_S / 2
    assert all(call.is_answered for call in calls)
    server.configure(latency_s=0.0)
    assert dev.wait_for_end(launch(dev, "asking")) == "SUCCESS"
    assert server.count() == 2 * ROWS


@pytest.mark.parametrize("place", ["process", "load", "threads of its own"])
def test_terminate_when_a_step_never_returns(dev: Server, place: str) -> None:
    hang_in(dev, place)
    run_id = launch(dev, "hanging", grace_s=1.0)
    dev.wait_until((dev.path / "side" / "hangs").exists)
    terminate(dev, run_id)
    print(f"{place}: gone {wait_until_gone(dev):.1f} s after Terminate")
    assert dev.wait_for_end(run_id) == "CANCELED"
    run = instance_of(dev).get_run_by_id(run_id)
    assert run is not None
    told = [each.user_message for each in instance_of(dev).all_logs(run_id) if not each.is_dagster_event]
    assert any("Step `work`: `" in line and "hasn't returned" in line for line in told)
    hang_in(dev, "")
    assert dev.wait_for_end(launch(dev, "hanging")) == "SUCCESS"


def test_a_run_goes_on_when_its_code_location_is_reloaded(dev: Server, server: LLMServer) -> None:
    server.configure(latency_s=1.0)
    run_id = launch(dev, "asking")
    dev.wait_until(lambda: server.state()["ended"] >= AT_ONCE)
    dev.ask(_RELOAD)
    server.configure(latency_s=0.1)
    assert dev.wait_for_end(run_id) == "SUCCESS"
    assert server.count() == 2 * ROWS


def is_started_by_server(dev: Server, process: Process) -> bool:
    parents = {each.pid: each for each in list_session(dev.process.pid)}
    return (
        "dagster" in parents[process.parent].command and "spawn_main" not in parents[process.parent].command
    )


def test_a_killed_run_of_the_command_line_gives_its_place_in_the_pool_free(
    dev: Server, stoppable_job: Callable[[], Any]
) -> None:
    """Its ghost is marked by our sensor, and its slot given free by Dagster's monitoring; then the next begins."""
    hang_in(dev, "process")
    process = stoppable_job()
    dev.wait_until((dev.path / "side" / "hangs").exists)
    ghost = instance_of(dev).get_runs(limit=1)[0]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    hang_in(dev, "")
    assert dev.wait_for_end(launch(dev, "hanging")) == "SUCCESS"
    assert dev.status(ghost.run_id) == "FAILURE"


@pytest.fixture
def stoppable_job(dev: Server) -> Callable[[], Any]:
    import subprocess
    import sys

    command = [
        *(sys.executable, "-m", "dagster", "job", "execute"),
        *("-m", "definitions", "-j", "hanging_job"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SIDE_DIR": str(dev.path / "side")}

    def start() -> Any:
        return subprocess.Popen(
            command,
            cwd=dev.path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    return start


def test_a_run_goes_on_when_its_code_server_is_killed(dev: Server, server: LLMServer) -> None:
    """The last one here: Dagster's proxy may take its time to start another."""
    server.configure(latency_s=1.0)
    run_id = launch(dev, "asking")
    dev.wait_until(lambda: server.state()["ended"] >= AT_ONCE)
    (worker,) = [each for each in processes_of_runs(dev) if is_started_by_server(dev, each)]
    os.kill(worker.parent, signal.SIGKILL)
    server.configure(latency_s=0.1)

    def ended() -> bool:  # the web server has no answers now
        run = instance_of(dev).get_run_by_id(run_id)
        return run is not None and run.is_finished

    dev.wait_until(ended)
    run = instance_of(dev).get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert server.count() == 2 * ROWS
