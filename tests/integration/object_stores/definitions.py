"""The pipeline for Dagster's command line, in `$DISTILABEL_CACHE_DIR`."""

from distilabel_dagster import build_definitions
from tests.integration.object_stores.pipelines import build

defs = build_definitions(build())
