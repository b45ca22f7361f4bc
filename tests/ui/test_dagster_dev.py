"""The UI: assets are materialized, stopped and resumed from it, beside the command line."""

import signal
from typing import Any

import dagster as dg

from distilabel_dagster.orchestration.metadata import BATCHES_COMPUTED, BATCHES_REUSED
from tests.orchestration.project import Project
from tests.ui.conftest import Server

_PARTITIONS = """
query ($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode { partitionKeys } } }
"""
_TERMINATE = (
    "mutation ($id: String!) { terminateRun(runId: $id, terminatePolicy: SAFE_TERMINATE) { __typename } }"
)
_START_SENSOR = """
mutation ($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }
"""


def asset_paths(project: Project) -> list[list[str]]:
    return [[project.pipeline.name, name] for name in [*project.pipeline.dag.steps, "distiset"]]


def metadata_of(project: Project, run_id: str) -> dict[str, dict[str, Any]]:
    run = project.instance.get_run_by_id(run_id)
    assert run is not None
    return project.materialized(run)


def test_registered_partition_is_materialized_from_the_ui(server: Server) -> None:
    project = server.project("line")
    path = ["line", "load"]

    def keys() -> list[str]:
        return list(server.ask(_PARTITIONS, path=path)["assetNodeOrError"]["partitionKeys"])

    assert server.wait_until(keys) == [project.pipeline.signature], "the sensor has registered it"

    run_id = server.launch("__ASSET_JOB", project.pipeline.signature, asset_paths(project))

    assert server.wait_for_end(run_id) == "SUCCESS"
    assert set(metadata_of(project, run_id)) == {"load", "scale", "leaf", "distiset"}


def test_run_from_the_ui_resumes_what_the_command_line_began(server: Server) -> None:
    server.forget_what_was_given()
    server.set_pace(0.15)
    project = server.project("long_line")
    project.run_and_stop(signal.SIGKILL, "leaf")
    before = project.committed_rows()
    assert 0 < len(before["leaf"]) < 90
    server.set_pace(0)

    run_id = server.launch("long_line_job", project.pipeline.signature, asset_paths(project))

    assert server.wait_for_end(run_id) == "SUCCESS"
    made = metadata_of(project, run_id)
    assert made["leaf"][BATCHES_REUSED] == len(before["leaf"]) // 3 > 0
    assert made["leaf"][BATCHES_COMPUTED] == 30 - len(before["leaf"]) // 3
    for step, rows in before.items():
        assert not [row["id"] for row in rows if project.given(step)[row["id"]] > 1], step
    run = project.instance.get_run_by_id(run_id)
    assert run is not None
    assert project.messages(run)[0].startswith("Load pipeline from cache")


def test_terminated_run_is_resumed_by_the_sensor(server: Server) -> None:
    server.forget_what_was_given()
    server.set_pace(0.3)
    project = server.project("third-line")
    signature = project.pipeline.signature
    project.instance.add_dynamic_partitions("third_line_signatures", [signature])
    run_id = server.launch("third_line_job", signature, asset_paths(project))
    server.wait_until(lambda: project.count_parts("leaf"))

    assert server.ask(_TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    assert server.wait_for_end(run_id) == "CANCELED"
    before = project.committed_rows()
    assert 0 < len(before["leaf"]) < 99
    server.set_pace(0)
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "definitions",
        "sensorName": "third_line_resume_sensor",
    }
    assert server.ask(_START_SENSOR, selector=selector)["startSensor"]["__typename"] == "Sensor"
    filters = dg.RunsFilter(
        tags={"dagster/sensor_name": "third_line_resume_sensor"}, statuses=[dg.DagsterRunStatus.SUCCESS]
    )
    (resumed,) = server.wait_until(lambda: project.instance.get_runs(filters))
    assert project.materialized(resumed)["leaf"][BATCHES_REUSED] == len(before["leaf"]) // 3
    for step, rows in before.items():
        assert sum(project.given(step).values()) == (99 if step != "load" else 0), "each row once"
        assert rows == project.committed_rows()[step][: len(rows)]
