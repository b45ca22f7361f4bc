"""Steps whose rows are given in the code: LoadDataFromDicts, and what it shares with DataSampler."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from distilabel_dagster.base.active_pipeline import StepRegistry
from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.base.serializable import TYPE_INFO
from distilabel_dagster.base.signature import canonical_json
from distilabel_dagster.batch import Rows
from distilabel_dagster.errors import (
    PipelineDefinitionError,
    PipelineFileError,
    RuntimeParameterError,
    SerializationError,
)
from distilabel_dagster.steps.generators.batching import iter_batches
from distilabel_dagster.steps.resources import StepResources
from distilabel_dagster.steps.step import DEFAULT_BATCH_SIZE, GeneratorStep, GeneratorStepOutput

INLINE_LIMIT_BYTES: Final = 1024 * 1024
"""Rows whose JSON is longer aren't written into a pipeline file."""

_FINGERPRINT = "data_fingerprint"
_ROWS = "data_rows"
_COLUMNS = "data_columns"


@dataclass(frozen=True, slots=True)
class _StoredData:
    """What a pipeline file says of rows that it doesn't hold."""

    fingerprint: str
    rows: int
    columns: dict[str, bool]


class RowsGenerator(GeneratorStep):
    """A generator step that is given its rows, as `data`.

    The rows make the step's signature, by their content. In a pipeline file they stand themselves where JSON can
    hold them without loss in 1 MiB, and else just their fingerprint, number and columns: a step made from such a
    file has the same signature, so that it reuses what the cache has, but it needs the rows to make any.

    Attributes:
        data: the rows; a copy of the list and of each dict is kept.
    """

    data: RuntimeParameter[list[dict[str, Any]]] = Field(
        default=None, exclude=True, description="The rows: a list of dicts."
    )

    _stored: _StoredData | None = PrivateAttr(default=None)
    _fingerprinted: tuple[list[dict[str, Any]], int, str] | None = PrivateAttr(default=None)
    _columns: tuple[list[dict[str, Any]], int, dict[str, bool]] | None = PrivateAttr(default=None)

    def __init__(self, **data: Any) -> None:
        stored = {name: data.pop(name) for name in (_FINGERPRINT, _ROWS, _COLUMNS) if name in data}
        super().__init__(**data)
        if stored:
            self._stored = _read_stored(stored, self.name)

    def missing_runtime_parameters(self) -> list[str]:
        """Give the runtime parameters that must be set and aren't.

        Rows that a pipeline file only tells the fingerprint of aren't missing: the cache may have all that they
        would give.
        """
        missing = super().missing_runtime_parameters()
        return [name for name in missing if name != "data" or self._stored is None]

    def data_fingerprint(self) -> str | None:
        """Hash the rows by their content; the order of rows counts, that of a row's columns doesn't.

        It's computed once for a list: assign a new list instead of changing the rows of this one.

        Raises:
            SerializationError: a value isn't data; row and column are named.
        """
        if self.data is None:
            return self._stored.fingerprint if self._stored else None
        known = self._fingerprinted
        if known is None or known[0] is not self.data or known[1] != len(self.data):
            known = self._fingerprinted = self.data, len(self.data), self._hash_rows(self.data)
        return known[2]

    def _hash_rows(self, rows: Rows) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for index, row in enumerate(rows):
            try:
                digest.update(canonical_json(row).encode("utf-8", "surrogatepass") + b"\n")
            except SerializationError as error:
                column = next((name for name, value in row.items() if not _is_data(value)), "?")
                raise SerializationError(
                    f"Step `{self.name}`: row {index} of `data`, column `{column}`: {error}",
                    step=self.name,
                    column=column,
                ) from error
        return digest.hexdigest()

    def column_presence(self) -> dict[str, bool]:
        """Give the columns of all rows, in the order of their first appearance -> whether each row has it."""
        if self.data is None:
            return dict(self._stored.columns) if self._stored else {}
        known = self._columns
        if known is None or known[0] is not self.data or known[1] != len(self.data):
            counts: dict[str, int] = {}
            for row in self.data:
                for column in row:
                    counts[column] = counts.get(column, 0) + 1
            presence = {column: count == len(self.data) for column, count in counts.items()}
            known = self._columns = self.data, len(self.data), presence
        return dict(known[2])

    def dump(self) -> dict[str, Any]:
        """Give the fields as plain data; the rows themselves, or what identifies them, are among them."""
        dumped = super().dump()
        type_info = dumped.pop(TYPE_INFO)
        return {**dumped, **self._dump_rows(), TYPE_INFO: type_info}

    def _dump_rows(self) -> dict[str, Any]:
        if self.data is None and self._stored is None:
            return {}
        inlined = _copy_as_json(self.data) if self.data is not None else None
        if inlined is not None:
            return {"data": inlined}
        rows = len(self.data) if self.data is not None else self._stored.rows if self._stored else 0
        columns: dict[str, list[str]] = {"in_all_rows": [], "in_some_rows": []}
        for column, in_all in self.column_presence().items():
            columns["in_all_rows" if in_all else "in_some_rows"].append(column)
        return {_FINGERPRINT: self.data_fingerprint(), _ROWS: rows, _COLUMNS: columns}

    def load(self) -> None:
        """Check that the rows are there.

        Raises:
            RuntimeParameterError: they aren't; the message says how to pass them.
        """
        super().load()
        self._rows()

    def _rows(self) -> Rows:
        if self.data is not None:
            return self.data
        remedy = f'Pass the rows: `run(parameters={{"{self.name}": {{"data": [...]}}}})`.'
        if self._stored is None:
            raise RuntimeParameterError(f"Step `{self.name}` has no `data` to make rows of. {remedy}")
        raise RuntimeParameterError(
            f"Step `{self.name}` was made from a pipeline file that holds only the fingerprint of its "
            f"{self._stored.rows} rows (they are larger than {INLINE_LIMIT_BYTES} bytes of JSON, or JSON can't hold "
            f"them), and the cache doesn't have all that they give. {remedy} Rows with the fingerprint "
            f"{self._stored.fingerprint} continue the same pipeline."
        )


