"""A final part whose rows are damaged, which shows only when the Distiset is read: computed again in the same run."""

import logging
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.pipeline import pipeline as pipeline_module
from distilabel_dagster.steps import LoadDataFromDicts, StepInput, StepOutput, step

COMPUTED: list[int] = []


@step(inputs=["number"], outputs=["double"])
def double(inputs: StepInput) -> StepOutput:
    COMPUTED.extend(row["number"] for row in inputs)
    yield [{**row, "double": 2 * row["number"]} for row in inputs]


def build(cache_dir: Path) -> Pipeline:
    with Pipeline("damaged", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"number": number} for number in range(20)])
        load >> double(name="double", input_batch_size=5)
    return pipeline


def flip(cache_dir: Path) -> None:
    (part, *_) = sorted(cache_dir.glob("*/data/double/*.parquet"))
    content = bytearray(part.read_bytes())
    content[60] ^= 1
    part.write_bytes(content)


def rows_of(pipeline: Pipeline, **options: Any) -> list[dict[str, int]]:
    return pipeline.run(**options)["double"]["train"].to_list()


def test_it_is_computed_again_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = rows_of(build(tmp_path))
    COMPUTED.clear()
    flip(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert rows_of(build(tmp_path)) == expected
    assert 0 < len(COMPUTED) <= 20
    assert "can't be read" in caplog.text
    COMPUTED.clear()
    assert rows_of(build(tmp_path)) == expected
    assert not COMPUTED


def test_what_is_damaged_again_and_again_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = pipeline_module.Pipeline._compute

    def compute_and_flip(*arguments: Any) -> Any:
        cache = compute(*arguments)
        flip(tmp_path)
        return cache

    monkeypatch.setattr(pipeline_module.Pipeline, "_compute", compute_and_flip)
    with pytest.raises(DamagedFileError, match=r"00001\.parquet can't be read"):
        build(tmp_path).run(use_cache=False)
