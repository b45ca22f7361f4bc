"""What most of the tests here run: two steps in a row behind some rows."""

from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.errors import StepProcessError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts
from tests.integration.faults.steps import Add

ROWS = 24


def load(rows: int = ROWS, batch_size: int = 5) -> LoadDataFromDicts:
    return LoadDataFromDicts(
        name="load", data=[{"id": number} for number in range(rows)], batch_size=batch_size
    )


def linear(cache: Path, rows: int = ROWS, first: str = "", second: str = "") -> Pipeline:
    with Pipeline("linear", cache_dir=cache) as pipeline:
        made = load(rows)
        (
            made
            >> Add(name="first", salt=first, input_batch_size=4)
            >> Add(name="second", column="b", salt=second, input_batch_size=3)
        )
    return pipeline


def rows_of(distiset: Any, leaf: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = distiset[leaf]["train"].to_list()
    return found


def expected(rows: int = ROWS, first: str = "", second: str = "") -> list[dict[str, Any]]:
    return [{"id": i, "a": f"a{first}{i}", "b": f"b{second}{i}"} for i in range(rows)]


def break_off(pipeline: Pipeline, at: int = 13, step: str | None = None) -> None:
    """Let a run end in the middle, some rows committed."""
    Add.dies_at = (step, at)
    with pytest.raises(StepProcessError):
        pipeline.run(on_error="raise")
    Add.dies_at = None
