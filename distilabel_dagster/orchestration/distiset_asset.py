"""The last asset of a pipeline: its Distiset."""

from typing import Any

import dagster as dg

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import Distiset
from distilabel_dagster.distiset.loading import METADATA_COLUMN
from distilabel_dagster.orchestration.partitions import build_partitions_def
from distilabel_dagster.orchestration.translator import (
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
    spec = translator.get_asset_spec(DistilabelStepData(pipeline, None))
    keys = {
        name: translator.get_asset_spec(DistilabelStepData(pipeline, pipeline.dag.steps[name])).key
        for name in pipeline.leaf_steps
    }

    def compute(context: dg.AssetExecutionContext, **leaves: Any) -> Distiset:
        from datasets import DatasetDict

        fs = CacheFileSystem(pipeline.cache_dir, pipeline.storage_options)
        configs = {name: leaves[python_name(name)] for name in keys}
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

    made: Any = dg.asset(
        key=spec.key,
        ins={python_name(name): dg.AssetIn(key=key) for name, key in keys.items()},
        description=spec.description,
        group_name=spec.group_name,
        kinds=spec.kinds,
        metadata=spec.metadata,
        owners=spec.owners,
        tags={key: value for key, value in spec.tags.items() if not key.startswith("dagster/")},
        io_manager_key=io_manager_key,
        partitions_def=build_partitions_def(pipeline),
    )(compute)
    assets: dg.AssetsDefinition = made
    return assets


def _without_metadata(dataset: Any) -> Any:
    return dataset.remove_columns(METADATA_COLUMN) if METADATA_COLUMN in dataset.column_names else dataset
