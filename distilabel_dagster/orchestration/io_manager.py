"""The IO manager: reads and writes the distilabel cache layout for assets."""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import dagster as dg
from pydantic import Field

from distilabel_dagster.base.environment import default_cache_dir, default_ledger_url
from distilabel_dagster.base.signature import is_signature
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.inventory import describe_pipeline
from distilabel_dagster.cache.pipeline_cache import note_damage, read_pipeline_file, write_rows
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import table_rows
from distilabel_dagster.distiset import Distiset, create_distiset
from distilabel_dagster.distiset.committed import CommittedDistiset, CommittedRows, check_rows
from distilabel_dagster.distiset.loading import load_dataset
from distilabel_dagster.engine.run_state import WhenInUse, WriteLease
from distilabel_dagster.errors import (
    DamagedFileError,
    DistisetError,
    IncompleteRunError,
    StepInUseError,
    UnknownPartitionError,
)
from distilabel_dagster.orchestration.batch_stream import BatchStream
from distilabel_dagster.orchestration.conversions import convert_table, is_dataset, iter_tables
from distilabel_dagster.orchestration.events import StepOutput
from distilabel_dagster.orchestration.metadata import (
    COLUMN_LINEAGE,
    CONFIGS,
    ENABLE_METADATA,
    PREVIEW_ROWS,
    ROW_COUNT,
    STEP,
    URI,
    describe_lineage,
    describe_rows,
)
from distilabel_dagster.orchestration.translator import python_name
from distilabel_dagster.pipeline.execution import acquire_lease

_ASK_EVERY_S: Final = 1.0


