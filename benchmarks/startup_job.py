"""Three steps and 80 rows, as Dagster finds them: `dagster job execute -m benchmarks.startup_job -j startup_job`."""

import os

from benchmarks.workloads import build_steps
from distilabel_dagster.orchestration import build_definitions
from distilabel_dagster.pipeline import Pipeline

with Pipeline("startup", cache_dir=os.environ["BENCHMARK_DIRECTORY"] + "/cache") as pipeline:
    build_steps(rows=80, batch=50)

defs = build_definitions(pipeline)
