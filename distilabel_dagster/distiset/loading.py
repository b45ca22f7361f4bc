"""From the Parquet parts that a pipeline leaves to datasets, in memory or mapped into it."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from distilabel_dagster.base.heavy_imports import importing_much
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.footer import FOOTER_KEY
from distilabel_dagster.cache.parquet_reading import read_parquet, read_parquet_schema
from distilabel_dagster.cache.part_file import check_part, is_ours
from distilabel_dagster.cache.part_numbers import find_part_numbers
from distilabel_dagster.cache.shown_parts import Origin, check_shown_parts, find_origin
from distilabel_dagster.cache.tables import unite_schemas
from distilabel_dagster.distiset.distiset import Distiset, locate_beside, locate_file
from distilabel_dagster.distiset.features import merge_features, refuse_files_elsewhere
from distilabel_dagster.distiset.mapped_rows import PartRows, collect_rows
from distilabel_dagster.errors import (
    CacheDirectoryError,
    CacheError,
    ColumnTypeError,
    DamagedFileError,
    DistisetError,
)

if TYPE_CHECKING:
    from datasets import Dataset

METADATA_COLUMN: Final = "distilabel_metadata"
# What `datasets` raises of types that it doesn't know, and of descriptions that fit nothing.
_UNKNOWN: Final = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError)

_logger = logging.getLogger(__name__)


def create_distiset(
    data_dir: str | Path,
    pipeline_path: str | Path | None = None,
    log_filename_path: str | Path | None = None,
    enable_metadata: bool = False,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Distiset:
    """Read what a pipeline has committed of its leaf steps.

    Each directory of `data_dir` becomes a config of that name, with its rows, in the order of the parts, as split
    `train`. Columns are in the order in which they first appear; a column that only some parts have is null in the
    rows of the others. Up to 64 MB of rows are held in memory; more of them are written to a file below
    `HF_DATASETS_CACHE` and mapped into memory from there. Of a pipeline that hasn't ended the rows committed so far are
    given.

    Args:
        data_dir: the `data` directory of a pipeline in the cache, or the pipeline's directory above it: a local path
            (`~` is expanded) or an fsspec URL.
        pipeline_path: the pipeline's file; by default the `pipeline.yaml` beside `data`, where there is one.
        log_filename_path: the pipeline's log; by default the `pipeline.log` beside `data`, where there is one.
        enable_metadata: keep the column `distilabel_metadata` (raw inputs and outputs, token counts). False by
            default, as in distilabel; `Pipeline.run` hands on the pipeline's own setting.
        storage_options: passed to fsspec, such as credentials or an endpoint.

    Raises:
        DistisetError: there is no such directory, it holds no leaf step's rows, a part is missing between others, or
            a file named by `pipeline_path` or `log_filename_path` isn't there.
        DamagedFileError: a part can't be read as Parquet. None is ever skipped.
        ColumnTypeError: the parts hold a column in types that have no common one.

    Example:
        >>> distiset = create_distiset("~/my_cache_dir/73ca3f6b7a613fb9694db7631cc038d379f1f533/data")
        >>> distiset["generate_response"]["train"].num_rows
        80
    """
    with importing_much():
        from datasets import DatasetDict

    fs = CacheFileSystem(data_dir, storage_options)
    prefix, beside = _find_data(fs)
    origin = find_origin(beside, storage_options)
    leaves = {
        leaf: DatasetDict({"train": load_dataset(fs, directory, leaf, enable_metadata, origin)})
        for leaf, directory in _find_leaves(fs, prefix, origin)
    }
    return Distiset(
        leaves,
        pipeline_path=_given_or_beside(pipeline_path, beside, layout.PIPELINE_FILE, storage_options),
        log_filename_path=_given_or_beside(log_filename_path, beside, layout.LOG_FILE, storage_options),
        storage_options=storage_options,
    )


def load_dataset(
    fs: CacheFileSystem,
    directory: str,
    step: str,
    enable_metadata: bool = True,
    origin: Origin | None = None,
) -> "Dataset":
    """Read the parts in a directory, in the order of their numbers, as one dataset with split `train`.

    Args:
        fs: where the directory is.
        directory: relative path of a leaf step's directory, or of a step's in `steps_data`.
        step: the step's name, for messages.
        enable_metadata: False leaves out the column `distilabel_metadata`.
        origin: the cache that the parts are shown in, for a leaf step's directory.

    Raises:
        DistisetError: a part is missing.
        DamagedFileError: a part can't be read as Parquet, or isn't the one that belongs there.
        ColumnTypeError: a column has no type that holds it whole, or none that `datasets` knows.
    """
    with importing_much():
        from datasets import Dataset, Split

    paths = list_parts(fs, directory)
    footers: dict[str, bytes | None] = dict.fromkeys(map(fs.full_path, paths))
    table, fingerprint = collect_rows(
        paths,
        lambda path: read_part(fs, path, enable_metadata, footers),
        lambda schemas: _unite(schemas, step),
        lambda path: _read_schema(fs, path, enable_metadata),
        step,
    )
    check_shown_parts(footers, fs.full_path(directory), step, origin)
    try:
        dataset = Dataset(table, split=Split.TRAIN, fingerprint=fingerprint)
    except _UNKNOWN as error:
        raise _foreign_type_error(table.schema, step, error) from error
    refuse_files_elsewhere(dataset, fs.full_path(directory))
    return dataset


def _find_data(fs: CacheFileSystem) -> tuple[str, str | None]:
    """Where the leaves are, as a prefix of paths, and the directory with the pipeline's file, if known."""
    if not fs.exists(""):
        raise DistisetError(
            f"{fs.url} doesn't exist, so no Distiset can be made of it. Give the `data` directory of a pipeline in the "
            "cache, or the pipeline's directory above it; `distilabel-dagster cache list` shows them."
        )
    names = fs.list_names("")
    has_data = layout.DATA_DIR in names and not any(
        layout.part_number(name) for name in _list_directory(fs, layout.DATA_DIR) or ()
    )
    if has_data or layout.PIPELINE_FILE in names:
        return f"{layout.DATA_DIR}/", fs.url
    if fs.is_local:
        return "", str(Path(fs.root).parent)
    parent = fs.url.rpartition("/")[0]
    return "", None if parent.endswith(":/") else parent


