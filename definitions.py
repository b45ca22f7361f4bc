"""The main job: an instruction dataset about Python, made from the language reference that ships with it."""

import dagster as dg

from distilabel_dagster import build_definitions
from examples.python_docs_qa import build_pipeline

pipeline = build_pipeline()
defs: dg.Definitions = build_definitions(pipeline, cron_schedule="0 3 * * *")
