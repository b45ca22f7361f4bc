"""Pipelines in files, run by the command line in a directory of their own."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster.cli.main import main
from distilabel_dagster.models import OpenAILLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts
from distilabel_dagster.steps.tasks import TextGeneration
from tests.llm_server import LLMServer

STEPS_MODULE = "steps_of_mine"
_STEPS = '''
import os
import time
from pathlib import Path

from pydantic import Field

from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.steps import Step, StepInput, StepOutput


class Shout(Step):
    """Makes text loud; slow, and failing, where the environment says so."""

    mark: RuntimeParameter[str] = Field(default="!", description="What is added [at the end].")

    @property
    def inputs(self) -> list[str]:
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        return ["loud"]

    def process(self, inputs: StepInput) -> StepOutput:
        print("from the step itself")
        time.sleep(float(os.environ.get("BATCH_S", "0")))
        texts = [row["text"] for row in inputs]
        if os.environ.get("BROKEN") in texts:
            raise ValueError("no voice")
        if "SEEN" in os.environ:
            with Path(os.environ["SEEN"]).open("a") as file:
                file.writelines(f"{text}\\n" for text in texts)
        yield [{**row, "loud": row["text"].upper() + self.mark} for row in inputs]
'''

Command = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: `pipeline.yaml`, and the module of its steps, which no one has imported."""
    directory = tmp_path / "workspace"
    directory.mkdir()
    (directory / f"{STEPS_MODULE}.py").write_text(_STEPS)
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(directory)
    build_pipeline().save("pipeline.yaml")
    yield directory
    sys.modules.pop(STEPS_MODULE, None)


def build_pipeline() -> Pipeline:
    """`load >> shout`, twenty batches."""
    import importlib

    steps = importlib.import_module(STEPS_MODULE)
    with Pipeline("shouting", description="Makes [all] texts loud.") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"text": f"t{i}"} for i in range(40)], batch_size=2)
        load >> steps.Shout(name="shout", input_batch_size=2)
    return pipeline


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process; give exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def start(*arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start the installed command in a session of its own."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("distilabel-dagster")), *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_runs(instance_dir: Path) -> list[dg.DagsterRun]:
    """The runs that an instance keeps, the oldest first."""
    with dg.DagsterInstance.local_temp(str(instance_dir)) as instance:
        return instance.get_runs()[::-1]


@pytest.fixture(scope="session")
def llm_server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMServer]:
    with LLMServer(tmp_path_factory.mktemp("llm_server")) as served:
        yield served


@pytest.fixture
def llm_server(llm_server_process: LLMServer, monkeypatch: pytest.MonkeyPatch) -> LLMServer:
    """A server that counts calls; its answers are a few tokens each."""
    llm_server_process.reset()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    return llm_server_process


PRICE_USD_PER_MILLION = 1000.0


@pytest.fixture
def asking(
    llm_server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "Callable[..., Pipeline]":
    """Make `load >> ask >> answer`, and write it to `asking.yaml` in the current directory."""
    directory = tmp_path / "asking"
    directory.mkdir()
    monkeypatch.chdir(directory)

    def make(rows: int = 10, **llm: Any) -> Pipeline:
        settings: dict[str, Any] = {
            "input_price_usd_per_million": PRICE_USD_PER_MILLION,
            "output_price_usd_per_million": PRICE_USD_PER_MILLION,
            "max_concurrency": 4,
            **llm,
        }
        model = OpenAILLM(model="tiny", base_url=llm_server.url, **settings)
        with Pipeline("asking") as pipeline:
            load = LoadDataFromDicts(name="load", data=[{"text": f"text {i}"} for i in range(rows)])
            ask = TextGeneration(
                name="ask",
                llm=model,
                template="Ask about {{ text }}",
                columns="text",
                output_mappings={"generation": "question"},
                input_batch_size=5,
            )
            answer = TextGeneration(
                name="answer",
                llm=model,
                template="Answer {{ question }}",
                columns="question",
                input_batch_size=5,
            )
            load >> ask >> answer
        pipeline.save("asking.yaml", overwrite=True)
        return pipeline

    return make