class CacheIOManager(dg.IOManager):
    """Stores assets in the cache, and loads them by the annotation of the input that asks.

    A step's output is in the cache already when it arrives here; it's sealed: one schema, a completion marker,
    metadata. Rows of any other asset (a list of dicts, `pa.Table`, `datasets.Dataset`, a pandas or polars DataFrame,
    an iterator of lists of rows) are written in the same layout. Inputs may be annotated with each of these types,
    and with `BatchStream`; without an annotation they come as `datasets.Dataset`.

    Args:
        cache_dir: directory or fsspec URL of the cache; as for `Pipeline` where it's None.
        storage_options: passed to fsspec; they never reach Dagster's storage.
        ledger_url: the database that says who writes; as for `Pipeline` where it's None.
        when_in_use: what to do with rows of an asset that another process is writing: raise, or wait and write them
            after that. A step's own output is written, and sealed, under its run's lease.
    """

    def __init__(
        self,
        cache_dir: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        *,
        ledger_url: str | None = None,
        when_in_use: WhenInUse = "raise",
    ) -> None:
        self.cache_dir = cache_dir
        self.storage_options = dict(storage_options or {})
        self.ledger_url = ledger_url
        self.when_in_use = when_in_use

    def _files(self) -> CacheFileSystem:
        return CacheFileSystem(self.cache_dir or default_cache_dir(), self.storage_options)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Seal a step's output, note a Distiset, or write rows.

        Raises:
            IncompleteRunError: the step's last batch isn't committed.
            DistisetError: a Distiset that isn't the pipeline's own.
            StepInUseError: another process writes the same asset and partition, or has taken a step over.
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
        configs: Mapping[str, Any] = distiset.leaves if isinstance(distiset, CommittedDistiset) else distiset
        fs = self._files()
        signature = context.asset_partition_key if context.has_asset_partitions else ""
        shown = set(fs.list_names(layout.data_dir(signature))) if is_signature(signature) else set()
        if set(configs) != shown:
            raise DistisetError(
                f"The asset {context.asset_key.to_user_string()} gave a Distiset with the configs {sorted(configs)}, but "
                f"its partition's data has {sorted(shown)}. This IO manager stores the Distiset of a pipeline only; give "
                "a `datasets.Dataset` instead, or save the Distiset with `save_to_disk`."
            )
        rows = {
            config: each.num_rows if isinstance(each, CommittedRows) else each["train"].num_rows
            for config, each in configs.items()
        }
        context.add_output_metadata(
            {ROW_COUNT: sum(rows.values()), URI: fs.full_path(layout.data_dir(signature)), CONFIGS: rows}
        )

    def _write_rows(self, context: dg.OutputContext, rows: Any) -> None:
        partition_key = context.asset_partition_key if context.has_asset_partitions else None
        store = self._foreign_store(context.asset_key, partition_key)
        with self._lease(context, store) as lease:
            if lease is not None:
                store.guard = lease.check
            store.open(for_writing=True)
            marker = write_rows(store, iter_tables(rows, context.asset_key.to_user_string()))
            preview = table_rows(store.read_head(PREVIEW_ROWS))
        context.add_output_metadata(
            describe_rows(marker["rows"], store.fs.full_path(store.path), store.schema, preview)
        )

    @contextlib.contextmanager
    def _lease(self, context: dg.OutputContext, store: StepStore) -> Iterator[WriteLease | None]:
        """Be the only one that writes to a store, for the length of the block; Dagster's interruption ends the waiting."""
        lease = self._acquire(context, store)
        try:
            yield lease
        finally:
            if lease is not None:
                lease.release()

    def _acquire(self, context: dg.OutputContext, store: StepStore) -> WriteLease | None:
        is_told = False
        while True:
            try:
                return acquire_lease(self.ledger_url or default_ledger_url(), store.fs, [store.path])
            except StepInUseError as error:
                if self.when_in_use == "raise":
                    raise
                if not is_told:
                    context.log.warning(f"Waiting for another process to end. {error}")
                is_told = True
                time.sleep(_ASK_EVERY_S)

    def _foreign_store(self, key: dg.AssetKey, partition_key: str | None) -> StepStore:
        """Where an asset that's no step is kept: a directory like a step's, named by asset and partition."""
        text = "\x00".join([*key.path, partition_key or ""])
        signature = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return StepStore(self._files(), python_name("__".join(key.path))[:128], signature)

    def load_input(self, context: dg.InputContext) -> Any:
        """Load an asset by the annotation of the input.

        Raises:
            UnknownPartitionError: the cache has no such partition, or several are asked for at once.
            IncompleteRunError: the asset isn't complete there.
            DamagedFileError: a part can't be read.
        """
        key = context.asset_key
        partition_key = _read_partition_key(context)
        wanted = context.dagster_type.typing_type
        fs = self._files()
        metadata = _read_upstream_metadata(context)
        if ENABLE_METADATA in metadata:
            return self._load_distiset(fs, key, str(partition_key), wanted, bool(metadata[ENABLE_METADATA]))
        if STEP in metadata:
            name = str(metadata[STEP])
            store = StepStore(fs, name, _read_step_signature(fs, key, str(partition_key), name))
        else:
            store = self._foreign_store(key, partition_key)
        store.open()
        if not store.is_complete:
            raise _build_incomplete_error(key, partition_key, store)
        if wanted is BatchStream:
            return BatchStream(store)
        if wanted is not CommittedRows and not is_dataset(wanted):
            return convert_table(store.read_all(), wanted)
        try:
            if wanted is CommittedRows:
                return check_rows(fs, store.path, store.step_name)
            return load_dataset(fs, store.path, store.step_name)
        except DamagedFileError:
            note_damage([store])
            raise

    def _load_distiset(
        self, fs: CacheFileSystem, key: dg.AssetKey, signature: str, wanted: Any, enable_metadata: bool
    ) -> Any:
        """A pipeline's Distiset; of one with a single leaf, other annotations give that leaf's rows."""
        _check_known(fs, key, signature)
        entry = describe_pipeline(fs, signature)
        if entry.problem is not None:
            raise DamagedFileError(entry.problem, path=fs.full_path(layout.pipeline_file(signature)))
        unfinished = [step.name for step in entry.steps if not step.is_complete]
        problems = "".join(f" {step.problem}." for step in entry.steps if step.problem is not None)
        if unfinished:
            raise IncompleteRunError(
                f"The asset {key.to_user_string()} isn't whole for partition {signature}: of the steps that "
                f"{fs.full_path(layout.pipeline_file(signature))} names, the step"
                f"{'s' if len(unfinished) > 1 else ''} {', '.join(f'`{name}`' for name in unfinished)} "
                f"{'are' if len(unfinished) > 1 else 'is'}n't complete.{problems} Materialize the partition first."
            )
        try:
            distiset = create_distiset(
                fs.full_path(layout.data_dir(signature)),
                enable_metadata=enable_metadata,
                storage_options=self.storage_options,
            )
        except DamagedFileError:
            leaves = [step for step in entry.steps if step.name in entry.leaf_steps]
            note_damage(StepStore(fs, step.name, step.signature) for step in leaves)
            raise
        if wanted in (Any, None, Distiset):
            return distiset
        if len(entry.leaf_steps) > 1:
            raise DistisetError(
                f"The asset {key.to_user_string()} has the configs {', '.join(f'`{name}`' for name in entry.leaf_steps)}: "
                "annotate the input with `Distiset`, or load the asset of one of these steps."
            )
        dataset = distiset[entry.leaf_steps[0]]["train"]
        return dataset if is_dataset(wanted) else convert_table(next(iter_tables(dataset, str(key))), wanted)


