"""Steps that rearrange columns: KeepColumns, ExpandColumns, GroupColumns, CombineOutputs."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
from pydantic import field_validator, model_validator
from typing_extensions import Self

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.batch import Row, Rows
from distilabel_dagster.errors import MisalignedBranchesError, StepProcessError
from distilabel_dagster.steps.step import Step, StepInput, StepOutput

METADATA_COLUMN: Final = "distilabel_metadata"
"""Column in which tasks put what they know of a row's making."""


def _check_columns(columns: list[str]) -> list[str]:
    if not columns:
        raise ValueError("no column is named; name at least one")
    double = next((column for column in columns if columns.count(column) > 1), None)
    if double is not None:
        raise ValueError(f"`{double}` is named twice; name each column once")
    return columns


class KeepColumns(Step):
    """Keep the named columns, in the order they're named in, and drop all others.

    Attributes:
        columns: the columns to keep. One that a row lacks is None there.

    Input columns:
        - dynamic: those in `columns`.

    Output columns:
        - dynamic: those in `columns`.

    Examples:
        >>> keep = KeepColumns(columns=["instruction", "generation"])
        >>> keep.run_process([{"generation": "white", "model_name": "m", "instruction": "Brightest color?"}])
        [{'instruction': 'Brightest color?', 'generation': 'white'}]
    """

    columns: list[str]

    _check = field_validator("columns")(_check_columns)

    @property
    def inputs(self) -> StepColumns:
        """The columns to keep."""
        return self.columns

    @property
    def outputs(self) -> StepColumns:
        """The columns to keep."""
        return self.columns

    def process(self, inputs: StepInput) -> StepOutput:  # type: ignore[override]  # it takes one predecessor
        """Yield the rows with nothing but the columns to keep."""
        yield [{column: row.get(column) for column in self.columns} for row in inputs]

    def process_table(self, table: pa.Table) -> pa.Table:
        """Give the table with nothing but the columns to keep."""
        there = set(table.column_names)
        if there.issuperset(self.columns):
            return table.select(self.columns)
        missing = pa.nulls(table.num_rows)
        return pa.table(
            {column: table.column(column) if column in there else missing for column in self.columns}
        )


