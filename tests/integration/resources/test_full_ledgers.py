"""Calls that are paid, and no space left for their answers, or for the rows that are made of them."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.errors import CacheFullError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep
from distilabel_dagster.steps.tasks import TextGeneration
from tests.integration.generation.pipelines import CAP, make_llm
from tests.integration.resources.conftest import Disk
from tests.llm_server import LLMServer

ROWS = 400
MakeDisk = Callable[..., Disk]


@pytest.fixture(scope="module")
def server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMServer]:
    with LLMServer(tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture
def server(server_process: LLMServer, monkeypatch: pytest.MonkeyPatch) -> LLMServer:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server_process.reset()
    return server_process


class Prompts(GeneratorStep):
    """Texts of 2 KB that don't compress to less than a half."""

    @property
    def outputs(self) -> list[str]:
        return ["id", "text"]

    def process(self, offset: int = 0) -> Any:
        for start in range(offset, ROWS, 50):
            rows = [
                {"id": n, "text": random.Random(n).randbytes(1000).hex()} for n in range(start, start + 50)
            ]
            yield rows, start + 50 >= ROWS


def build(cache_dir: Path, ledger: Path, server: LLMServer) -> Pipeline:
    with Pipeline("asking", cache_dir=str(cache_dir), ledger_url=str(ledger)) as pipeline:
        ask = TextGeneration(
            name="ask", llm=make_llm(server.url), template="About {{ text }}", columns="text"
        )
        Prompts(name="prompts") >> ask
    return pipeline


def rows_of(pipeline: Pipeline) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pipeline.run()["ask"]["train"].to_list()
    return rows


def count_calls(server: LLMServer) -> Counter[str]:
    server.wait_until_idle()
    return Counter(call.body for call in server.calls())


def test_a_full_ledger_ends_a_run_before_more_is_paid(
    server: LLMServer, make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk = make_disk("size=500k")
    server.reset(latency_s=0.02)
    ledger = disk.path / "ledger.sqlite"
    with pytest.raises(CacheFullError, match=r"ledger\.sqlite can't be \w+: .*Free some space") as caught:
        build(tmp_path / "cache", ledger, server).run()
    assert str(ledger) in str(caught.value)
    paid = count_calls(server).total()
    assert 0 < paid < ROWS, "no call is made whose answer can't be kept"
    disk.resize("size=64m")
    rows = rows_of(build(tmp_path / "cache", ledger, server))
    calls = count_calls(server)
    assert len(calls) == ROWS
    assert calls.total() <= ROWS + CAP, "only what was on the wire is paid again"
    server.reset()
    assert rows == rows_of(build(tmp_path / "undisturbed", tmp_path / "other.sqlite", server))


def test_answers_are_kept_when_there_is_no_space_for_rows(
    server: LLMServer, make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk = make_disk("size=700k")
    server.reset(latency_s=0.05)
    ledger = tmp_path / "ledger.sqlite"
    with pytest.raises(CacheFullError, match=r"parquet can't be written: No space left on device"):
        build(disk.path / "cache", ledger, server).run()
    assert 0 < count_calls(server).total() <= ROWS
    disk.resize("size=64m")
    rows = rows_of(build(disk.path / "cache", ledger, server))
    assert count_calls(server).total() == ROWS, "nothing is paid twice"
    server.reset()
    assert rows == rows_of(build(tmp_path / "undisturbed", tmp_path / "other.sqlite", server))
