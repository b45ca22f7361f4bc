"""The Dagster layer: a pipeline's steps as assets, its signature as partition key."""

from distilabel_dagster.orchestration.assets import build_distilabel_asset_specs, distilabel_assets
from distilabel_dagster.orchestration.batch_stream import BatchStream
from distilabel_dagster.orchestration.definitions import build_definitions
from distilabel_dagster.orchestration.io_manager import DistilabelIOManager
from distilabel_dagster.orchestration.resource import DistilabelResource
from distilabel_dagster.orchestration.sensors import (
    build_distilabel_schedule,
    build_resume_sensor,
    build_signature_sensor,
)
from distilabel_dagster.orchestration.translator import DistilabelStepData, DistilabelTranslator

__all__ = [
    "BatchStream",
    "DistilabelIOManager",
    "DistilabelResource",
    "DistilabelStepData",
    "DistilabelTranslator",
    "build_definitions",
    "build_distilabel_asset_specs",
    "build_distilabel_schedule",
    "build_resume_sensor",
    "build_signature_sensor",
    "distilabel_assets",
]