class ExpandColumns(Step):
    """Make a row of each item of the lists in one or several columns; other columns are repeated.

    Lists in several columns go together: the first items make the first row, and so on, so they must be equally
    long. An empty list gives no row. None instead of a list (a failed row of the step before) gives one row with
    None, so that the failure stays visible.

    Attributes:
        columns: the columns that hold lists; or column -> the column that its items go to, which leaves the list
            where it is.
        encoded: True where the columns hold lists as JSON text, or the names of those that do.
        split_statistics: whether token counts in `distilabel_metadata` are parted among the new rows, so that
            their sum stays the same. Metadata of grouped generations, a list as long as the column's, is parted
            item by item.

    Input columns:
        - dynamic: those in `columns`.

    Output columns:
        - dynamic: those that the items go to.

    Examples:
        >>> expand = ExpandColumns(columns=["generation"])
        >>> expand.run_process([{"instruction": "Name two.", "generation": ["one", "two"]}])
        [{'instruction': 'Name two.', 'generation': 'one'}, {'instruction': 'Name two.', 'generation': 'two'}]

        Lists as JSON text, into a column of their own:

        >>> expand = ExpandColumns(columns={"found": "item"}, encoded=True)
        >>> expand.run_process([{"found": '["a", "b"]'}])
        [{'found': ['a', 'b'], 'item': 'a'}, {'found': ['a', 'b'], 'item': 'b'}]

        Token counts that add up:

        >>> counts = {"statistics_ask": {"input_tokens": [9], "output_tokens": [3]}}
        >>> expand = ExpandColumns(columns=["q"], split_statistics=True)
        >>> rows = expand.run_process([{"q": ["a", "b"], "distilabel_metadata": counts}])
        >>> [row["distilabel_metadata"]["statistics_ask"] for row in rows]
        [{'input_tokens': [5], 'output_tokens': [2]}, {'input_tokens': [4], 'output_tokens': [1]}]
    """

    columns: dict[str, str]
    encoded: bool | list[str] = False
    split_statistics: bool = False

    @field_validator("columns", mode="before")
    @classmethod
    def _map_to_themselves(cls, columns: Any) -> Any:
        if isinstance(columns, list):
            return {column: column for column in _check_columns(columns)}
        return columns

    @field_validator("columns")
    @classmethod
    def _check_targets(cls, columns: dict[str, str]) -> dict[str, str]:
        _check_columns([target or column for column, target in columns.items()])
        return {column: target or column for column, target in columns.items()}

    @model_validator(mode="after")
    def _check_encoded(self) -> Self:
        named = self.encoded if isinstance(self.encoded, list) else []
        unknown = [name for name in named if name not in self.columns]
        if unknown:
            raise ValueError(f"`encoded` names {unknown}, which `columns` doesn't: {list(self.columns)}")
        return self

    @property
    def inputs(self) -> StepColumns:
        """The columns to expand."""
        return list(self.columns)

    @property
    def outputs(self) -> StepColumns:
        """The columns that the items go to."""
        return list(self.columns.values())

    def process(self, inputs: StepInput) -> StepOutput:  # type: ignore[override]  # it takes one predecessor
        """Yield the expanded rows, those of each input row together.

        Raises:
            StepProcessError: a value is no list or no JSON text of one, or lists of a row differ in length.
        """
        yield [expanded for index, row in enumerate(inputs) for expanded in self._iter_expanded(index, row)]

    def _iter_expanded(self, index: int, row: Row) -> Iterator[Row]:
        lists = {column: self._list_of(index, column, row.get(column)) for column in self.columns}
        lengths = {column: len(items) for column, items in lists.items() if items is not None}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"`{column}` {length}" for column, length in lengths.items())
            self._refuse(index, f"has lists of different lengths: {told}. Expand them in steps of their own.")
        count = next(iter(lengths.values()), 1)
        row = {**row, **{column: items for column, items in lists.items() if items is not None}}
        metadata = self._part_metadata(row, count)
        for item in range(count):
            values = {
                target: None if items is None else items[item]
                for (column, target), items in zip(self.columns.items(), lists.values(), strict=True)
            }
            yield {**row, **values, **({METADATA_COLUMN: metadata[item]} if metadata else {})}

    def _list_of(self, index: int, column: str, value: Any) -> list[Any] | None:
        encoded = column in self.encoded if isinstance(self.encoded, list) else self.encoded
        if encoded and isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                self._refuse(index, f"holds no JSON in `{column}`: {error}.")
        if hasattr(value, "tolist"):
            value = value.tolist()
        if value is None or isinstance(value, list):
            return value
        if isinstance(value, tuple):
            return list(value)
        hint = " If it's JSON, pass `encoded=True`." if isinstance(value, str) and not encoded else ""
        self._refuse(index, f"holds a {type(value).__name__} in `{column}`, expected a list.{hint}")
        return None

    def _refuse(self, index: int, problem: str) -> None:
        raise StepProcessError(f"Step `{self.name}`: row {index} of the batch {problem}", step=self.name)

    def _part_metadata(self, row: Row, count: int) -> list[Any]:
        metadata = row.get(METADATA_COLUMN)
        if not self.split_statistics or not metadata or METADATA_COLUMN in self.columns:
            return []
        if isinstance(metadata, list):
            return metadata if len(metadata) == count else []
        return [
            {key: _share_statistics(key, value, item, count) for key, value in metadata.items()}
            for item in range(count)
        ]


def _share_statistics(key: str, value: Any, item: int, count: int) -> Any:
    """The share of one of `count` rows; the first rows take what can't be parted evenly."""
    if not key.startswith("statistics_") or not isinstance(value, dict):
        return value

    def share(amount: Any) -> Any:
        if isinstance(amount, list):
            return [share(each) for each in amount]
        if isinstance(amount, int) and not isinstance(amount, bool):
            return amount // count + (item < amount % count)
        return amount

    return {name: share(amount) if name.endswith("_tokens") else amount for name, amount in value.items()}


