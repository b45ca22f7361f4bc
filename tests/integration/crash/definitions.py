"""What `dagster job execute -m` loads: the pipeline that the environment names, by `CRASH_PIPELINE` and `CRASH_CACHE`."""

import os

import dagster as dg

from distilabel_dagster import build_definitions
from tests.integration.crash.pipelines import build
from tests.integration.crash.shapes import SHAPES

_name = os.environ["CRASH_PIPELINE"]
_is_spread = os.environ.get("CRASH_EXECUTOR") == "multiprocess"

defs = build_definitions(
    build(_name, os.environ["CRASH_CACHE"]),
    load_groups=[list(group) for group in SHAPES[_name].groups] if _is_spread else None,
    executor_def=dg.multiprocess_executor if _is_spread else None,
)
