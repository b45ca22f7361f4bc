"""Each command and code block of the documents is run, or is one that this test knows and says why it isn't."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [body for found, body in BLOCK.findall(text) if found == language]


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1", **environment}
    env.pop("DISTILABEL_CACHE_DIR", None)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the README's own project, and a home beside it."""
    directory = tmp_path_factory.mktemp("project")
    for body in blocks("README.md", "python"):
        name, _, code = body.partition("\n")
        (directory / name.removeprefix("# ")).write_text(code, encoding="utf-8")
    shutil.copy(ROOT / "dagster.yaml", directory)
    (directory / "home").mkdir()
    return directory


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files of this repository, with this environment in place of a new one."""
    directory = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    environment = directory / ".venv"
    (environment / "bin").mkdir(parents=True)
    for tool in BIN.iterdir():
        (environment / "bin" / tool.name).symlink_to(tool)
    shutil.copy2(BIN.parent / "pyvenv.cfg", environment)
    (environment / "lib").symlink_to(BIN.parent / "lib")
    (environment / ".installed").touch()
    (directory / "home").mkdir()
    return directory


def test_the_readme_says_nothing_that_is_not_run() -> None:
    commands = [line for body in blocks("README.md", "bash") for line in body.splitlines() if line]
    assert commands == [
        "make demo",
        "make test",
        ".venv/bin/dagster job execute -m definitions -j python_docs_qa_job",
        ".venv/bin/dagster dev",
        ".venv/bin/python my_pipeline.py",
        ".venv/bin/distilabel-dagster plan --config pipeline.yaml --trusted-module my_pipeline",
        ".venv/bin/distilabel-dagster pipeline run --config pipeline.yaml --trusted-module my_pipeline",
        ".venv/bin/distilabel-dagster cache list",
        "pip install .",
        "dagster job execute -m definitions -j my_questions_job",
    ]
    assert len(blocks("README.md", "python")) == 2


def test_the_examples_fit_what_the_readme_promises() -> None:
    pipeline, definitions = blocks("README.md", "python")
    assert len(pipeline.splitlines()) <= 32
    assert len([line for line in pipeline.splitlines() if line.strip()]) <= 25
    assert len(definitions.splitlines()) <= 25


def test_make_demo_makes_the_dataset_and_the_second_time_nothing(clone: Path) -> None:
    first = run(["make", "demo"], clone, HOME=str(clone / "home"))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "instruction_dataset" in first.stdout
    assert re.search(r"num_rows: [3-9]\d\d", first.stdout)
    assert "batch_manager.json" in first.stdout
    second = run(["make", "demo"], clone, HOME=str(clone / "home"))
    assert second.returncode == 0, second.stdout + second.stderr
    assert "nothing" in second.stdout.lower()
    main_job = run(
        [".venv/bin/dagster", "job", "execute", "-m", "definitions", "-j", "python_docs_qa_job"],
        clone,
        HOME=str(clone / "home"),
    )
    assert main_job.returncode == 0, main_job.stdout + main_job.stderr
    assert "nothing to compute" in main_job.stdout + main_job.stderr


@pytest.mark.parametrize("word", ["demo", "test", "lint", "format", "bench", "dev", "clean"])
def test_make_knows_each_word(clone: Path, word: str) -> None:
    planned = run(["make", "--dry-run", word], clone)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.strip()


def test_ones_own_pipeline_runs_and_its_definitions_find_it_in_the_cache(project: Path) -> None:
    home = str(project / "home")
    alone = run([sys.executable, "my_pipeline.py"], project, HOME=home)
    assert alone.returncode == 0, alone.stderr
    assert "'words': 5" in alone.stdout
    job = run(
        ["dagster", "job", "execute", "-m", "definitions", "-j", "my_questions_job"], project, HOME=home
    )
    assert job.returncode == 0, job.stdout + job.stderr
    assert "nothing to compute" in job.stdout + job.stderr
    (signature,) = [
        path.parent.name for path in (project / "home").glob(".cache/distilabel/pipelines/*/pipeline.yaml")
    ]
    later = run(
        f"dagster asset materialize -m definitions --select longest_question --partition {signature}".split(),
        project,
        HOME=home,
    )
    assert later.returncode == 0, later.stdout + later.stderr


def test_a_saved_pipeline_runs_from_the_command_line(project: Path) -> None:
    home = str(project / "home")
    saved = run(
        [sys.executable, "-c", "from my_pipeline import pipeline; pipeline.save('pipeline.yaml')"], project
    )
    assert saved.returncode == 0, saved.stderr
    refused = run(["distilabel-dagster", "pipeline", "run", "--config", "pipeline.yaml"], project, HOME=home)
    assert refused.returncode == 1
    assert "--trusted-module my_pipeline" in " ".join(refused.stderr.split())
    given = ["--config", "pipeline.yaml", "--trusted-module", "my_pipeline"]
    planned = run(["distilabel-dagster", "plan", *given], project, HOME=home)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert re.search(r"ask\b.*\b2\b", planned.stdout)
    ran = run(["distilabel-dagster", "pipeline", "run", *given], project, HOME=home)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "num_rows: 2" in ran.stdout
    listed = run(["distilabel-dagster", "cache", "list"], project, HOME=home)
    assert listed.returncode == 0, listed.stderr
    assert "my_questions" in listed.stdout


def test_pip_installs_the_package_with_its_command(tmp_path: Path) -> None:
    """The README's `pip install .`, kept away from this environment and from the network."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "distilabel_dagster", source / "distilabel_dagster")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    installed = run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            ".",
            "--no-deps",
            "--no-build-isolation",
            "--target",
            "../target",
        ],
        source,
    )
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "target" / "distilabel_dagster" / "py.typed").exists()
    assert (tmp_path / "target" / "bin" / "distilabel-dagster").exists()