def _read_partition_key(context: dg.InputContext) -> str | None:
    if not context.has_asset_partitions:
        return None
    keys = list(context.asset_partition_keys)
    if len(keys) == 1:
        return keys[0]
    raise UnknownPartitionError(
        f"The asset {context.asset_key.to_user_string()} is asked for {len(keys)} partitions at once, and only one can "
        "be loaded. Give the asset that loads it the same partitions: "
        f'`partitions_def=dg.DynamicPartitionsDefinition(name="<pipeline>_signatures")`.',
        partition_key="",
    )


def _read_upstream_metadata(context: dg.InputContext) -> dict[str, Any]:
    """What the definition of the asset to load says of it, in plain values."""
    upstream = context.upstream_output
    metadata = upstream.definition_metadata if upstream is not None else {}
    return {name: getattr(value, "value", value) for name, value in (metadata or {}).items()}


def _check_known(fs: CacheFileSystem, key: dg.AssetKey, signature: str) -> None:
    file = fs.full_path(layout.pipeline_file(signature))
    if not is_signature(signature) or not fs.exists(layout.pipeline_file(signature)):
        raise UnknownPartitionError(
            f"The asset {key.to_user_string()} can't be loaded: the cache {fs.url} has no pipeline with the signature "
            f"`{signature}`: there's no {file}. Materialize its steps first, or set the cache directory in which they were "
            "made.",
            partition_key=signature,
        )


def _read_step_signature(fs: CacheFileSystem, key: dg.AssetKey, signature: str, step: str) -> str:
    """The signature that a step has in the pipeline whose signature the partition is."""
    _check_known(fs, key, signature)
    frozen = read_pipeline_file(fs, signature)
    found = str(((frozen.get("signatures") or {}).get("steps") or {}).get(step) or "")
    if not is_signature(found):
        raise UnknownPartitionError(
            f"The asset {key.to_user_string()} can't be loaded: the pipeline with the signature `{signature}` in the "
            f"cache {fs.url} has no step `{step}`.",
            partition_key=signature,
        )
    return found


def _build_incomplete_error(
    key: dg.AssetKey, partition_key: str | None, store: StepStore
) -> IncompleteRunError:
    of_partition = f" for partition {partition_key}" if partition_key else ""
    problem = f" {store.problem}." if store.problem is not None else ""
    if partition_key and not store.fs.exists(store.path):
        file = layout.pipeline_file(partition_key)
        problem = f" {store.fs.full_path(file)} names that directory, which isn't there."
    return IncompleteRunError(
        f"The asset {key.to_user_string()} isn't complete in {store.fs.full_path(store.path)}{of_partition}: "
        f"{len(store.records)} batches are committed, the last isn't among them.{problem} Materialize it first."
    )


class DistilabelIOManager(dg.ConfigurableIOManagerFactory):  # type: ignore[type-arg]  # its parameter is what it makes
    """The IO manager as a resource with config; see `CacheIOManager` for what it stores and loads."""

    cache_dir: str | None = Field(
        default=None,
        description="Directory or fsspec URL of the cache; DISTILABEL_CACHE_DIR by default, and without that "
        "~/.cache/distilabel/pipelines.",
    )

    when_in_use: Literal["raise", "wait"] = Field(
        default="raise",
        description="What to do with rows of an asset that another process is writing: `raise` fails and says which "
        "process it is, `wait` writes them after that.",
    )

    def create_io_manager(self, context: dg.InitResourceContext) -> CacheIOManager:
        """Make the IO manager."""
        return CacheIOManager(self.cache_dir, when_in_use=self.when_in_use)
