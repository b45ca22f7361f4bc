"""distilabel's cached, resumable synthetic-data pipelines as Dagster assets.

Names load when they're first used: importing the package imports neither Dagster nor `datasets`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilabel_dagster.distiset import Distiset, create_distiset
    from distilabel_dagster.orchestration import (
        BatchStream,
        DistilabelIOManager,
        DistilabelResource,
        DistilabelStepData,
        DistilabelTranslator,
        build_definitions,
        build_distilabel_asset_specs,
        build_distilabel_schedule,
        build_resume_sensor,
        build_signature_sensor,
        distilabel_assets,
    )
    from distilabel_dagster.pipeline import Pipeline, routing_batch_function, sample_n_steps
    from distilabel_dagster.steps import GeneratorStep, GlobalStep, Step, StepInput, StepResources, step

__all__ = [
    "BatchStream",
    "DistilabelIOManager",
    "DistilabelResource",
    "DistilabelStepData",
    "DistilabelTranslator",
    "Distiset",
    "GeneratorStep",
    "GlobalStep",
    "Pipeline",
    "Step",
    "StepInput",
    "StepResources",
    "build_definitions",
    "build_distilabel_asset_specs",
    "build_distilabel_schedule",
    "build_resume_sensor",
    "build_signature_sensor",
    "create_distiset",
    "distilabel_assets",
    "routing_batch_function",
    "sample_n_steps",
    "step",
]

_PLACES = {
    "distiset": ("Distiset", "create_distiset"),
    "pipeline": ("Pipeline", "routing_batch_function", "sample_n_steps"),
    "steps": ("GeneratorStep", "GlobalStep", "Step", "StepInput", "StepResources", "step"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF.get(name, 'orchestration')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
