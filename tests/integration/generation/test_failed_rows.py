"""Rows whose call failed: in their place, told, and made good by the next run."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.generation.conftest import Pay
from tests.integration.generation.pipelines import Picky, Tolerant, build_chain, build_one
from tests.llm_server import LLMServer

ROWS = 20
FAILING = (3, 8, 15)


def make_rows() -> list[dict[str, Any]]:
    return [{"id": n, "text": f"{'broken' if n in FAILING else 'whole'} text {n}"} for n in range(ROWS)]


def count_failed(cache: str) -> dict[str, int]:
    """Step -> failed rows, as the markers of complete steps say."""
    found = {}
    for marker in Path(cache).glob("steps_data/*/complete.json"):
        found[marker.parent.name.rpartition("_")[0]] = json.loads(marker.read_text())["failed_rows"]
    return found


@pytest.mark.parametrize(("kind", "attempts"), [("context_length", 1), ("server_error", 2), ("hang", 2)])
def test_failed_row_stands_in_its_place_and_is_made_good_by_the_next_run(
    server: LLMServer, pay: Pay, cache: str, kind: str, attempts: int
) -> None:
    server.reset(marked={"broken": kind})
    llm = {"max_retries": 1, "timeout_s": 1}

    def run() -> Any:
        return pay(build_chain(cache, server.url, rows=make_rows(), count=True, llm=llm, batch_size=4))

    broken = run()
    assert broken.column("id") == list(range(ROWS))
    assert [row["id"] for row in broken.rows if row["question"] is None] == list(FAILING)
    assert [row["id"] for row in broken.rows if row["answer"] is None] == list(FAILING)
    for row in broken.rows:
        errors = {
            name: told
            for name, told in row["distilabel_metadata"].items()
            if name.startswith("error_") and told is not None
        }
        assert set(errors) == ({"error_ask", "error_answer"} if row["id"] in FAILING else set())
    assert {row["answered"] for row in broken.rows} == {ROWS - len(FAILING)}
    failed = Counter(call.text for call in broken.calls if call.failure)
    assert set(failed.values()) == {attempts}
    assert len(failed) == len(FAILING)
    assert len(broken.calls) == 2 * (ROWS - len(FAILING)) + attempts * len(FAILING)
    assert count_failed(cache)["ask"] == len(FAILING)
    (log,) = Path(cache).glob("*/pipeline.log")
    assert f"{len(FAILING)} rows failed" in log.read_text()

    server.configure(marked={})
    mended = run()
    assert sorted(call.text.split()[0] for call in mended.calls) == ["Answer"] * 3 + ["Ask"] * 3
    assert all("broken" in call.text for call in mended.calls if call.text.startswith("Ask"))
    assert None not in mended.column("question") + mended.column("answer")
    assert {row["answered"] for row in mended.rows} == {ROWS}, "the global step was built again"
    whole = [row for row in mended.rows if row["id"] not in FAILING]
    before = [row for row in broken.rows if row["id"] not in FAILING]
    assert [row["answer"] for row in whole] == [row["answer"] for row in before]
    assert set(count_failed(cache).values()) == {0}

    assert run().calls == []


def test_row_that_fails_again_is_tried_once_a_run(server: LLMServer, pay: Pay, cache: str) -> None:
    server.reset(marked={"broken": "context_length"})
    for _ in range(2):
        paid = pay(build_chain(cache, server.url, rows=make_rows(), count=True))
        assert [row["id"] for row in paid.rows if row["answer"] is None] == list(FAILING)
    assert sorted(call.text for call in paid.calls) == sorted(f"Ask about broken text {n}" for n in FAILING)


def test_row_whose_answer_cant_be_read_is_read_again_without_a_call(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    """The answer was paid for and is kept; what failed is ours. An edited parser gets it."""
    broken = pay(build_one(cache, server.url, task=Picky))
    failed = [row["id"] for row in broken.rows if row["generation"] is None]
    assert 0 < len(failed) < 12
    assert len(broken.calls) == 12
    raw = {row["id"]: row["distilabel_metadata"]["raw_output_ask"] for row in broken.rows}
    assert None not in raw.values(), "the answer is kept"
    mended = pay(build_one(cache, server.url, task=Tolerant))
    assert mended.calls == []
    assert {row["id"]: row["generation"] for row in mended.rows} == raw
