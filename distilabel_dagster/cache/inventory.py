"""What a cache holds: its pipelines, and how far each is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.frozen_pipeline import parse_frozen
from distilabel_dagster.cache.pipeline_cache import read_pipeline_file
from distilabel_dagster.cache.step_store import StepStore, count_failed_rows
from distilabel_dagster.errors import CacheError


@dataclass(frozen=True, slots=True)
class StepEntry:
    """A step of a cached pipeline.

    Attributes:
        name: the step.
        signature: its signature.
        rows: committed rows.
        batches: committed batches.
        failed_rows: committed rows that failed.
        is_complete: whether its last batch is committed.
        problem: why not all that's in its directory can be read; None where it can.
    """

    name: str
    signature: str
    rows: int
    batches: int
    failed_rows: int
    is_complete: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class PipelineEntry:
    """A pipeline in a cache.

    Attributes:
        signature: its signature, the directory's name.
        name: the pipeline's name; empty where its file can't be read.
        steps: its steps in the order of the file; none where it can't be read.
        leaf_steps: the steps that nothing follows.
        problem: why its file can't be read; None where it can.
    """

    signature: str
    name: str
    steps: tuple[StepEntry, ...]
    leaf_steps: tuple[str, ...]
    problem: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all its steps are."""
        return bool(self.steps) and all(step.is_complete for step in self.steps)


def list_pipelines(cache_dir: str, storage_options: Mapping[str, Any] | None = None) -> list[PipelineEntry]:
    """Describe all pipelines of a cache, by signature; nothing is written.

    Raises:
        CacheDirectoryError: the cache directory can't be read.
    """
    fs = CacheFileSystem(cache_dir, storage_options)
    return [describe_pipeline(fs, name) for name in fs.list_names("") if layout.is_pipeline_dir(name)]


def describe_pipeline(fs: CacheFileSystem, signature: str) -> PipelineEntry:
    """Describe one pipeline of a cache; nothing is written."""
    try:
        frozen = parse_frozen(read_pipeline_file(fs, signature), signature)
    except (FileNotFoundError, CacheError) as error:
        return PipelineEntry(signature, "", (), (), problem=str(error))
    steps = tuple(_describe_step(fs, step.name, step.signature) for step in frozen.steps)
    return PipelineEntry(signature, frozen.name, steps, frozen.leaf_steps)


def _describe_step(fs: CacheFileSystem, name: str, signature: str) -> StepEntry:
    store = StepStore(fs, name, signature)
    try:
        store.open()
        problem = store.problem
    except CacheError as error:
        problem = str(error)
    return StepEntry(
        name=name,
        signature=signature,
        rows=sum(record.size for record in store.records),
        batches=len(store.records),
        failed_rows=count_failed_rows(store.records),
        is_complete=store.is_complete and problem is None,
        problem=problem,
    )