class GroupColumns(Step):
    """Join rows of several predecessors by position, and put columns that they share into lists.

    Row i of each predecessor makes output row i. The values of a column in `columns` go into one list, in the order
    of the predecessors; those that lack the column are left out. Of any other column the last predecessor's value
    stays. `distilabel_metadata` is merged.

    Attributes:
        columns: the columns to group.
        output_columns: what the lists are called; `grouped_<column>` by default.

    Input columns:
        - dynamic: those in `columns`.

    Output columns:
        - dynamic: those in `output_columns`.

    Examples:
        >>> group = GroupColumns(columns=["generation"], output_columns=["generations"])
        >>> group.run_process([{"q": "?", "generation": "a"}], [{"q": "?", "generation": "b"}])
        [{'q': '?', 'generations': ['a', 'b']}]
    """

    columns: list[str]
    output_columns: list[str] | None = None

    _check = field_validator("columns")(_check_columns)

    @model_validator(mode="after")
    def _check_outputs(self) -> Self:
        if self.output_columns is not None:
            _check_columns(self.output_columns)
            if len(self.output_columns) != len(self.columns):
                raise ValueError(
                    f"`output_columns` names {len(self.output_columns)} columns and `columns` {len(self.columns)}; "
                    "name one for each"
                )
        return self

    @property
    def inputs(self) -> StepColumns:
        """The columns to group."""
        return self.columns

    @property
    def outputs(self) -> StepColumns:
        """What the lists are called."""
        return self.output_columns or [f"grouped_{column}" for column in self.columns]

    def process(self, *inputs: StepInput) -> StepOutput:
        """Yield one row for each position.

        Raises:
            MisalignedBranchesError: the predecessors gave different numbers of rows.
        """
        names = dict(zip(self.columns, self.outputs, strict=True))
        yield [self._group(rows, names) for rows in _align(self.name, inputs)]

    def _group(self, rows: tuple[Row, ...], names: dict[str, str]) -> Row:
        grouped: Row = {}
        for row in rows:
            for column, value in row.items():
                if column in names:
                    grouped.setdefault(names[column], []).append(value)
                else:
                    grouped[column] = value
        return _with_merged_metadata(
            {**grouped, **{name: grouped.get(name, []) for name in names.values()}}, rows
        )


class CombineOutputs(Step):
    """Join rows of several predecessors by position into one row with all their columns.

    Row i of each predecessor makes output row i. Of a column that several give, the last predecessor's value stays;
    `distilabel_metadata` is merged.

    Input columns:
        - dynamic: every column of the predecessors.

    Output columns:
        - dynamic: every column of the predecessors.

    Examples:
        >>> combine = CombineOutputs()
        >>> combine.run_process([{"a": 1}, {"a": 2}], [{"b": 3}, {"b": 4}])
        [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    """

    def process(self, *inputs: StepInput) -> StepOutput:
        """Yield one row for each position.

        Raises:
            MisalignedBranchesError: the predecessors gave different numbers of rows.
        """
        joined: Rows = []
        for rows in _align(self.name, inputs):
            row = {column: value for each in rows for column, value in each.items()}
            joined.append(_with_merged_metadata(row, rows))
        yield joined


def _align(step: str, inputs: tuple[Rows, ...]) -> Iterator[tuple[Row, ...]]:
    if len({len(rows) for rows in inputs}) > 1:
        counts = {f"predecessor {number}": len(rows) for number, rows in enumerate(inputs, start=1)}
        raise MisalignedBranchesError(step, counts, "in one batch")
    return zip(*inputs, strict=True)


def _with_merged_metadata(row: Row, rows: tuple[Row, ...]) -> Row:
    """Put the metadata of all rows into `row`.

    Where a row's is a list (grouped generations) the result is a list of all; otherwise keys are united, and what
    several rows say under one key becomes a list.
    """
    metadata = [each[METADATA_COLUMN] for each in rows if each.get(METADATA_COLUMN)]
    if not metadata:
        return row
    if any(isinstance(each, list) for each in metadata):
        lists = (each if isinstance(each, list) else [each] for each in metadata)
        return {**row, METADATA_COLUMN: list(itertools.chain.from_iterable(lists))}
    said: dict[str, list[Any]] = {}
    for each in metadata:
        for key, value in each.items():
            said.setdefault(key, []).append(value)
    merged = {key: values[0] if len(values) == 1 else values for key, values in said.items()}
    return {**row, METADATA_COLUMN: merged}
