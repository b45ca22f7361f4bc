"""Columns that steps declare, and rows taken through input and output mappings."""

from collections.abc import Iterator
from typing import Any

from distilabel_dagster.errors import StepOutputError

Row = dict[str, Any]
Rows = list[Row]
StepColumns = list[str] | dict[str, bool]
"""Columns of a step: names, or name -> whether it's required (given, for outputs) in every row."""


def required_columns(columns: StepColumns) -> list[str]:
    """Give the names that are required."""
    return (
        [name for name, required in columns.items() if required]
        if isinstance(columns, dict)
        else list(columns)
    )


def all_columns(columns: StepColumns) -> list[str]:
    """Give all names, required or not."""
    return list(columns)


def map_inputs(rows: Rows, input_mappings: dict[str, str]) -> tuple[Rows, list[Row]]:
    """Rename columns to what the step calls them.

    Args:
        rows: rows of one predecessor, left as they are.
        input_mappings: the step's name -> the column's name.

    Returns:
        New rows under the step's names, and for each row the columns that had one of the step's names before and
        were covered by the renaming.
    """
    if not input_mappings:
        return [dict(row) for row in rows], [{} for _ in rows]
    renames: dict[str, list[str]] = {}
    for name, column in input_mappings.items():
        renames.setdefault(column, []).append(name)
    mapped, covered = [], []
    for row in rows:
        overridden = {
            name: row[name]
            for name, column in input_mappings.items()
            if name in row and name not in renames and column in row
        }
        mapped.append(
            {
                name: value
                for column, value in row.items()
                if column not in overridden
                for name in renames.get(column, [column])
            }
        )
        covered.append(overridden)
    return mapped, covered


def map_outputs(
    rows: Rows, input_mappings: dict[str, str], output_mappings: dict[str, str], covered: list[Row]
) -> Rows:
    """Undo `map_inputs` and rename the step's outputs.

    Where the step made more rows than it got, row i belongs to input row i % n: distilabel's rule for covered
    columns.
    """
    back = {**input_mappings, **output_mappings}
    restored = []
    for index, row in enumerate(rows):
        renamed = {back.get(column, column): value for column, value in row.items()}
        if covered:
            for column, value in covered[index % len(covered)].items():
                renamed.setdefault(column, value)
        restored.append(renamed)
    return restored


def check_rows(value: Any, step: str, said: str) -> Rows:
    """Return `value` if it's a list of dicts with string keys.

    Args:
        value: what the step gave.
        step: its name.
        said: the verb for the message: "yielded" or "returned".

    Raises:
        StepOutputError: it isn't; the message names what was found and where.
    """
    if not isinstance(value, list):
        hint = " Collect the rows in a list and yield that list once." if isinstance(value, dict) else ""
        raise StepOutputError(
            f"Step `{step}` {said} a {type(value).__name__}, expected a list of rows (dicts).{hint}",
            step=step,
        )
    columns: set[str] = set()
    for index, row in enumerate(value):
        if not isinstance(row, dict):
            raise StepOutputError(
                f"Step `{step}` {said} a list whose item {index} is a {type(row).__name__}, expected a dict per row.",
                step=step,
            )
        if row.keys() <= columns:
            continue
        for column in row:
            if not isinstance(column, str):
                raise StepOutputError(
                    f"Step `{step}` {said} a row {index} with the column {column!r}, which isn't a string.",
                    step=step,
                )
        columns |= row.keys()
    return value


def iter_lists(outputs: Any, step: str) -> Iterator[Rows]:
    """Go through what `process()` gave: each list of rows that it yields.

    Raises:
        StepOutputError: `process()` returned instead of yielding, or yielded something else than lists of dicts.
    """
    if not isinstance(outputs, Iterator):
        raise StepOutputError(
            f"Step `{step}`: `process()` returned a {type(outputs).__name__}, expected a generator. Write "
            "`yield rows` instead of `return rows`.",
            step=step,
        )
    for output in outputs:
        yield check_rows(output, step, "yielded")
