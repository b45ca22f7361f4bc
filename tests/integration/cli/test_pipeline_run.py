import json
from pathlib import Path

import dagster as dg
import pytest

from distilabel_dagster.distiset import create_distiset
from tests.integration.cli.conftest import STEPS_MODULE, Command, build_pipeline, read_runs

RUN = ("pipeline", "run", "--config", "pipeline.yaml")


def read_loud(cache_dir: Path, signature: str) -> list[str]:
    return create_distiset(cache_dir / signature)["shout"]["train"]["loud"]


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "distilabel_cache"


def test_run_leaves_rows_and_materializations_and_run_again_computes_nothing(
    workspace: Path, command: Command, cache_dir: Path
) -> None:
    signature = build_pipeline().signature
    code, out, err = command(*RUN)
    assert code == 0, err
    assert "shout: DatasetDict" in out
    assert "num_rows: 40" in out
    assert f"{cache_dir}/{signature}/data" in out
    assert read_loud(cache_dir, signature) == [f"T{i}!" for i in range(40)]

    lines = err.splitlines()
    assert "Start pipeline: 2 steps, nothing in the cache yet" in lines[0]
    assert "Finished: 40 batches computed, 0 reused" in lines[-1]
    assert "RUN_START" not in err + out
    assert "ASSET_MATERIALIZATION" not in err + out

    with dg.DagsterInstance.local_temp(str(cache_dir / ".dagster")) as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert run.run_id in out
        assert run.tags["dagster/partition"] == signature
        for name in ("load", "shout", "distiset"):
            key = dg.AssetKey(["shouting", name])
            assert instance.get_materialized_partitions(key) == {signature}
    assert {path.name for path in workspace.iterdir()} - {"__pycache__"} == {
        f"{STEPS_MODULE}.py",
        "pipeline.yaml",
    }


def test_parameters_count_and_give_a_signature_of_their_own(
    workspace: Path, command: Command, cache_dir: Path
) -> None:
    before = build_pipeline().signature
    parameters = ("--param", "shout.mark=?", "--param", "shout.input_batch_size=10")
    code, out, err = command(*RUN, *parameters)
    assert code == 0, err
    signature = out.partition("Signature: ")[2].split()[0]
    assert signature != before
    assert read_loud(cache_dir, signature) == [f"T{i}?" for i in range(40)]
    assert "`shout`: finished with 40 rows (4 batches" in err


def test_steps_run_one_after_another_where_asked(workspace: Path, command: Command, cache_dir: Path) -> None:
    code, _, err = command(*RUN, "--load-groups", "sequential_step_execution")
    assert code == 0, err
    assert err.index("`load`: finished") < err.index("`shout`: loaded")
    assert read_loud(cache_dir, build_pipeline().signature) == [f"T{i}!" for i in range(40)]
    assert command(*RUN, "--load-groups", "[[")[0] == 2
    code, _, err = command(*RUN, "--load-groups", '[["shuot"]]')
    assert code == 1
    assert "shuot" in err


def test_failed_rows_are_told_and_tried_again(
    workspace: Path, command: Command, monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    monkeypatch.setenv("BROKEN", "t4")
    code, out, err = command(*RUN)
    assert code == 0
    assert "2 rows of batch 2 failed" in err
    assert "2 of 40 rows of step `shout` failed" in out
    monkeypatch.delenv("BROKEN")
    code, out, err = command(*RUN)
    assert code == 0
    assert "rows of step" not in out
    assert "1 batch computed" in err
    assert read_loud(cache_dir, build_pipeline().signature) == [f"T{i}!" for i in range(40)]


def test_error_in_a_step_is_told_without_traceback_and_fails_the_run(
    workspace: Path, command: Command, monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    monkeypatch.setenv("BROKEN", "t4")
    code, out, err = command(*RUN, "--on-error", "raise")
    assert code == 1
    assert "Distiset" not in out
    told = err[err.index("Error: ") :]
    assert "`shout`" in told
    assert "no voice" in told
    assert "Traceback" not in err
    assert "dagster" not in told.lower()
    (run,) = read_runs(cache_dir / ".dagster")
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert "Traceback" in command(*RUN, "--on-error", "raise", "--debug")[2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text[: len(text) // 3], "pipeline.yaml"),
        (lambda text: text.replace(STEPS_MODULE, "antigravity"), "neither of this package"),
        (lambda text: "distilabel: {version: 1.5.3}", "expected `pipeline`"),
    ],
)
def test_file_that_cannot_be_trusted_or_read_is_an_error_before_any_work(
    workspace: Path, command: Command, cache_dir: Path, change: object, told: str
) -> None:
    assert callable(change)
    file = workspace / "pipeline.yaml"
    file.write_text(change(file.read_text()))
    code, _, err = command(*RUN)
    assert code == 1
    assert told in err
    assert "Traceback" not in err
    assert not cache_dir.exists()


def test_wrong_parameter_is_an_error_before_any_work(
    workspace: Path, command: Command, cache_dir: Path
) -> None:
    code, _, err = command(*RUN, "--param", "shout.makr=?")
    assert code == 1
    assert "Did you mean `mark`?" in err
    assert not cache_dir.exists()


def test_cache_that_is_no_directory_is_an_error(workspace: Path, command: Command) -> None:
    (workspace / "file").write_text("")
    code, _, err = command(*RUN, "--cache-dir", str(workspace / "file" / "cache"))
    assert code == 1
    assert "can't be written" in err
    assert "Traceback" not in err


def test_dagster_home_is_where_the_run_is_kept(
    workspace: Path, command: Command, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "dagster_home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    code, out, _ = command(*RUN)
    assert code == 0
    assert f"in {home} (see it with: dagster dev)" in out
    assert not (cache_dir / ".dagster").exists()
    monkeypatch.delenv("DAGSTER_HOME")
    (run,) = read_runs(home)
    assert run.status == dg.DagsterRunStatus.SUCCESS


def test_dagster_yaml_of_the_directory_says_where_the_run_is_kept(
    workspace: Path, command: Command, cache_dir: Path
) -> None:
    settings = {"storage": {"sqlite": {"base_dir": "history_of_mine"}}, "telemetry": {"enabled": False}}
    (workspace / "dagster.yaml").write_text(json.dumps(settings))
    before = {path.name for path in workspace.iterdir()}
    code, out, err = command(*RUN)
    assert code == 0, err
    assert str(workspace / ".dagster") in out
    assert list((workspace / "history_of_mine").rglob("runs.db"))
    made = {path.name for path in workspace.iterdir()} - before
    assert made == {"history_of_mine", ".dagster"}
    assert not (cache_dir / ".dagster").exists()


def test_dagster_yaml_that_is_no_yaml_is_named(workspace: Path, command: Command) -> None:
    (workspace / "dagster.yaml").write_text("storage: [")
    code, _, err = command(*RUN)
    assert code == 1
    assert str(workspace / "dagster.yaml") in err


def test_dagster_home_that_is_not_there_is_an_error(
    workspace: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "none"))
    code, _, err = command(*RUN)
    assert code == 1
    assert "DAGSTER_HOME" in err
    assert not (tmp_path / "none").exists()
