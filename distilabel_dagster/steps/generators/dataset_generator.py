"""What the steps that load datasets of the `datasets` library share: its rows, or the tables that they're in."""

import contextlib
import itertools
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
from pydantic import Field, PositiveInt, PrivateAttr

from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.batch import Row
from distilabel_dagster.cache.foreign_tables import widen_for_rows
from distilabel_dagster.errors import DistilabelDagsterError, StepLoadError, StepProcessError
from distilabel_dagster.steps.generators.batching import Piece, iter_batches, iter_table_batches
from distilabel_dagster.steps.step import (
    DEFAULT_BATCH_SIZE,
    GeneratorStep,
    GeneratorStepOutput,
    GeneratorTableOutput,
)

_PIECE_ROWS: Final = 1024


class DatasetGenerator(GeneratorStep):
    """A generator step that gives the rows of a dataset of the `datasets` library.

    Values come as Arrow has them: class labels as numbers, images and audio as bytes and path.

    Attributes:
        num_examples: how many rows to give at most; None for all.
        storage_options: passed to the file system, such as credentials; not part of the signature.
    """

    num_examples: RuntimeParameter[PositiveInt] | None = Field(
        default=None, description="The number of rows to give at most; all by default."
    )
    storage_options: RuntimeParameter[dict[str, Any]] | None = Field(
        default=None, description="Options of the file system, such as credentials."
    )

    _dataset: Any = PrivateAttr(default=None)

    @abstractmethod
    def _load_dataset(self) -> Any:
        """Open the dataset: one split."""

    @abstractmethod
    def _whence(self) -> str:
        """What messages call the dataset."""

    def load(self) -> None:
        """Open the dataset.

        Raises:
            StepLoadError: it can't be; the message has the reason.
        """
        super().load()
        with self._blaming(StepLoadError, "can't load", step=self.name):
            self._dataset = self._load_dataset()

    def unload(self) -> None:
        """Let go of the dataset."""
        super().unload()
        self._dataset = None

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield the rows from `offset` on.

        Raises:
            StepProcessError: the dataset can't be read further.
        """
        if self._dataset is None:
            self.load()
        with self._blaming(StepProcessError, "can't go on reading", step=self.name):
            rows = self._iter_rows(offset)
            if self.num_examples is not None:
                rows = itertools.islice(rows, max(0, self.num_examples - offset))
            yield from iter_batches(rows, self.batch_size)

    def process_tables(self, offset: int = 0) -> GeneratorTableOutput:
        """Yield the rows from `offset` on as the tables that the dataset is made of.

        Raises:
            StepProcessError: as `process`.
        """
        if self._dataset is None:
            self.load()
        with self._blaming(StepProcessError, "can't go on reading", step=self.name):
            most = None if self.num_examples is None else max(0, self.num_examples - offset)
            yield from iter_table_batches(self._iter_pieces(offset), self.batch_size, most)

    def _iter_rows(self, offset: int) -> Iterator[Row]:
        for table in self._iter_tables(offset, self.batch_size or DEFAULT_BATCH_SIZE):
            yield from table.to_pylist()

    def _iter_pieces(self, offset: int) -> Iterator[Piece]:
        size = self.batch_size or DEFAULT_BATCH_SIZE
        # What comes over the network is handed on as it comes.
        at_once = max(size, _PIECE_ROWS) if hasattr(self._dataset, "num_rows") else size
        for table in self._iter_tables(offset, at_once):
            widened = widen_for_rows(table)
            if widened is not None:
                yield widened
                continue
            for start in range(0, len(table), size):  # as few as fail together where they're read as rows
                yield table.slice(start, size).to_pylist()

    def _iter_tables(self, offset: int, size: int) -> Iterator[pa.Table]:
        dataset = self._dataset.with_format("arrow")
        if hasattr(dataset, "num_rows"):
            for start in range(offset, dataset.num_rows, size):
                yield dataset[start : start + size]
            return
        yield from (dataset.skip(offset) if offset else dataset).iter(batch_size=size)

    @contextlib.contextmanager
    def _blaming(self, error_class: type[DistilabelDagsterError], did: str, **data: Any) -> Iterator[None]:
        try:
            yield
        except DistilabelDagsterError:
            raise
        except _dataset_errors() as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise error_class(f"Step `{self.name}` {did} {self._whence()}: {reason}", **data) from error


def _dataset_errors() -> tuple[type[Exception], ...]:
    """What a missing or damaged dataset, the Hub, and the network on the way there can raise."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # The Hub's client has changed its HTTP library; its own error derives from that library's root.
    network = tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return (OSError, ValueError, RuntimeError, DatasetsError, *network)
