"""Whether files that are read as a step's rows are that: one step's parts in order, and up to its end where it has ended.

Those who read `data/<step>/` file by file have nothing but the files. Each says in its footer whose it is and which
batches it holds, and the cache around them which step is meant and whether it's complete.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.footer import decode_footer
from distilabel_dagster.cache.frozen_pipeline import parse_frozen
from distilabel_dagster.cache.pipeline_cache import read_pipeline_file
from distilabel_dagster.errors import CacheError, DamagedFileError

_REMEDY = "Run the pipeline again, which puts the right one there, or restore it from a copy."


@dataclass(frozen=True, slots=True)
class Origin:
    """The cache that a pipeline's `data` directory is part of.

    Attributes:
        signatures: leaf step -> its signature, of the pipeline.
        complete: leaf steps that were complete when this was looked up.
    """

    signatures: Mapping[str, str]
    complete: frozenset[str]


def find_origin(pipeline_dir: str | None, storage_options: Mapping[str, Any] | None = None) -> Origin | None:
    """Find the cache around a pipeline's directory; None where the directory isn't in one, or its file can't be read.

    Args:
        pipeline_dir: path or URL of the directory above `data`.
        storage_options: passed to fsspec.
    """
    root, _, signature = (pipeline_dir or "").rstrip("/").rpartition("/")
    if not (root and layout.is_pipeline_dir(signature)):
        return None
    fs = CacheFileSystem(root, storage_options)
    try:
        frozen = parse_frozen(read_pipeline_file(fs, signature), signature)
    except (OSError, ValueError):
        return None
    leaves = {step.name: step.signature for step in frozen.steps if step.is_leaf}
    return Origin(leaves, frozenset(name for name, each in leaves.items() if _is_complete(fs, name, each)))


def check_shown_parts(
    footers: Mapping[str, bytes | None], directory: str, step: str, origin: Origin | None = None
) -> None:
    """Make sure that files are consecutive parts of one step; those of somebody else's, without footers, are let be.

    Args:
        footers: path of each file, in order, as one tells a user -> the footer's JSON, None where it has none.
        directory: where they are, as one tells a user.
        step: the step that they're read for; known to be right within a cache only.
        origin: the cache that they're shown in.

    Raises:
        DamagedFileError: one isn't what belongs there, or the last are missing; the message names it.
    """
    if not any(footers.values()):
        return
    owner = _find_owner(footers, step, origin)
    records: list[BatchRecord] = []
    for number, (path, footer) in enumerate(footers.items(), start=1):
        try:
            records += _read_next(footer or b"null", owner, number, records)
        except ValueError as error:
            raise DamagedFileError(
                f"{path} isn't the part that belongs there: {error}. {_REMEDY}", path=path
            ) from error
    if origin is not None and step in origin.complete and not records[-1].last_batch:
        raise DamagedFileError(
            f"{directory} lacks the last parts of step `{step}`, which is complete in the cache: it holds {len(records)} batches. "
            f"{_REMEDY}",
            path=directory,
        )


def _read_next(
    footer: bytes, owner: tuple[str, str], number: int, before: list[BatchRecord]
) -> list[BatchRecord]:
    records = decode_footer(footer, *owner, number)
    found = [record.seq_no for record in records]
    if not found or found != list(range(len(before), len(before) + len(found))):
        raise ValueError(f"batch {len(before)} should come next, and it holds {found[:3]}")
    if before and before[-1].last_batch:
        raise ValueError("the step's last batch stands before it")
    return records


def _find_owner(footers: Mapping[str, bytes | None], step: str, origin: Origin | None) -> tuple[str, str]:
    """Name and signature of the step whose parts the files should be."""
    if origin is not None and step in origin.signatures:
        return step, origin.signatures[step]
    first = json.loads(next(footer for footer in footers.values() if footer))
    return str(first.get("step_name")), str(first.get("signature"))


def _is_complete(fs: CacheFileSystem, step: str, signature: str) -> bool:
    try:
        return fs.exists(f"{layout.step_dir(step, signature)}/{layout.COMPLETE_FILE}")
    except CacheError:
        return False
