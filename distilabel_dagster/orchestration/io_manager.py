"""The IO manager: reads and writes the distilabel cache layout for assets."""

import hashlib
from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from distilabel_dagster.base.environment import default_cache_dir
from distilabel_dagster.base.signature import is_signature
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import read_pipeline_file, write_rows
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import table_rows
from distilabel_dagster.distiset import Distiset, create_distiset
from distilabel_dagster.distiset.loading import load_dataset
from distilabel_dagster.errors import DistisetError, IncompleteRunError, UnknownPartitionError
from distilabel_dagster.orchestration.batch_stream import BatchStream
from distilabel_dagster.orchestration.conversions import convert_table, is_dataset, iter_tables
from distilabel_dagster.orchestration.events import StepOutput
from distilabel_dagster.orchestration.metadata import (
    COLUMN_LINEAGE,
    CONFIGS,
    PREVIEW_ROWS,
    ROW_COUNT,
    URI,
    describe_lineage,
    describe_rows,
)
from distilabel_dagster.orchestration.translator import python_name


class CacheIOManager(dg.IOManager):
    """Stores assets in the cache, and loads them by the annotation of the input that asks.

    A step's output is in the cache already when it arrives here; it's sealed: one schema, a completion marker,
    metadata. Rows of any other asset (a list of dicts, `pa.Table`, `datasets.Dataset`, a pandas or polars DataFrame,
    an iterator of lists of rows) are written in the same layout. Inputs may be annotated with each of these types,
    and with `BatchStream`; without an annotation they come as `datasets.Dataset`.

    Args:
        cache_dir: directory or fsspec URL of the cache; as for `Pipeline` where it's None.
        storage_options: passed to fsspec; they never reach Dagster's storage.
    """

    def __init__(
        self, cache_dir: str | None = None, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self.cache_dir = cache_dir
        self.storage_options = dict(storage_options or {})

    def _files(self) -> CacheFileSystem:
        return CacheFileSystem(self.cache_dir or default_cache_dir(), self.storage_options)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Seal a step's output, note a Distiset, or write rows.

        Raises:
            IncompleteRunError: the step's last batch isn't committed.
            DistisetError: a Distiset that isn't the pipeline's own.
            ColumnTypeError: rows that have no common columns.
        """
        if isinstance(obj, StepOutput):
            self._seal(context, obj)
        elif isinstance(obj, Distiset):
            self._note_distiset(context, obj)
        elif obj is not None:
            self._write_rows(context, obj)

    def _seal(self, context: dg.OutputContext, output: StepOutput) -> None:
        cache = output.cache
        marker = cache.seal_step(output.step)
        store = cache.stores[output.step]
        preview = table_rows(store.read_head(PREVIEW_ROWS))
        metadata = describe_rows(marker["rows"], cache.fs.full_path(store.path), store.schema, preview)
        if output.lineage is not None and output.lineage.predecessors:
            columns = {
                key: list(cache.stores[name].schema.names)
                for name, key in output.lineage.predecessors.items()
            }
            metadata[COLUMN_LINEAGE] = dg.MetadataValue.column_lineage(
                describe_lineage(store.schema.names, output.lineage.inputs, output.lineage.outputs, columns)
            )
        context.add_output_metadata(metadata)

    def _note_distiset(self, context: dg.OutputContext, distiset: Distiset) -> None:
        fs = self._files()
        signature = context.asset_partition_key if context.has_asset_partitions else ""
        shown = set(fs.list_names(layout.data_dir(signature))) if is_signature(signature) else set()
        if set(distiset) != shown:
            raise DistisetError(
                f"The asset {context.asset_key.to_user_string()} gave a Distiset with the configs {sorted(distiset)}, but "
                f"its partition's data has {sorted(shown)}. This IO manager stores the Distiset of a pipeline only; give "
                "a `datasets.Dataset` instead, or save the Distiset with `save_to_disk`."
            )
        rows = {config: dataset["train"].num_rows for config, dataset in distiset.items()}
        context.add_output_metadata(
            {ROW_COUNT: sum(rows.values()), URI: fs.full_path(layout.data_dir(signature)), CONFIGS: rows}
        )

    def _write_rows(self, context: dg.OutputContext, rows: Any) -> None:
        partition_key = context.asset_partition_key if context.has_asset_partitions else None
        store = self._foreign_store(context.asset_key, partition_key)
        marker = write_rows(store, iter_tables(rows, context.asset_key.to_user_string()))
        preview = table_rows(store.read_head(PREVIEW_ROWS))
        context.add_output_metadata(
            describe_rows(marker["rows"], store.fs.full_path(store.path), store.schema, preview)
        )

    def _foreign_store(self, key: dg.AssetKey, partition_key: str | None) -> StepStore:
        """Where an asset that's no step is kept: a directory like a step's, named by asset and partition."""
        text = "\x00".join([*key.path, partition_key or ""])
        signature = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return StepStore(self._files(), python_name("__".join(key.path))[:128], signature)

    def load_input(self, context: dg.InputContext) -> Any:
        """Load an asset by the annotation of the input.

        Raises:
            UnknownPartitionError: the cache has no such partition.
            IncompleteRunError: the asset isn't complete there.
            DamagedFileError: a part can't be read.
        """
        key = context.asset_key
        partition_key = context.asset_partition_key if context.has_asset_partitions else None
        wanted = context.dagster_type.typing_type
        fs = self._files()
        if wanted is Distiset:
            return create_distiset(
                fs.full_path(layout.data_dir(str(partition_key))), storage_options=self.storage_options
            )
        signatures = self._step_signatures(fs, partition_key)
        name = key.path[-1]
        store = (
            StepStore(fs, name, signatures[name])
            if name in signatures
            else self._foreign_store(key, partition_key)
        )
        store.open()
        if not store.is_complete:
            raise IncompleteRunError(
                f"The asset {key.to_user_string()} isn't complete in {fs.full_path(store.path)}"
                f"{f' for partition {partition_key}' if partition_key else ''}: {len(store.records)} batches are "
                "committed, the last isn't among them. Materialize it first."
            )
        if wanted is BatchStream:
            return BatchStream(store)
        if is_dataset(wanted):
            return load_dataset(fs, store.path, store.step_name)
        return convert_table(store.read_all(), wanted)

    @staticmethod
    def _step_signatures(fs: CacheFileSystem, partition_key: str | None) -> dict[str, str]:
        """Steps of the pipeline whose signature the partition key is."""
        if partition_key is None or not is_signature(partition_key):
            return {}
        try:
            frozen = read_pipeline_file(fs, partition_key)
        except FileNotFoundError as error:
            raise UnknownPartitionError(
                f"The cache {fs.url} has no pipeline with the signature {partition_key}. Materialize its steps first, or "
                "set the cache directory in which they were made.",
                partition_key=partition_key,
            ) from error
        signatures = (frozen.get("signatures") or {}).get("steps") or {}
        return {str(name): str(each) for name, each in signatures.items() if is_signature(str(each))}


class DistilabelIOManager(dg.ConfigurableIOManagerFactory):  # type: ignore[type-arg]  # its parameter is what it makes
    """The IO manager as a resource with config; see `CacheIOManager` for what it stores and loads."""

    cache_dir: str | None = Field(
        default=None,
        description="Directory or fsspec URL of the cache; DISTILABEL_CACHE_DIR by default, and without that "
        "~/.cache/distilabel/pipelines.",
    )

    def create_io_manager(self, context: dg.InitResourceContext) -> CacheIOManager:
        """Make the IO manager."""
        return CacheIOManager(self.cache_dir)
