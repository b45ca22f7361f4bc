"""Jobs run in this process, on an instance that's gone afterwards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster import Pipeline, build_definitions
from distilabel_dagster.orchestration.metadata import PARTITION_TAG
from tests.llm_server import LLMServer
from tests.orchestration import pipelines


@dataclass
class Runner:
    """Runs jobs and reads what Dagster knows of them."""

    instance: dg.DagsterInstance
    runs: list[str] = field(default_factory=list)

    def run(
        self,
        pipeline: Pipeline,
        *,
        partition: str | None = None,
        defs: dg.Definitions | None = None,
        select: list[dg.AssetKey] | None = None,
        job: str | None = None,
        raise_on_error: bool = True,
        **options: Any,
    ) -> dg.ExecuteInProcessResult:
        """Run the pipeline's job, of new definitions, for the partition that the job carries or another."""
        defs = defs or build_definitions(pipeline)
        name = job or f"{pipeline.name.replace('-', '_')}_job"
        result = defs.resolve_job_def(name).execute_in_process(
            instance=self.instance,
            asset_selection=select,
            tags={PARTITION_TAG: partition} if partition else None,
            raise_on_error=raise_on_error,
            **options,
        )
        self.runs.append(result.run_id)
        return result

    def error(self, pipeline: Pipeline, **options: Any) -> str:
        """Run what must fail; give the message of what was raised in the op."""
        result = self.run(pipeline, raise_on_error=False, **options)
        assert not result.success
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        error = failure.step_failure_data.error
        assert error is not None
        return str((error.cause or error).message)

    def materialized(self) -> dict[str, dg.AssetMaterialization]:
        """Asset -> materialization, of the last run."""
        logs = self.instance.all_logs(self.runs[-1], of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        made = [entry.asset_materialization for entry in logs]
        return {each.asset_key.to_user_string(): each for each in made if each is not None}

    def metadata(self, asset: str) -> dict[str, Any]:
        return {name: value.value for name, value in self.materialized()[asset].metadata.items()}

    def observed(self) -> dict[str, dict[str, Any]]:
        """Asset -> metadata of its observation, of the last run."""
        logs = self.instance.all_logs(self.runs[-1], of_type=dg.DagsterEventType.ASSET_OBSERVATION)
        seen = [entry.asset_observation for entry in logs]
        assert len({each.asset_key for each in seen}) == len(seen), "each asset once"
        return {
            each.asset_key.to_user_string(): {
                "partition": each.partition,
                **{name: value.value for name, value in each.metadata.items()},
            }
            for each in seen
        }

    def status(self) -> dg.DagsterRunStatus:
        """How the last run ended."""
        run = self.instance.get_run_by_id(self.runs[-1])
        assert run is not None
        return run.status

    def count(self, kind: dg.DagsterEventType) -> int:
        """How many events of a kind the last run has."""
        return len(self.instance.all_logs(self.runs[-1], of_type=kind))

    def messages(self) -> list[str]:
        """What the ops of the last run have logged."""
        return [
            entry.user_message
            for entry in self.instance.all_logs(self.runs[-1])
            if not entry.is_dagster_event
        ]

    def partitions(self, name: str) -> list[str]:
        return list(self.instance.get_dynamic_partitions(name))


@pytest.fixture
def runner() -> Iterator[Runner]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Runner(instance)


@pytest.fixture(autouse=True)
def nothing_given_yet() -> Iterator[None]:
    pipelines.given.clear()
    pipelines.fail_on.clear()
    yield
    pipelines.fail_on.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def llm_server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMServer]:
    with LLMServer(tmp_path_factory.mktemp("llm_server")) as served:
        yield served


@pytest.fixture
def llm_server(llm_server_process: LLMServer, monkeypatch: pytest.MonkeyPatch) -> LLMServer:
    """The server that the pipelines `asking` ask; counts calls."""
    llm_server_process.reset()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    monkeypatch.setenv("OPENAI_BASE_URL", llm_server_process.url)
    return llm_server_process


BuildAssets = Callable[..., dg.Definitions]
