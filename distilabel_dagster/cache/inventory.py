"""What a cache holds: its pipelines, and how far each is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distilabel_dagster.base.signature import is_signature
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
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
    """

    name: str
    signature: str
    rows: int
    batches: int
    failed_rows: int
    is_complete: bool


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
        content = read_pipeline_file(fs, signature)
    except (FileNotFoundError, CacheError) as error:
        return PipelineEntry(signature, "", (), (), problem=str(error))
    signatures = (content.get("signatures") or {}).get("steps") or {}
    steps = tuple(
        _describe_step(fs, str(name), str(each))
        for name, each in signatures.items()
        if is_signature(str(each))
    )
    followed = {str(entry.get("from")) for entry in content["pipeline"].get("connections") or []}
    leaves = tuple(step.name for step in steps if step.name not in followed)
    return PipelineEntry(signature, str(content["pipeline"].get("name") or ""), steps, leaves)


def _describe_step(fs: CacheFileSystem, name: str, signature: str) -> StepEntry:
    store = StepStore(fs, name, signature)
    store.open()
    return StepEntry(
        name=name,
        signature=signature,
        rows=sum(record.size for record in store.records),
        batches=len(store.records),
        failed_rows=count_failed_rows(store.records),
        is_complete=store.is_complete,
    )
