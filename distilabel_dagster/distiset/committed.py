"""Rows that are whole in the cache: looked through without holding them, and read when somebody wants them."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from distilabel_dagster.base.heavy_imports import importing_much
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.shown_parts import check_shown_parts
from distilabel_dagster.distiset.distiset import Distiset
from distilabel_dagster.distiset.features import has_features
from distilabel_dagster.distiset.loading import METADATA_COLUMN, list_parts, load_dataset, read_part
from distilabel_dagster.distiset.mapped_rows import read_ahead

if TYPE_CHECKING:
    from datasets import Dataset

_LOOK_AT_ROWS: Final = (
    *(
        "__contains__",
        "__delitem__",
        "__eq__",
        "__getitem__",
        "__ior__",
        "__iter__",
        "__len__",
        "__ne__",
        "__or__",
    ),
    *("__repr__", "__reversed__", "__ror__", "__setitem__"),
    *("clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"),
)
"""What a dict does with its content; all that a Distiset does goes through these."""


@dataclass(frozen=True, slots=True)
class CommittedRows:
    """Rows of a step that were read and found whole; annotate an asset's input with it to have just that.

    Attributes:
        fs: where they are.
        directory: relative path of the parts.
        step: the step.
        num_rows: how many there are.
        column_names: their columns.
    """

    fs: CacheFileSystem
    directory: str
    step: str
    num_rows: int
    column_names: tuple[str, ...]

    def load(self, *, enable_metadata: bool = True) -> "Dataset":
        """Read them as one dataset; raises what `load_dataset` does."""
        return load_dataset(self.fs, self.directory, self.step, enable_metadata)

    def name_columns(self, *, enable_metadata: bool) -> list[str]:
        """Give the columns that `load` gives."""
        return [name for name in self.column_names if enable_metadata or name != METADATA_COLUMN]


def check_rows(fs: CacheFileSystem, directory: str, step: str) -> CommittedRows:
    """Read the parts in a directory, every byte of them, and refuse what `load_dataset` refuses; hold a few at a time.

    `datasets`, whose import takes longer than many a pipeline, is left out of it wherever the columns have types that it
    takes in any case. Where they haven't, or parts differ in their columns, the rows are loaded to see.

    Args:
        fs: where the directory is.
        directory: relative path of a step's directory.
        step: the step's name, for messages.

    Raises:
        DistisetError, DamagedFileError, ColumnTypeError: as `load_dataset`.
    """
    paths = list_parts(fs, directory)
    footers: dict[str, bytes | None] = dict.fromkeys(map(fs.full_path, paths))
    num_rows = 0
    first: pa.Schema | None = None
    is_plain = True
    with contextlib.closing(read_ahead(lambda path: read_part(fs, path, True, footers), paths)) as parts:
        for part in parts:
            schema = part.table.schema
            num_rows += part.table.num_rows
            is_plain = is_plain and not has_features(schema) and schema.equals(first or schema)
            first = first or schema
    check_shown_parts(footers, fs.full_path(directory), step)
    if first is None or not first.names or not is_plain or not all(map(is_plain_type, first.types)):
        dataset = load_dataset(fs, directory, step)
        return CommittedRows(fs, directory, step, dataset.num_rows, tuple(dataset.column_names))
    return CommittedRows(fs, directory, step, num_rows, tuple(first.names))


def is_plain_type(kind: pa.DataType) -> bool:
    """Tell whether `datasets` is known to take a type as it is; of others only it can tell."""
    if pa.types.is_struct(kind):
        return all(is_plain_type(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return is_plain_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return kind.tz in (None, "UTC")
    return any(
        is_kind(kind)
        for is_kind in (
            *(
                pa.types.is_string,
                pa.types.is_integer,
                pa.types.is_floating,
                pa.types.is_boolean,
                pa.types.is_null,
            ),
            *(pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary),
            *(pa.types.is_date, pa.types.is_time, pa.types.is_duration),
        )
    )


class CommittedDistiset(Distiset):
    """A pipeline's Distiset whose rows are read when something of it is first looked at.

    Args:
        leaves: config -> its rows.
        enable_metadata: whether the column `distilabel_metadata` is kept.
        paths: as for `Distiset`.
    """

    def __init__(self, leaves: Mapping[str, CommittedRows], *, enable_metadata: bool, **paths: Any) -> None:
        super().__init__(**paths)
        self.leaves: Mapping[str, CommittedRows] = dict(leaves)
        self._enable_metadata = enable_metadata
        self._is_read = False

    def read(self) -> None:
        """Read the rows, unless that was done.

        Raises:
            DistisetError, DamagedFileError, ColumnTypeError: as `load_dataset`; the next look tries again.
        """
        if self._is_read:
            return
        with importing_much():
            from datasets import DatasetDict

        made = {
            name: DatasetDict({"train": rows.load(enable_metadata=self._enable_metadata)})
            for name, rows in self.leaves.items()
        }
        self._is_read = True
        self.update(made)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be copied and pickled as the Distiset that it stands for."""
        plain = Distiset(
            self,
            pipeline_path=self.pipeline_path,
            log_filename_path=self.log_filename_path,
            storage_options=self._storage_options,
        )
        return _give, (plain,)


def _give(distiset: Distiset) -> Distiset:
    return distiset


def _read_first(name: str) -> Callable[..., Any]:
    method = getattr(Distiset, name)

    def look(self: CommittedDistiset, *args: Any, **options: Any) -> Any:
        self.read()
        return method(self, *args, **options)

    look.__name__, look.__doc__ = name, method.__doc__
    return look


for _name in _LOOK_AT_ROWS:
    setattr(CommittedDistiset, _name, _read_first(_name))
