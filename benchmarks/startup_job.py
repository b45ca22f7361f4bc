"""A small pipeline as Dagster finds it: `dagster job execute -m benchmarks.startup_job -j startup_job`."""

import json
import os

from benchmarks.workloads import build_steps
from distilabel_dagster.orchestration import build_definitions
from distilabel_dagster.pipeline import Pipeline

with Pipeline("startup", cache_dir=os.environ["BENCHMARK_DIRECTORY"] + "/cache") as pipeline:
    build_steps(**json.loads(os.environ["BENCHMARK_ARGUMENTS"]))

defs = build_definitions(pipeline)
