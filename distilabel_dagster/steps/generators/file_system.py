"""LoadDataFromFileSystem: rows of csv, JSON and parquet files, here or in an object store."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, PrivateAttr

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.batch import Row
from distilabel_dagster.errors import PipelineDefinitionError, StepProcessError
from distilabel_dagster.steps.generators.batching import iter_batches, iter_table_batches
from distilabel_dagster.steps.generators.data_files import DataFile, find_files
from distilabel_dagster.steps.generators.readers import (
    READ_ERRORS,
    Converters,
    infer_converters,
    iter_csv_rows,
    iter_json_rows,
    iter_parquet_pieces,
    iter_parquet_rows,
    peek_csv_columns,
    peek_json_columns,
    peek_parquet_columns,
)
from distilabel_dagster.steps.step import GeneratorStep, GeneratorStepOutput, GeneratorTableOutput

_PEEK = {"csv": peek_csv_columns, "json": peek_json_columns, "parquet": peek_parquet_columns}


class LoadDataFromFileSystem(GeneratorStep):
    r"""Give the rows of csv, JSON or parquet files, through fsspec.

    Files are read lazily, in the order of the list, and by path within a directory or glob. JSON files hold one
    object a line or one array of objects. A csv file has a header; a column is int, float or bool where each of its
    values in all files is written as one, and text otherwise (so are `007` and numbers of more digits than a float
    keeps); an empty field is None. For that, csv files are read twice. Text files may be compressed: `.gz`, `.bz2`,
    `.xz`, `.zst`. Of a directory, data files at any depth are read, those of the `split` where their names say one
    (`test.csv`, `test-00000.parquet`, `test/1.jsonl`); hidden files aren't.

    The signature has path, size and ETag or time of change of each file: changed files are read again, unchanged
    ones are not.

    Attributes:
        data_files: path or URL of a file or directory, a glob, or a list of those.
        filetype: "csv", "json" or "parquet"; by default the extension says it.
        split: which split of a directory to take; files named themselves are all "train".
        num_examples: how many rows to give at most; None for all.
        storage_options: passed to fsspec, such as credentials or an endpoint; not part of the signature.
        streaming: taken for distilabel's sake: files are always read lazily, so both values do the same.

    Runtime parameters:
        - `data_files`, `filetype`, `split`, `num_examples`, `storage_options`, `streaming`: as above.
        - `batch_size`: rows per batch.

    Output columns:
        - dynamic: those of the headers or schemas; for JSON, those of the first 100 rows.

    Examples:
        >>> import fsspec
        >>> fsspec.filesystem("memory").pipe("/numbers.csv", b"n,word\n1,one\n2,two\n3,three\n")
        >>> load = LoadDataFromFileSystem(data_files="memory://numbers.csv", batch_size=2)
        >>> load.outputs
        ['n', 'word']
        >>> load.load()
        >>> list(load.process(offset=1))
        [([{'n': 2, 'word': 'two'}, {'n': 3, 'word': 'three'}], True)]
    """

    data_files: RuntimeParameter[str | Path | list[str | Path]] = Field(
        default=None, description="The files: a path or URL, a directory, a glob, or a list of those."
    )
    filetype: RuntimeParameter[Literal["csv", "json", "jsonl", "parquet"]] | None = Field(
        default=None, description="How the files are read; by default their extension says it."
    )
    split: RuntimeParameter[str] = Field(default="train", description="The split of a directory to take.")
    num_examples: RuntimeParameter[PositiveInt] | None = Field(
        default=None, description="The number of rows to give at most; all by default."
    )
    storage_options: RuntimeParameter[dict[str, Any]] | None = Field(
        default=None, description="Options of the file system, such as credentials."
    )
    streaming: RuntimeParameter[bool] = Field(
        default=False, description="Without effect: files are always read lazily."
    )

    _converters: tuple[list[DataFile], int | None, Converters] | None = PrivateAttr(default=None)

    @property
    def outputs(self) -> StepColumns:
        """Columns of the files; as a dict where some rows lack some. Only headers and schemas are read.

        Raises:
            PipelineDefinitionError: the files are missing, of several types, or can't be read.
        """
        if self.data_files is None:
            return []
        files = self._find_files()
        with self._blaming_declaration():
            presence = _PEEK[self._kind(files)](files)
        return list(presence) if all(presence.values()) else presence

    def data_fingerprint(self) -> list[Any] | None:
        """Give path, size and ETag or time of change of each file, in the order they're read in."""
        if self.data_files is None:
            return None
        return [[file.url, *file.version] for file in self._find_files()]

    def load(self) -> None:
        """Check that the files are there.

        Raises:
            PipelineDefinitionError: they aren't, or they're of several types.
        """
        super().load()
        self._find_files()

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield the rows from `offset` on; what's before is skipped without being parsed.

        Raises:
            StepProcessError: a file is damaged; file and line are named.
        """
        files = self._find_files()
        with self._blaming_files():
            rows = self._iter_rows(files, offset)
            if self.num_examples is not None:
                rows = itertools.islice(rows, max(0, self.num_examples - offset))
            yield from iter_batches(rows, self.batch_size)

    def process_tables(self, offset: int = 0) -> GeneratorTableOutput | None:
        """Yield the rows of parquet files from `offset` on as tables; None for files of other types.

        Raises:
            StepProcessError: as `process`.
        """
        files = self._find_files()
        return self._iter_tables(files, offset) if self._kind(files) == "parquet" else None

    def _iter_tables(self, files: list[DataFile], offset: int) -> GeneratorTableOutput:
        most = None if self.num_examples is None else max(0, self.num_examples - offset)
        with self._blaming_files():
            yield from iter_table_batches(iter_parquet_pieces(files, offset), self.batch_size, most)

    def _iter_rows(self, files: list[DataFile], skip: int) -> Iterator[Row]:
        kind = self._kind(files)
        if kind == "json":
            return iter_json_rows(files, skip)
        if kind == "parquet":
            return iter_parquet_rows(files, skip)
        known = self._converters
        if known is None or known[:2] != (files, self.num_examples):
            known = self._converters = files, self.num_examples, infer_converters(files, self.num_examples)
        return iter_csv_rows(files, skip, known[2])

    def _kind(self, files: list[DataFile]) -> str:
        given = {"jsonl": "json"}.get(self.filetype or "", self.filetype)
        return given or str(files[0].filetype)

    def _find_files(self) -> list[DataFile]:
        if self.data_files is None:
            raise PipelineDefinitionError(
                f"Step `{self.name}` has no `data_files` to read. Name a file or directory."
            )
        kind = {"jsonl": "json"}.get(self.filetype or "", self.filetype)
        with self._blaming_declaration():
            return find_files(self.data_files, kind, self.split or "train", self.storage_options)

    @contextlib.contextmanager
    def _blaming_declaration(self) -> Iterator[None]:
        try:
            yield
        except READ_ERRORS as error:
            raise PipelineDefinitionError(
                f"Step `{self.name}` can't read its `data_files`: {error}"
            ) from error

    @contextlib.contextmanager
    def _blaming_files(self) -> Iterator[None]:
        try:
            yield
        except READ_ERRORS as error:
            raise StepProcessError(
                f"Step `{self.name}` can't go on reading {error} Rows before that are kept; mend the file, or leave "
                "it out.",
                step=self.name,
            ) from error
