"""`make demo`, from a copy of the project's files, in an empty home and without DAGSTER_HOME."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    for name in ("definitions.py", "dagster.yaml", "workspace.yaml"):
        shutil.copy(_ROOT / name, directory)
    shutil.copytree(_ROOT / "examples", directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    return {
        **{key: value for key, value in os.environ.items() if key != "DISTILABEL_CACHE_DIR"},
        "HOME": str(home),
    }


def start(project: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(project / "examples" / "demo.py")],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_demo_goes_on_after_a_stop_shows_what_it_made_and_computes_nothing_again(
    project: Path, env: dict[str, str]
) -> None:
    process = start(project, env)
    assert process.stdout is not None
    for line in process.stdout:
        if "Start pipeline" in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "goes on from here" in out
    assert "Traceback" not in out

    first = start(project, env)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, out + err
    assert "Distiset({" in out
    assert out.count("\n  Q: ") == out.count("\n  A: ") == 3
    (cache,) = Path(env["HOME"]).glob(".cache/distilabel/pipelines/*/pipeline.yaml")
    assert f"{cache.parent}\n├── batch_manager.json\n├── batch_manager_steps\n" in out
    assert "└── pipeline.yaml\n" in out
    assert "Computed nothing" not in out
    assert "dagster - DEBUG" not in out
    before = sorted((path.name, path.stat().st_mtime_ns) for path in cache.parent.rglob("*.parquet"))

    again = start(project, env)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, out + err
    assert "Load pipeline from cache" in out
    assert "Computed nothing: all " in out
    assert sorted((path.name, path.stat().st_mtime_ns) for path in cache.parent.rglob("*.parquet")) == before
    assert not list(project.glob(".tmp_dagster_home*"))


def test_demo_that_fails_says_all_that_the_job_said(
    project: Path, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    process = start(project, {**env, "DISTILABEL_CACHE_DIR": str(tmp_path / "file" / "cache")})
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "The job failed" in out
    assert "RUN_FAILURE" in err
    assert "can't be" in err
