"""The asset `distiset`: what it refuses, what it makes the next run do, and what it doesn't cost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster import DistilabelTranslator, Distiset, Pipeline, build_definitions
from distilabel_dagster.orchestration.metadata import CONFIGS, ROW_COUNT, URI
from tests.orchestration import pipelines
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import build_chat, build_line

ROOT = Path(__file__).parents[2]
DISTISET = dg.AssetKey(["line", "distiset"])
_RUN = """\
import json, sys
import dagster as dg
from distilabel_dagster import build_definitions
from tests.orchestration.pipelines import build_line
job = build_definitions(build_line(sys.argv[1])).resolve_job_def("line_job")
with dg.DagsterInstance.ephemeral() as instance:
    result = job.execute_in_process(instance=instance)
    before = "datasets" in sys.modules
    rows = result.output_for_node("line__distiset", "line__distiset")["leaf"]["train"].num_rows
    print(json.dumps({"before": before, "after": "datasets" in sys.modules, "rows": rows}))
"""


def leaf_parts(pipeline: Pipeline, cache: Path) -> list[Path]:
    return sorted((cache / "steps_data").glob(f"leaf_{pipeline.step_signatures['leaf']}/*.parquet"))


def flip_a_bit(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[8] ^= 1  # among the rows, which stand in front of the footer
    part.unlink()  # it's shown in `data` by a hard link, which keeps the old content
    part.write_bytes(content)


@pytest.mark.parametrize("damaged", [0, -1], ids=["first part", "last part"])
def test_a_damaged_part_is_found_and_computed_again_by_the_next_run(
    damaged: int, runner: Runner, cache: Path
) -> None:
    pipeline = build_line(cache)
    runner.run(pipeline)
    part = leaf_parts(pipeline, cache)[damaged]
    flip_a_bit(part)
    message = runner.error(pipeline, select=[DISTISET])
    assert f"{part} can't be read" in message
    assert not runner.materialized()
    pipelines.given.clear()
    runner.run(pipeline)
    assert {step for step, _ in pipelines.given} == {"leaf"}
    assert runner.metadata("line/distiset")[ROW_COUNT] == 12


def test_a_missing_part_is_found(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    runner.run(pipeline)
    parts = leaf_parts(pipeline, cache)
    parts[0].unlink()
    message = runner.error(pipeline, select=[DISTISET])
    assert "leaf" in message
    assert "aterialize" in message or "Run the pipeline again" in message
    assert not runner.materialized()


@pytest.mark.parametrize("enable_metadata", [True, False])
def test_it_tells_rows_place_and_columns(enable_metadata: bool, runner: Runner, cache: Path) -> None:
    pipeline = build_chat(cache, enable_metadata=enable_metadata)
    distiset = runner.run(pipeline).output_for_node("chat__distiset", "chat__distiset")
    dataset = distiset["answer"]["train"]
    metadata = runner.metadata("chat/distiset")
    assert (metadata[ROW_COUNT], metadata[CONFIGS]) == (dataset.num_rows, {"answer": dataset.num_rows})
    assert metadata[URI] == str(cache / pipeline.signature / "data")
    columns = ", ".join(dataset.column_names)
    assert f"Config `answer`: {dataset.num_rows} rows, columns {columns}" in runner.messages()
    assert isinstance(distiset, Distiset)
    assert Path(str(distiset.pipeline_path)).is_file()


def test_a_run_does_without_datasets_until_somebody_looks_at_the_rows(cache: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(cache)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"before": False, "after": True, "rows": 12}


def test_specs_are_asked_for_a_number_of_times_that_grows_with_the_steps_only(cache: Path) -> None:
    asked: list[str | None] = []

    class Counting(DistilabelTranslator):
        def get_asset_spec(self, data: Any) -> dg.AssetSpec:
            asked.append(data.step.name if data.step is not None else None)
            return super().get_asset_spec(data)

    build_definitions(build_line(cache), translator=Counting())
    assert max(asked.count(name) for name in asked) <= 2
    asked.clear()
    build_definitions(build_line(cache), translator=Counting(), load_groups="sequential_step_execution")
    assert max(asked.count(name) for name in asked) <= 2


def test_steps_that_were_loaded_are_told_in_a_line(runner: Runner, cache: Path) -> None:
    runner.run(build_line(cache))
    loaded = [line for line in runner.messages() if line.endswith("loaded")]
    told = " ".join(loaded)
    assert all(f"`{step}`" in told for step in ("load", "scale", "leaf"))
    finished = [line for line in runner.messages() if "finished with" in line]
    assert len(finished) == 3