class LoadDataFromDicts(RowsGenerator):
    """Give the rows of a list.

    Rows may have different columns. They're handed on as they are, each as a copy of its dict.

    Attributes:
        data: the rows.

    Runtime parameters:
        - `data`: the rows.
        - `batch_size`: rows per batch.

    Output columns:
        - dynamic: every column that some row has.

    Examples:
        >>> load = LoadDataFromDicts(data=[{"instruction": "What is 2+2?"}] * 3, batch_size=2)
        >>> load.load()
        >>> next(load.process())
        ([{'instruction': 'What is 2+2?'}, {'instruction': 'What is 2+2?'}], False)

        A resume starts behind the rows that are there already:

        >>> list(load.process(offset=2))
        [([{'instruction': 'What is 2+2?'}], True)]
    """

    @property
    def outputs(self) -> StepColumns:
        """Every column of the rows; as a dict where some rows lack some."""
        presence = self.column_presence()
        return list(presence) if all(presence.values()) else presence

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield the rows from `offset` on."""
        rows = self._rows()
        yield from iter_batches((dict(rows[index]) for index in range(offset, len(rows))), self.batch_size)


def make_generator_step(
    dataset: Any,
    pipeline: StepRegistry | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    output_mappings: dict[str, str] | None = None,
    resources: StepResources | None = None,
) -> LoadDataFromDicts:
    """Make the step that gives the rows of a dataset which is in memory.

    Args:
        dataset: list of dicts, `datasets.Dataset`, `pandas.DataFrame` (its index is left out) or `pyarrow.Table`.
        pipeline: the pipeline that gets the step; by default the one whose `with` block is running.
        batch_size: rows per batch.
        output_mappings: column of the dataset -> what it's called in the rows.
        resources: what the step asks of the machine.

    Raises:
        PipelineDefinitionError: `dataset` is none of these.

    Examples:
        >>> make_generator_step([{"n": 1}]).outputs
        ['n']
    """
    return LoadDataFromDicts(
        data=_rows_of(dataset),
        pipeline=pipeline,
        batch_size=batch_size,
        output_mappings=output_mappings or {},
        resources=resources or StepResources(),
    )


def _rows_of(dataset: Any) -> Rows:
    root = type(dataset).__module__.partition(".")[0]
    name = type(dataset).__name__
    if isinstance(dataset, list):
        return dataset
    if (root, name) == ("datasets", "Dataset"):
        dataset = dataset.with_format("arrow")[:]
    elif (root, name) == ("pandas", "DataFrame"):
        import pyarrow as pa

        dataset = pa.Table.from_pandas(dataset, preserve_index=False)
    elif (root, name) != ("pyarrow", "Table"):
        raise PipelineDefinitionError(
            f"A {root}.{name} can't be a pipeline's dataset. Give a list of dicts, a datasets.Dataset (one split), "
            "a pandas.DataFrame or a pyarrow.Table."
        )
    rows: Rows = dataset.to_pylist()
    return rows


class _StoredFields(BaseModel):
    """How that stands in the file: as values, since names of columns as keys could be mistaken for keys of ours."""

    model_config = ConfigDict(extra="forbid", strict=True)

    data_fingerprint: str
    data_rows: int
    data_columns: dict[Literal["in_all_rows", "in_some_rows"], list[str]]


def _read_stored(stored: dict[str, Any], step: str) -> _StoredData:
    try:
        fields = _StoredFields.model_validate(stored)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, each['loc']))}`: {each['msg']}" for each in error.errors())
        raise PipelineFileError(
            f"Step `{step}`: what stands in the file for its rows can't be read: {problems}. The file is damaged; "
            "pass the rows as `data`.",
            source=f"step {step}",
        ) from error
    columns = dict.fromkeys(fields.data_columns.get("in_all_rows", []), True)
    columns.update(dict.fromkeys(fields.data_columns.get("in_some_rows", []), False))
    return _StoredData(fields.data_fingerprint, fields.data_rows, columns)


def _is_data(value: Any) -> bool:
    try:
        canonical_json(value)
    except SerializationError:
        return False
    return True


def _copy_as_json(rows: Rows) -> Rows | None:
    """Copy rows through JSON; None where that loses something or takes more than the limit.

    A key `type_info` marks objects in a pipeline file, so rows with such a key aren't written there.
    """
    copies: Rows = []
    size_bytes = 0
    for row in rows:
        try:
            text = json.dumps(row, allow_nan=False)
            size_bytes += len(json.dumps(row, ensure_ascii=False).encode())
        except (TypeError, ValueError):
            return None
        copy = json.loads(text)
        if size_bytes > INLINE_LIMIT_BYTES or f'"{TYPE_INFO}"' in text or copy != row:
            return None
        copies.append(copy)
    return copies
