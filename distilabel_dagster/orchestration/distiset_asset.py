"""The last asset of a pipeline: its Distiset."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import Distiset
from distilabel_dagster.distiset.loading import METADATA_COLUMN
from distilabel_dagster.orchestration.assets import complete_spec, translate_keys
from distilabel_dagster.orchestration.metadata import ENABLE_METADATA
from distilabel_dagster.orchestration.orphans import end_with_executor
from distilabel_dagster.orchestration.translator import (
    DISTISET,
    DistilabelStepData,
    DistilabelTranslator,
    python_name,
)
from distilabel_dagster.pipeline import Pipeline


def build_distiset_asset(
    pipeline: Pipeline, *, translator: DistilabelTranslator | None = None, io_manager_key: str
) -> dg.AssetsDefinition:
    """Make the asset that brings the leaf steps together as a `Distiset`.

    The leaves are loaded through the IO manager, which refuses any that isn't complete.

    Args:
        pipeline: the pipeline.
        translator: makes the specs.
        io_manager_key: resource key of the pipeline's IO manager.
    """
    translator = translator or DistilabelTranslator()
    spec = complete_spec(
        translator.get_asset_spec(DistilabelStepData(pipeline, None)),
        pipeline,
        translator,
        io_manager_key,
        {ENABLE_METADATA: pipeline.enable_metadata},
    )
    keys = translate_keys(pipeline, translator)
    inputs = {name: f"{python_name(name)}_rows" for name in pipeline.leaf_steps}

    def compute(context: dg.AssetExecutionContext, **leaves: Any) -> Distiset:
        with end_with_executor(context):
            return build(context, leaves)

    def build(context: dg.AssetExecutionContext, leaves: Mapping[str, Any]) -> Distiset:
        from datasets import DatasetDict

        fs = CacheFileSystem(pipeline.cache_dir, pipeline.storage_options)
        configs = {name: leaves[input_name] for name, input_name in inputs.items()}
        if not pipeline.enable_metadata:
            configs = {name: _without_metadata(dataset) for name, dataset in configs.items()}
        for name, dataset in configs.items():
            context.log.info(
                f"Config `{name}`: {dataset.num_rows} rows, columns {', '.join(dataset.column_names)}"
            )
        return Distiset(
            {name: DatasetDict({"train": dataset}) for name, dataset in configs.items()},
            pipeline_path=fs.full_path(layout.pipeline_file(context.partition_key)),
            log_filename_path=fs.full_path(layout.log_file(context.partition_key)),
            storage_options=pipeline.storage_options,
        )

    made: dg.AssetsDefinition = dg.multi_asset(
        name=f"{python_name(pipeline.name)}__{DISTISET}",
        specs=[spec],
        ins={input_name: dg.AssetIn(key=keys[name]) for name, input_name in inputs.items()},
    )(compute)
    return made


def _without_metadata(dataset: Any) -> Any:
    return dataset.remove_columns(METADATA_COLUMN) if METADATA_COLUMN in dataset.column_names else dataset
