"""`plan`: what a run would call and pay, on the terminal and as JSON."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distilabel_dagster.pipeline import Pipeline
from tests.integration.cli.conftest import Command, start
from tests.llm_server import LLMServer

Asking = Callable[..., Pipeline]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_table_has_a_row_per_model_step_and_the_total(
    command: Command, asking: Asking, llm_server: LLMServer
) -> None:
    asking()
    code, out, err = command("plan", "--config", "asking.yaml")
    assert code == 0
    assert llm_server.count() == 0
    title, ask, answer, total, *remarks = [line for line in out.splitlines() if line]
    assert cells(title) == [
        "step",
        "model",
        "calls to make",
        "in the ledger",
        "tokens in",
        "tokens out",
        "cost",
    ]
    assert cells(ask)[:4] == ["ask", "tiny", "10", "0"]
    assert cells(answer)[:4] == ["answer", "tiny", "about 10", "0"]
    assert cells(total)[:3] == ["in all", "about 20", "0"]
    assert cells(total)[-1] == "unknown"
    told = "\n".join(remarks)
    assert "were computed and kept. No call was made for this plan" in told
    assert "estimated" in told
    assert "Step `load`: finished with 10 rows" in err
    assert "Stopped" not in err, "that a plan ends before the first call is no news"


def test_sample_gives_tokens_and_cost_and_the_run_pays_only_the_rest(
    command: Command, asking: Asking, llm_server: LLMServer
) -> None:
    asking()
    code, out, _ = command("plan", "--config", "asking.yaml", "--sample", "2", "--json")
    assert code == 0
    assert llm_server.count() == 4
    plan = json.loads(out)
    ask, answer = plan["steps"]
    assert (ask["calls"], ask["calls_in_ledger"], ask["is_estimated"]) == (8, 2, False)
    assert answer["is_estimated"]
    assert plan["cost_usd"] == pytest.approx(ask["cost_usd"] + answer["cost_usd"])
    used = plan["input_tokens"] + plan["output_tokens"]
    assert plan["cost_usd"] == pytest.approx(used * 1000 / 1_000_000, rel=0.05)
    assert plan["pipeline"] == "asking"
    assert command("pipeline", "run", "--config", "asking.yaml")[0] == 0
    assert llm_server.count() == 20

    _, out, _ = command("plan", "--config", "asking.yaml")
    assert "A run makes no call: all of them are in the ledger." in out
    assert cells(out.splitlines()[1])[2:] == ["0", "10", "0", "0", "$0.00"]


def test_parameters_cache_and_load_groups_count_as_for_a_run(
    command: Command, asking: Asking, llm_server: LLMServer, tmp_path: Path
) -> None:
    asking()
    arguments = ["--config", "asking.yaml", "--cache-dir", str(tmp_path / "other"), "--json"]
    out = command(
        "plan", *arguments, "--load-groups", "sequential_step_execution", "--param", "ask.num_generations=3"
    )[1]
    assert [step["calls"] for step in json.loads(out)["steps"]] == [30, 30]
    assert (tmp_path / "other" / "ledger.sqlite").exists()
    code, _, err = command("plan", *arguments, "--load-groups", "[")
    assert code == 2
    assert "lists of steps in JSON" in err
    code, _, err = command("plan", *arguments, "--param", "ask.nothing=3")
    assert code == 1
    assert "nothing" in err


def test_pipeline_without_models_has_nothing_to_plan(command: Command, workspace: Path) -> None:
    code, out, _ = command("plan", "--config", "pipeline.yaml", "--trusted-module", "steps_of_mine")
    assert (code, out) == (0, "No step calls a model.\n")
    out = command("plan", "--config", "pipeline.yaml", "--trusted-module", "steps_of_mine", "--json")[1]
    assert json.loads(out)["calls"] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_plan_can_be_stopped(workspace: Path, tmp_path: Path, number: int, code: int) -> None:
    seen = tmp_path / "seen.txt"
    process = start(
        *("plan", "--config", "pipeline.yaml", "--trusted-module", "steps_of_mine"),
        env={**os.environ, "BATCH_S": "0.2", "SEEN": str(seen)},
    )
    while not seen.exists():
        assert process.poll() is None
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out.count("calls to make") == 0
    assert "Stop requested" in err


def test_trusted_module_may_hold_the_class_of_a_schema(command: Command, workspace: Path) -> None:
    (workspace / "schemas_of_mine.py").write_text(
        "from pydantic import BaseModel\n\n\nclass Person(BaseModel):\n    name: str\n", encoding="utf-8"
    )
    (workspace / "declare_people.py").write_text(
        "from distilabel_dagster.models import OpenAILLM\n"
        "from distilabel_dagster.pipeline import Pipeline\n"
        "from distilabel_dagster.steps import LoadDataFromDicts\n"
        "from distilabel_dagster.steps.tasks import StructuredGeneration\n"
        "from schemas_of_mine import Person\n\n"
        "with Pipeline('people') as pipeline:\n"
        "    load = LoadDataFromDicts(name='load', data=[{'instruction': 'who?'}])\n"
        "    llm = OpenAILLM(model='m', base_url='http://127.0.0.1:9/v1')\n"
        "    load >> StructuredGeneration(name='person', schema=Person, llm=llm)\n"
        "pipeline.save('people.yaml')\n",
        encoding="utf-8",
    )
    made = subprocess.run(
        [sys.executable, "declare_people.py"],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(workspace)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    code, out, err = command("plan", "--config", "people.yaml", "--trusted-module", "schemas_of_mine")
    assert code == 0, err
    assert "person" in out
    code, _, err = command("plan", "--config", "people.yaml", "--trusted-module", "not_there")
    assert code == 1
    assert "`--trusted-module not_there`: it can't be imported" in err
