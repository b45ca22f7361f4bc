"""Every metadata key, and what stands under it."""

import json
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg
import pyarrow as pa

from distilabel_dagster.batch import Rows

ROW_COUNT: Final = "dagster/row_count"
URI: Final = "dagster/uri"
COLUMN_SCHEMA: Final = "dagster/column_schema"
COLUMN_LINEAGE: Final = "dagster/column_lineage"
PARTITION_TAG: Final = "dagster/partition"
BATCHES_COMPUTED: Final = "distilabel/batches_computed"
BATCHES_REUSED: Final = "distilabel/batches_reused"
ROWS_FAILED: Final = "distilabel/rows_failed"
DURATION_S: Final = "distilabel/duration_s"
STEP_SIGNATURE: Final = "distilabel/step_signature"
PREVIEW: Final = "distilabel/preview"
CONFIGS: Final = "distilabel/configs"
STEP_CLASS: Final = "distilabel/step_class"
STEP: Final = "distilabel/step"
ENABLE_METADATA: Final = "distilabel/enable_metadata"
"""On the Distiset's asset only: whether it keeps the column `distilabel_metadata`."""

PREVIEW_ROWS: Final = 3
_CELL: Final = 120


def describe_rows(row_count: int, uri: str, schema: pa.Schema, preview: Rows) -> dict[str, Any]:
    """Give the metadata of stored rows: their number, place, columns and the first few of them."""
    columns = [dg.TableColumn(field.name, str(field.type), None) for field in schema]
    described: dict[str, Any] = {
        ROW_COUNT: row_count,
        URI: uri,
        COLUMN_SCHEMA: dg.MetadataValue.table_schema(dg.TableSchema(columns=columns)),
    }
    if preview:
        described[PREVIEW] = dg.MetadataValue.md(_preview(preview))
    return described


def _preview(rows: Rows) -> str:
    """A Markdown table; what rows hold can't break out of its cells."""
    names = list(rows[0])
    lines = ["| " + " | ".join(map(_cell, names)) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows[:PREVIEW_ROWS]]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = " ".join(text.split())
    text = text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
    for char in "\\`*_{}[]<>#|!":
        text = text.replace(char, f"\\{char}")
    return text


def describe_lineage(
    columns: list[str],
    inputs: list[str],
    outputs: list[str],
    predecessors: Mapping[dg.AssetKey, list[str]],
) -> dg.TableColumnLineage:
    """Say which columns of its predecessors each column of a step comes from.

    A column that the step declares as its output comes from the columns that it reads; any other from the column of
    the same name.
    """
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for column in columns:
        wanted = inputs if column in outputs else [column]
        found = [
            dg.TableColumnDep(asset_key=key, column_name=name)
            for key, known in predecessors.items()
            for name in wanted
            if name in known
        ]
        if found:
            deps[column] = found
    return dg.TableColumnLineage(deps_by_column=deps)
