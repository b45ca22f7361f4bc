"""Every metadata key, and what stands under it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import dagster as dg
import pyarrow as pa

from distilabel_dagster.batch import Rows
from distilabel_dagster.engine.plan import StepPlan
from distilabel_dagster.ledger.usage import Usage

ROW_COUNT: Final = "dagster/row_count"
URI: Final = "dagster/uri"
COLUMN_SCHEMA: Final = "dagster/column_schema"
COLUMN_LINEAGE: Final = "dagster/column_lineage"
PARTITION_TAG: Final = "dagster/partition"
PROCESS_TAG: Final = "distilabel/process"
BATCHES_COMPUTED: Final = "distilabel/batches_computed"
BATCHES_REUSED: Final = "distilabel/batches_reused"
ROWS_FAILED: Final = "distilabel/rows_failed"
DURATION_S: Final = "distilabel/duration_s"
LLM_CALLS: Final = "distilabel/llm_calls"
LLM_CALLS_REUSED: Final = "distilabel/llm_calls_reused"
INPUT_TOKENS: Final = "distilabel/input_tokens"
OUTPUT_TOKENS: Final = "distilabel/output_tokens"
COST_USD: Final = "distilabel/cost_usd"
CALLS_WITHOUT_PRICE: Final = "distilabel/calls_without_price"
FAILED_ATTEMPTS: Final = "distilabel/failed_attempts"
PLANNED_CALLS: Final = "distilabel/planned_calls"
PLANNED_CALLS_IN_LEDGER: Final = "distilabel/planned_calls_in_ledger"
PLANNED_INPUT_TOKENS: Final = "distilabel/planned_input_tokens"
PLANNED_OUTPUT_TOKENS: Final = "distilabel/planned_output_tokens"
PLANNED_COST_USD: Final = "distilabel/planned_cost_usd"
PLAN_IS_ESTIMATED: Final = "distilabel/plan_is_estimated"
PLAN_IS_OPEN: Final = "distilabel/plan_is_open"
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
    return make_markdown_table(names, [[row.get(name) for name in names] for row in rows[:PREVIEW_ROWS]])


def make_markdown_table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Make a Markdown table; no text can break out of its cell."""
    lines = ["| " + " | ".join(map(_cell, titles)) + " |", "|" + " --- |" * len(titles)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = " ".join(text.split())
    text = text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
    for char in "\\`*_{}[]<>#|!":
        text = text.replace(char, f"\\{char}")
    return text


def describe_calls(usage: Usage) -> dict[str, Any]:
    """Give the metadata of a step's calls to models, in all runs; the cost only as far as prices are known."""
    described: dict[str, Any] = {
        LLM_CALLS: usage.calls,
        LLM_CALLS_REUSED: usage.calls_reused,
        INPUT_TOKENS: usage.input_tokens,
        OUTPUT_TOKENS: usage.output_tokens,
    }
    if usage.calls > usage.calls_without_price:
        described[COST_USD] = round(usage.cost_usd, 6)
    if usage.calls_without_price:
        described[CALLS_WITHOUT_PRICE] = usage.calls_without_price
    if usage.failures:
        described[FAILED_ATTEMPTS] = dict(usage.failures)
    return described


def describe_planned_calls(plan: StepPlan) -> dict[str, Any]:
    """Give the metadata of the calls that a step is going to make; tokens and cost only as far as they can be told."""
    described: dict[str, Any] = {
        PLANNED_CALLS: plan.calls,
        PLANNED_CALLS_IN_LEDGER: plan.calls_in_ledger,
        PLAN_IS_ESTIMATED: plan.is_estimated,
        PLAN_IS_OPEN: plan.is_open,
    }
    nothing = None if plan.pays else 0
    tokens = {PLANNED_INPUT_TOKENS: plan.input_tokens, PLANNED_OUTPUT_TOKENS: plan.output_tokens}
    for name, count in tokens.items():
        if (known := nothing if count is None else count) is not None:
            described[name] = known
    cost = nothing if plan.cost_usd is None else plan.cost_usd
    if cost is not None:
        described[PLANNED_COST_USD] = round(float(cost), 6)
    return described


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