def _find_leaves(fs: CacheFileSystem, prefix: str, origin: Origin | None) -> list[tuple[str, str]]:
    """Names and directories of the leaf steps that have parts."""
    leaves, others = [], []
    listed = fs.list_names(prefix.rstrip("/"))
    # A store's listing may lag behind, and the pipeline's file says what to ask for.
    known = set() if fs.is_local or origin is None else {*origin.signatures}
    for name in sorted({*listed, *known}):
        if name.startswith("."):
            continue
        found = _list_directory(fs, f"{prefix}{name}") or ()
        first = f"{prefix}{name}/{layout.part_name(1)}"
        if any(_is_part(part) for part in found) or (name in known and fs.exists(first)):
            leaves.append((name, f"{prefix}{name}"))
        elif name in listed:
            others.append(name)
    where = fs.full_path(prefix.rstrip("/"))
    if not leaves:
        raise DistisetError(_nothing_found(where, others))
    if others:
        _logger.warning("%s: left out, as it holds no rows of a leaf step: %s", where, _listed(others))
    return leaves


def _nothing_found(where: str, others: list[str]) -> str:
    message = f"{where} holds no rows of a leaf step: expected a directory per leaf step, with {layout.part_name(1)} in it"
    message += f", found {_listed(others)}. " if others else ", found nothing. "
    if any(_is_part(name) for name in others):
        return f"{message}This is a leaf step's own directory: give the one above it."
    if pipelines := [name for name in others if layout.is_pipeline_dir(name)]:
        return f"{message}This is a cache of several pipelines: give the directory of one, such as {where}/{pipelines[0]}."
    return f"{message}Give the `data` directory of a pipeline that has been run, or run the pipeline first."


def _list_directory(fs: CacheFileSystem, path: str) -> list[str] | None:
    """Names in a directory, or None where `path` is a file."""
    try:
        names = fs.list_names(path)
    except CacheDirectoryError as error:
        if isinstance(error.__cause__, NotADirectoryError):
            return None
        raise
    # A store lists a file as itself.
    return None if names == [path.rpartition("/")[2]] and not fs.exists(f"{path}/{names[0]}") else names


def _is_part(name: str) -> bool:
    number = layout.part_number(name)
    return number is not None and name == layout.part_name(number)


