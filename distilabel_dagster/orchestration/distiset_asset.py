"""The last asset of a pipeline: its Distiset."""

import inspect
from collections.abc import Mapping

import dagster as dg

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import Distiset
from distilabel_dagster.distiset.committed import CommittedDistiset, CommittedRows
from distilabel_dagster.orchestration.assets import complete_spec
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
    pipeline: Pipeline,
    keys: Mapping[str, dg.AssetKey],
    *,
    translator: DistilabelTranslator | None = None,
    io_manager_key: str,
) -> dg.AssetsDefinition:
    """Make the asset that brings the leaf steps together as a `Distiset`.

    The leaves come through the IO manager, which reads them and refuses any that isn't complete or whole. Their rows are
    in the cache already, so they aren't held; who loads the asset is given them.

    Args:
        pipeline: the pipeline.
        keys: step -> its asset key.
        translator: makes the specs.
        io_manager_key: resource key of the pipeline's IO manager.
    """
    translator = translator or DistilabelTranslator()
    spec = complete_spec(
        translator.get_asset_spec(DistilabelStepData(pipeline, None)),
        pipeline,
        keys,
        io_manager_key,
        {ENABLE_METADATA: pipeline.enable_metadata},
    )
    inputs = {name: f"{python_name(name)}_rows" for name in pipeline.leaf_steps}

    def compute(context: dg.AssetExecutionContext, **leaves: CommittedRows) -> Distiset:
        with end_with_executor(context):
            return build(context, {name: leaves[input_name] for name, input_name in inputs.items()})

    def build(context: dg.AssetExecutionContext, leaves: Mapping[str, CommittedRows]) -> Distiset:
        fs = CacheFileSystem(pipeline.cache_dir, pipeline.storage_options)
        for name, rows in leaves.items():
            columns = rows.name_columns(enable_metadata=pipeline.enable_metadata)
            context.log.info(f"Config `{name}`: {rows.num_rows} rows, columns {', '.join(columns)}")
        return CommittedDistiset(
            leaves,
            enable_metadata=pipeline.enable_metadata,
            pipeline_path=fs.full_path(layout.pipeline_file(context.partition_key)),
            log_filename_path=fs.full_path(layout.log_file(context.partition_key)),
            storage_options=pipeline.storage_options,
        )

    # By their annotations the IO manager knows what is wanted of the leaves, whose names are known only here.
    parameters = inspect.signature(compute).parameters
    compute.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # that a function may have one mypy doesn't know
        [
            parameters["context"],
            *(
                inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=CommittedRows)
                for each in inputs.values()
            ),
        ]
    )
    made: dg.AssetsDefinition = dg.multi_asset(
        name=f"{python_name(pipeline.name)}__{DISTISET}",
        specs=[spec],
        ins={input_name: dg.AssetIn(key=keys[name]) for name, input_name in inputs.items()},
    )(compute)
    return made
