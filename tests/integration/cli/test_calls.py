"""What the command line tells of calls to models: while a run is on, at its end, and afterwards."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from distilabel_dagster.pipeline import Pipeline
from tests.integration.cli.conftest import PRICE_USD_PER_MILLION, Command
from tests.integration.cli.test_cache import build_pipeline, snapshot
from tests.llm_server import LLMServer

Asking = Callable[..., Pipeline]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def show(command: Command, pipeline: Pipeline, *arguments: str) -> list[list[str]]:
    """Lines of `cache show`, by cells."""
    code, out, err = command("cache", "show", pipeline.signature, *arguments)
    assert (code, err) == (0, "")
    return [cells(line) for line in out.splitlines()]


def test_run_tells_of_its_calls_and_of_those_of_all_runs(
    command: Command, asking: Asking, llm_server: LLMServer
) -> None:
    asking(6)
    code, out, err = command("pipeline", "run", "--config", "asking.yaml")
    assert code == 0
    assert re.search(
        r"Step `ask`: finished .*; in all runs 6 calls, 0 reused, \d+ tokens in, \d+ out, \$0\.", err
    )
    (told,) = re.findall(r"^Calls:     (12 calls, 0 reused, .*)$", out, re.MULTILINE)
    assert "tokens in" in told
    assert "in all runs" not in out
    code, out, _ = command("pipeline", "run", "--config", "asking.yaml")
    assert llm_server.count() == 12
    assert re.search(r"^Calls:     0 calls, 0 reused\n           12 calls, .* in all runs", out, re.MULTILINE)


def test_pipeline_without_models_has_no_word_about_calls(command: Command, workspace: Path) -> None:
    code, out, _ = command(
        "pipeline", "run", "--config", "pipeline.yaml", "--trusted-module", "steps_of_mine"
    )
    assert code == 0
    assert "Calls" not in out


def test_cost_limit_ends_a_run_with_a_code_of_its_own_and_a_higher_one_goes_on(
    command: Command, asking: Asking, llm_server: LLMServer
) -> None:
    pipeline = asking(20)
    code, out, err = command("pipeline", "run", "--config", "asking.yaml", "--max-cost-usd", "0.05")
    assert (code, out) == (3, "")
    assert "Traceback" not in err
    error = err[err.index("Error: ") :]
    assert re.match(
        r"Error: The calls of this pipeline have cost \$0\.\d+.*; `max_cost_usd` is \$0\.05, so no", error
    )
    paid = llm_server.count()
    assert 0 < paid < 40
    content = json.loads(command("cache", "show", pipeline.signature, "--json")[1])
    assert content["usage"]["calls"] == paid
    assert 0.025 < content["usage"]["cost_usd"] < 0.1

    code, _, _ = command("pipeline", "run", "--config", "asking.yaml", "--max-cost-usd", "0.02")
    assert (code, llm_server.count()) == (3, paid)
    code, out, _ = command("pipeline", "run", "--config", "asking.yaml", "--max-cost-usd", "50")
    assert code == 0
    assert llm_server.count() == 40
    assert re.search(r"^           40 calls, .* in all runs", out, re.MULTILINE)


def test_cost_limit_has_to_be_an_amount(command: Command, asking: Asking) -> None:
    asking()
    code, _, err = command("pipeline", "run", "--config", "asking.yaml", "--max-cost-usd", "0")
    assert code == 2
    assert "--max-cost-usd" in err


def test_show_has_the_totals_of_each_step_over_all_runs(
    command: Command, asking: Asking, llm_server: LLMServer
) -> None:
    llm_server.configure(failures={"server_error": 0.3}, seed=1)
    pipeline = asking(10, max_retries=8)
    assert command("pipeline", "run", "--config", "asking.yaml")[0] == 0
    failed = sum(call.outcome == "server_error" for call in llm_server.calls())
    assert failed > 0

    content = json.loads(command("cache", "show", pipeline.signature, "--json")[1])
    load, ask, answer = content["steps"]
    assert "usage" not in load
    assert (ask["usage"]["calls"], answer["usage"]["calls"]) == (10, 10)
    assert content["usage"]["calls"] == 20
    assert content["usage"]["failures"] == {"server": failed}
    tokens = ask["usage"]["input_tokens"] + ask["usage"]["output_tokens"]
    assert ask["usage"]["cost_usd"] == pytest.approx(tokens * PRICE_USD_PER_MILLION / 1_000_000)

    lines = show(command, pipeline)
    start = lines.index(["step", "calls", "reused", "tokens in", "tokens out", "cost", "failed attempts"])
    rows = lines[start + 1 : start + 4]
    assert [row[:3] for row in rows] == [["ask", "10", "0"], ["answer", "10", "0"], ["in all", "20", "0"]]
    assert rows[2][-1] == f"{failed} server"
    assert rows[2][3] == f"{content['usage']['input_tokens']:,}"


def test_show_has_nothing_of_calls_where_there_were_none(command: Command, tmp_path: Path) -> None:
    pipeline = build_pipeline(str(tmp_path / "cache"))
    pipeline.run()
    arguments = ("--cache-dir", str(tmp_path / "cache"))
    assert all("calls" not in line for line in show(command, pipeline, *arguments))
    content = json.loads(command("cache", "show", pipeline.signature, *arguments, "--json")[1])
    assert "usage" not in content
    assert "usage_problem" not in content


def test_show_only_reads_the_ledger(command: Command, asking: Asking, tmp_path: Path) -> None:
    pipeline = asking(3)
    pipeline.run()
    directory = Path(pipeline.cache_dir)
    before = snapshot(directory)
    assert ["ask", "3"] in [line[:2] for line in show(command, pipeline)]
    assert snapshot(directory) == before

    (directory / "ledger.sqlite").unlink()
    before = snapshot(directory)
    assert ["ask", "3"] not in [
        line[:2] for line in show(command, pipeline, "--ledger-url", "sqlite:///none.sqlite")
    ]
    show(command, pipeline)
    assert snapshot(directory) == before, "no ledger is made"
    assert not Path("none.sqlite").exists()


def test_show_reads_a_ledger_that_a_run_has_open(command: Command, asking: Asking) -> None:
    """Another process may be writing, or was killed while it was: the counters are in the WAL."""
    pipeline = asking(3)
    pipeline.run()
    file = Path(pipeline.cache_dir) / "ledger.sqlite"
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        connection.execute(text("UPDATE usage SET calls = calls + 1000"))
        connection.commit()
        assert file.with_name("ledger.sqlite-wal").stat().st_size > 0
        assert ["ask", "1,003"] in [line[:2] for line in show(command, pipeline)]
        connection.execute(text("BEGIN IMMEDIATE"))
        assert ["ask", "1,003"] in [line[:2] for line in show(command, pipeline)]
    engine.dispose()


def test_show_leaves_the_ledger_of_an_older_release_alone(command: Command, asking: Asking) -> None:
    pipeline = asking(3)
    pipeline.run()
    file = Path(pipeline.cache_dir) / "ledger.sqlite"
    with create_engine(f"sqlite:///{file}").begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = 1"))
        connection.execute(text("DROP TABLE usage"))
    before = file.read_bytes()
    assert all("calls" not in line for line in show(command, pipeline))
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["newer", "damaged"])
def test_show_tells_the_rows_also_where_the_ledger_cannot_be_read(
    command: Command, asking: Asking, kind: str
) -> None:
    pipeline = asking(3)
    pipeline.run()
    file = Path(pipeline.cache_dir) / "ledger.sqlite"
    if kind == "newer":
        with create_engine(f"sqlite:///{file}").begin() as connection:
            connection.execute(text("UPDATE schema_version SET version = 99"))
        expected = "made by a newer release"
    else:
        file.write_bytes(b"no database" * 1000)
        expected = "file is not a database"
    lines = show(command, pipeline)
    assert ["ask", pipeline.step_signatures["ask"][:12], "3"] in [line[:3] for line in lines]
    assert any(expected in " ".join(line) for line in lines)
    content = json.loads(command("cache", "show", pipeline.signature, "--json")[1])
    assert expected in content["usage_problem"]


def test_ledger_can_be_named_by_option_and_by_variable(
    command: Command, asking: Asking, llm_server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = asking(3)
    url = f"sqlite:///{tmp_path}/elsewhere.sqlite"
    cache = ("--cache-dir", f"memory://calls-{tmp_path.name}")
    assert command("pipeline", "run", "--config", "asking.yaml", "--ledger-url", url, *cache)[0] == 0
    assert all("calls" not in line for line in show(command, pipeline, *cache))
    assert ["ask", "3"] in [line[:2] for line in show(command, pipeline, *cache, "--ledger-url", url)]
    monkeypatch.setenv("DISTILABEL_LEDGER_URL", url)
    assert ["ask", "3"] in [line[:2] for line in show(command, pipeline, *cache)]
    out = command("plan", "--config", "asking.yaml", "--json", *cache)[1]
    assert json.loads(out)["calls_in_ledger"] == 6
    shutil.rmtree(pipeline.cache_dir, ignore_errors=True)
    assert command("pipeline", "run", "--config", "asking.yaml")[0] == 0
    assert llm_server.count() == 6, "what is in that ledger isn't called again"
