"""Tables as the types that users annotate, and back."""

from collections.abc import Iterable, Iterator
from typing import Any, get_origin

import pyarrow as pa

from distilabel_dagster.base.columns import check_rows
from distilabel_dagster.cache.tables import build_table, table_rows
from distilabel_dagster.errors import PipelineDefinitionError


def is_dataset(wanted: Any) -> bool:
    """Tell whether an annotation asks for a `datasets.Dataset`, as none does."""
    return wanted in (Any, None) or _full_name(wanted) == "datasets.arrow_dataset.Dataset"


def _full_name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"


def convert_table(table: pa.Table, wanted: Any) -> Any:
    """Give a table as the type of an annotation.

    Raises:
        PipelineDefinitionError: a type that rows can't be loaded as.
    """
    kind = get_origin(wanted) or wanted
    name = _full_name(kind)
    if kind is list:
        return table_rows(table)
    if kind is pa.Table:
        return table
    if name.startswith("pandas.") and name.endswith(".DataFrame"):
        return table.to_pandas()
    if name.startswith("polars.") and name.endswith(".DataFrame"):
        import polars as pl

        return pl.from_arrow(table)
    raise PipelineDefinitionError(
        f"An input annotated `{name}` can't be loaded from the cache. Annotate it with `datasets.Dataset`, "
        "`pyarrow.Table`, `pandas.DataFrame`, `polars.DataFrame`, `list[dict]`, `BatchStream` or `Distiset`."
    )


def iter_tables(value: Any, asset: str) -> Iterator[pa.Table]:
    """Go through an asset's value as tables: one, or one per list of an iterator.

    Raises:
        PipelineDefinitionError: a type that can't be stored as rows.
        StepOutputError: a list that holds something other than rows.
        ColumnTypeError: rows whose columns have no type.
    """
    if isinstance(value, pa.Table):
        yield value.replace_schema_metadata(None)
    elif isinstance(value, list):
        yield build_table(check_rows(value, asset, "returned"), asset)
    elif hasattr(value, "data") and isinstance(getattr(value.data, "table", None), pa.Table):
        yield value.with_format("arrow")[:].replace_schema_metadata(None)
    elif hasattr(value, "to_arrow"):
        yield value.to_arrow()
    elif hasattr(value, "to_parquet") and hasattr(value, "iloc"):
        yield pa.Table.from_pandas(value, preserve_index=False).replace_schema_metadata(None)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        for rows in value:
            yield from iter_tables(rows, asset)
    else:
        raise PipelineDefinitionError(
            f"The asset {asset} gave a {type(value).__name__}, which can't be stored as rows. Give a list of dicts, a "
            "`pyarrow.Table`, a `datasets.Dataset`, a DataFrame, or an iterator of lists of rows."
        )