def list_parts(fs: CacheFileSystem, directory: str) -> list[str]:
    """Give the paths of a directory's parts by number, which begin at 1 and have no gap.

    Raises:
        DistisetError: a part is missing.
    """
    names = fs.list_names(directory)
    parts = [layout.part_name(number) for number in find_part_numbers(fs, directory, filter(_is_part, names))]
    others = [
        name
        for name in names
        if not _is_part(name) and not name.startswith(".") and name != layout.COMPLETE_FILE
    ]
    if others:
        _logger.warning("%s: not read, as they aren't parts: %s", fs.full_path(directory), _listed(others))
    for expected, name in enumerate(parts, start=1):
        if name != layout.part_name(expected):
            raise DistisetError(
                f"{fs.full_path(directory)}: expected {layout.part_name(expected)}, found {name} next. Rows are missing, "
                "so the rest isn't given as if it were whole. Run the pipeline again, or restore the missing part."
            )
    return [f"{directory}/{name}" for name in parts]


def read_part(
    fs: CacheFileSystem, path: str, enable_metadata: bool, footers: dict[str, bytes | None]
) -> PartRows:
    """Read a part, and note what its footer says of its batches.

    Args:
        fs: where it is.
        path: relative path of the part.
        enable_metadata: False leaves out the column `distilabel_metadata`.
        footers: gets the footer's JSON under the part's full path, None where it has none.

    Raises:
        DistisetError: it went away.
        DamagedFileError: it can't be read as Parquet.
    """
    with _reading(fs, path):
        content = fs.read_bytes(path)
        if is_ours(content):
            check_part(content)
        # The parts are read side by side already; a pool of Arrow's own can bring the process down when it ends.
        # Decoding the column `distilabel_metadata`, which often is most of the file, is left out where it can be.
        without = () if enable_metadata else (METADATA_COLUMN,)
        table = read_parquet(content, without=without, use_threads=False)
    footers[fs.full_path(path)] = (table.schema.metadata or {}).get(FOOTER_KEY)
    return PartRows(hashlib.blake2b(content + bytes([enable_metadata]), digest_size=16).digest(), table)


def _read_schema(fs: CacheFileSystem, path: str, enable_metadata: bool) -> pa.Schema:
    with _reading(fs, path), fs.open_input(path) as file:
        schema = read_parquet_schema(file)
    if enable_metadata or METADATA_COLUMN not in schema.names:
        return schema
    return schema.remove(schema.get_field_index(METADATA_COLUMN))


@contextlib.contextmanager
def _reading(fs: CacheFileSystem, path: str) -> Iterator[None]:
    """Say of a part what's wrong with it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DistisetError(
            f"{fs.full_path(path)} went away while it was read: a run is rewriting it. Try again when that has ended."
        ) from error
    except CacheError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DamagedFileError(
            f"{fs.full_path(path)} can't be read as Parquet: {error}. Run the pipeline again, which writes it anew, or "
            "restore it from a copy. Nothing was skipped.",
            path=fs.full_path(path),
        ) from error


def _foreign_type_error(schema: pa.Schema, step: str, error: Exception) -> ColumnTypeError:
    from datasets import Dataset
    from datasets.table import InMemoryTable

    column = schema.names[-1] if schema.names else ""
    for field in schema:
        try:
            Dataset(InMemoryTable(pa.schema([field]).empty_table()))
        except _UNKNOWN:
            column = field.name
            break
    return ColumnTypeError(
        f"Step `{step}`: column `{column}` can't be part of a `datasets.Dataset`: {error} Make the step give it in another "
        "type; the Parquet parts themselves are whole.",
        step=step,
        column=column,
    )


def _unite(schemas: list[pa.Schema], step: str) -> pa.Schema:
    """One schema for all parts; of their metadata only what describes HF features stays."""
    return unite_schemas(schemas, step).with_metadata(merge_features(schemas, step))


def _given_or_beside(
    given: str | Path | None, directory: str | None, name: str, storage_options: Mapping[str, Any] | None
) -> str | Path | None:
    """The file that was named, which has to be there, or the one of that name in `directory`, if it is."""
    if given is not None:
        found = locate_file(given, storage_options)
        if found is None:
            raise DistisetError(
                f"{given} doesn't exist. Leave it out to take the {name} beside the data, if there is one."
            )
        return found
    return None if directory is None else locate_beside(CacheFileSystem(directory, storage_options), name)


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
