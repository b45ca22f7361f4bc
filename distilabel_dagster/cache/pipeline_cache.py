"""One pipeline's place in the cache: its directory, and the stores of its steps."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, TypedDict

import pyarrow as pa
import yaml

from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.base.yaml_data import dump_yaml, load_yaml
from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.frozen_pipeline import parse_frozen
from distilabel_dagster.cache.step_store import StepStore, count_failed_rows, describe_schema
from distilabel_dagster.cache.tables import EMPTY_TABLE
from distilabel_dagster.errors import CacheError, DamagedFileError, IncompleteRunError

_MARKER_FORMAT: Final = 1
_UNFINISHED_FOR_S: Final = 60.0


class CompleteMarker(TypedDict):
    """Content of a step's `complete.json`."""

    format: int
    step_name: str
    signature: str
    rows: int
    batches: int
    schema: dict[str, str]
    failed_rows: int


class PipelineCache:
    """The files of one pipeline under one signature.

    Args:
        fs: the cache's files.
        signature: the pipeline's signature, its directory's name.
        step_signatures: step -> its signature.
        leaf_steps: the steps whose parts `data/` shows.
    """

    def __init__(
        self, fs: CacheFileSystem, signature: str, step_signatures: dict[str, str], leaf_steps: list[str]
    ) -> None:
        self.fs = fs
        self.signature = signature
        self.step_signatures = step_signatures
        self.leaf_steps = leaf_steps
        self.stores = {
            name: StepStore(fs, name, each, leaf_of=signature if name in leaf_steps else None)
            for name, each in step_signatures.items()
        }

    @property
    def data_url(self) -> str:
        """Path or URL of the directory that `create_distiset` reads."""
        return self.fs.full_path(layout.data_dir(self.signature))

    def write_pipeline_file(self, content: dict[str, Any]) -> None:
        """Freeze the pipeline as `pipeline.yaml`, unless it's there already with the same content.

        What killed runs left unfinished in the pipeline's directory is removed, when it's older than a minute: runs that
        have nothing to compute write there beside others.
        """
        for directory in (self.signature, f"{self.signature}/{layout.BATCH_MANAGER_STEPS_DIR}"):
            self.fs.remove_temporary_files(directory, older_than_s=_UNFINISHED_FOR_S)
        text = dump_yaml(content).encode()
        path = layout.pipeline_file(self.signature)
        try:
            if self.fs.read_bytes(path) == text:
                return
        except (FileNotFoundError, CacheError):
            pass
        self.fs.write_bytes(path, text)

    def seal_step(self, name: str) -> CompleteMarker:
        """Finish a step whose last batch is committed: one schema in all parts, and `complete.json`.

        Safe to repeat; nothing is written where everything is there.

        Raises:
            IncompleteRunError: the last batch isn't committed.
        """
        return seal_store(self.stores[name])

    def is_sealed(self, name: str) -> bool:
        """Tell whether a step is finished, so that `seal_step` would write nothing about it."""
        store = self.stores[name]
        return store.is_complete and read_marker(store) == _describe(store)

    def read_marker(self, name: str) -> CompleteMarker | None:
        """Read a step's `complete.json`; None if there's none, or none that can be read."""
        return read_marker(self.stores[name])


def seal_store(store: StepStore) -> CompleteMarker:
    """Finish a step as `PipelineCache.seal_step` does.

    Raises:
        IncompleteRunError: the last batch isn't committed.
    """
    if not store.is_complete:
        store.open()
    if not store.is_complete:
        raise IncompleteRunError(
            f"Step `{store.step_name}` can't be sealed: {len(store.records)} batches are committed, the last of all "
            "isn't among them. Run the pipeline to its end first."
        )
    reach("seal.begun", store.step_name)
    store.unite_parts()
    reach("seal.united", store.step_name)
    store.show_all()
    reach("seal.shown", store.step_name)
    store.remove_unfinished(older_than_s=_UNFINISHED_FOR_S)
    marker = _describe(store)
    if read_marker(store) != marker:
        store.write_beside(layout.COMPLETE_FILE, json.dumps(marker, indent=2).encode())
    reach("seal.done", store.step_name)
    return marker


def _marker_file(store: StepStore) -> str:
    return f"{store.path}/{layout.COMPLETE_FILE}"


def build_marker(
    step_name: str, signature: str, records: list[BatchRecord], schema: pa.Schema
) -> CompleteMarker:
    """Give what `complete.json` says of a step with these batches, in that united schema."""
    return {
        "format": _MARKER_FORMAT,
        "step_name": step_name,
        "signature": signature,
        "rows": sum(record.size for record in records),
        "batches": len(records),
        "schema": describe_schema(schema),
        "failed_rows": count_failed_rows(records),
    }


def _describe(store: StepStore) -> CompleteMarker:
    return build_marker(store.step_name, store.signature, store.records, store.schema)


def read_marker(store: StepStore) -> CompleteMarker | None:
    """Read a step's `complete.json`; None if there's none, or none that can be read."""
    try:
        marker = json.loads(store.fs.read_bytes(_marker_file(store)))
    except (FileNotFoundError, ValueError, CacheError):
        return None
    if not isinstance(marker, dict) or marker.get("format") != _MARKER_FORMAT:
        return None
    known: CompleteMarker = marker  # type: ignore[assignment]  # the format number says it's this
    return known


def note_damage(stores: Iterable[StepStore]) -> None:
    """Read all rows of some steps: a part that can't be read is marked, so that the next run computes its batches again."""
    for store in stores:
        with contextlib.suppress(CacheError):
            store.open()
            store.read_all()


def write_rows(store: StepStore, tables: Iterable[pa.Table]) -> CompleteMarker:
    """Write rows that no step made in a step's layout, in place of what was there; sealed when all are written.

    A crash half-way leaves a store that isn't complete.

    Args:
        store: where to; one writer at a time.
        tables: the rows, a batch each.

    Raises:
        ColumnTypeError: the tables' columns have no common types.
        CacheError: they can't be written.
    """
    store.open()
    store.reset()
    waiting: Batch | None = None
    for seq_no, table in enumerate(tables):
        if waiting is not None:
            store.append([waiting])
        waiting = Batch(BatchRecord(seq_no, table.num_rows), table)
    last = waiting or Batch(BatchRecord(0, 0), EMPTY_TABLE)
    store.append([Batch(replace(last.record, last_batch=True), last.table)])
    return seal_store(store)


def read_pipeline_file(fs: CacheFileSystem, signature: str) -> dict[str, Any]:
    """Read the frozen pipeline of a signature as data.

    Raises:
        FileNotFoundError: the cache has no such pipeline.
        DamagedFileError: the file is no YAML, or doesn't hold that pipeline.
    """
    path = layout.pipeline_file(signature)
    try:
        content = load_yaml(fs.read_bytes(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DamagedFileError(
            f"{fs.full_path(path)} is no YAML: {error}. It's written again by the next run of its pipeline.",
            path=fs.full_path(path),
        ) from error
    try:
        parse_frozen(content, signature)
    except ValueError as error:
        raise DamagedFileError(
            f"{fs.full_path(path)} doesn't hold the pipeline {signature}: {error}. It's written again by the next run of "
            "that pipeline.",
            path=fs.full_path(path),
        ) from error
    known: dict[str, Any] = content
    return known
