"""Values that are nested deeply, and NaN."""

import io
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilabel_dagster.cache.part_file import encode_part
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.engine.resume import holds_same_rows
from distilabel_dagster.errors import ColumnTypeError

NAN = math.nan


def nest(kinds: str, value: Any = 1) -> Any:
    for kind in reversed(kinds):
        value = [value] if kind == "l" else {"a": value}
    return value


@pytest.mark.parametrize("kinds", ["l" * 49, "s" * 98, "ls" * 32 + "l", "ls" * 32 + "ss", "l" * 48 + "ss"])
def test_what_is_nested_as_deeply_as_can_be_read_is_kept(kinds: str) -> None:
    table = build_table([{"ok": 1, "deep": nest(kinds)}], "work")
    content, _ = encode_part(table, b'{"checksums":"0000000000000000"}')
    assert pq.ParquetFile(io.BytesIO(content)).read().to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    "kinds",
    ["l" * 50, "s" * 99, "ls" * 33, "ls" * 32 + "sss", "l" * 49 + "s", "l" * 400, "s" * 1100, "l" * 1100],
)
def test_what_is_nested_more_deeply_is_refused(kinds: str) -> None:
    with pytest.raises(ColumnTypeError, match="Step `work`: the values of column `deep`") as caught:
        build_table([{"ok": 1}, {"ok": 1, "deep": nest(kinds)}], "work")
    assert (caught.value.step, caught.value.column) == ("work", "deep")


@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
def test_a_key_that_cannot_be_kept_is_refused(key: str) -> None:
    """`datasets` gives None in place of all that stands under a key with NUL."""
    with pytest.raises(ColumnTypeError, match="column `deep`") as caught:
        build_table([{"ok": 1, "deep": [{"x": {key: 1}}]}], "work")
    assert "\0" not in str(caught.value)
    str(caught.value).encode()


def test_the_column_that_datasets_cannot_show_is_named() -> None:
    from distilabel_dagster.distiset.loading import _foreign_type_error

    table = build_table([{"first": 1, "deep": nest("s" * 90), "last": 1}], "work")
    assert _foreign_type_error(table.schema, "work", ValueError("no")).column == "deep"


@pytest.mark.parametrize(
    "value",
    [NAN, [NAN, 1.0], {"x": NAN, "y": "text"}, [{"x": [NAN, None]}, {"x": None}, None], [[1.0], [], [NAN]]],
)
def test_nan_is_the_same_as_nan(value: Any) -> None:
    rows = [{"n": 1, "v": value}, {"n": 2, "v": None}, {"n": 3, "v": value}]
    now, before = build_table(rows, "work"), build_table(rows, "work")
    assert holds_same_rows(now, before)
    assert holds_same_rows(now, pa.concat_tables([before[:1], before[1:]]))
    for other in (
        [*rows[:2], {"n": 4, "v": value}],
        [rows[0], rows[2], rows[1]],
        [rows[0], rows[0], rows[2]],
    ):
        assert not holds_same_rows(now, build_table(other, "work"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([NAN, 1.0], [1.0, NAN]),
        ([NAN], [0.0]),
        ([NAN], [None]),
        ([NAN, 1.0], [NAN, 2.0]),
        ([[NAN], [1.0]], [[NAN, 1.0], []]),
        ([[NAN], None], [[NAN], []]),
        ([{"x": NAN}, None], [{"x": NAN}, {"x": None}]),
        ([{"x": NAN, "y": 1}], [{"x": NAN, "y": 2}]),
    ],
)
def test_nan_hides_no_difference(one: list[Any], other: list[Any]) -> None:
    tables = [build_table([{"v": value} for value in values], "work") for values in (one, other)]
    assert not holds_same_rows(*tables)


def test_nan_within_a_slice_and_a_narrower_table() -> None:
    whole = build_table([{"v": [float(n), NAN], "t": "x"} for n in range(4)], "work")
    part = build_table([{"v": [float(n), NAN], "t": "x"} for n in (1, 2)], "work")
    assert holds_same_rows(part, whole[1:3])
    nones = build_table([{"v": NAN, "t": None}], "work")
    assert holds_same_rows(nones, nones.cast(pa.schema({"v": pa.float64(), "t": pa.string()})))
