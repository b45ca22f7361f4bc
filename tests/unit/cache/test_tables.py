import datetime as dt
import decimal
import zoneinfo
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.batch import Rows
from distilabel_dagster.cache.tables import (
    EMPTY_TABLE,
    build_table,
    narrow_table,
    table_rows,
    unite_schemas,
    widen_table,
)
from distilabel_dagster.errors import ColumnTypeError, StepOutputError

UTC, PARIS = dt.timezone.utc, zoneinfo.ZoneInfo("Europe/Paris")
NAIVE = dt.datetime.fromisoformat("2024-02-29T12:30:01.000005")


def keep(*batches: Rows) -> list[Rows]:
    """Bring batches under one schema, as parts hold them, and back."""
    tables = [build_table(rows, "work") for rows in batches]
    schema = unite_schemas([table.schema for table in tables], "work")
    found = []
    for table in tables:
        narrowed = narrow_table(widen_table(table, schema, "work"), table.schema)
        assert narrowed.num_rows == table.num_rows
        assert table_rows(narrowed) == table_rows(table)
        found.append(table_rows(narrowed))
    return found


def union(*batches: Rows) -> Rows:
    """All rows under one schema, as a reader of the files sees them."""
    tables = [build_table(rows, "work") for rows in batches]
    schema = unite_schemas([table.schema for table in tables], "work")
    return pa.concat_tables([widen_table(table, schema, "work") for table in tables]).to_pylist()


def test_columns_that_the_first_row_lacks_are_kept() -> None:
    assert keep([{"a": 1}, {"b": "x"}, {"a": 2, "c": None}]) == [
        [{"a": 1, "b": None, "c": None}, {"a": None, "b": "x", "c": None}, {"a": 2, "b": None, "c": None}]
    ]
    assert union([{"a": 1}], [{"b": "x"}]) == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (1, 2.5, [1.0, 2.5]),
        (None, "x", [None, "x"]),
        (None, {"a": [1]}, [None, {"a": [1]}]),
        ({"a": 1}, {"b": "x"}, [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ({"a": None}, {"a": [None]}, [{"a": None}, {"a": [None]}]),
        ([], ["x"], [[], ["x"]]),
        ([{"a": 1}], [{"a": 2.5, "b": "x"}], [[{"a": 1.0, "b": None}], [{"a": 2.5, "b": "x"}]]),
        ([[1]], [[None], []], [[[1]], [[None], []]]),
        ({}, {"a": 1}, [None, {"a": 1}]),
        (
            decimal.Decimal("1.10"),
            decimal.Decimal("22.333"),
            [decimal.Decimal("1.100"), decimal.Decimal("22.333")],
        ),
        (np.int8(1), 2**40, [1, 2**40]),
    ],
)
def test_batches_are_united_and_come_back_as_they_were(first: Any, second: Any, together: list[Any]) -> None:
    for one, other, expected in ((first, second, together), (second, first, together[::-1])):
        keep([{"c": one}], [{"c": other}])
        assert [row["c"] for row in union([{"c": one}], [{"c": other}])] == expected


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"x"), b"x"),
        (NAIVE, NAIVE),
        (dt.datetime(2024, 2, 29, tzinfo=PARIS), dt.datetime(2024, 2, 29, tzinfo=PARIS)),
        (dt.date(2024, 2, 29), dt.date(2024, 2, 29)),
        (dt.time(5, 6, 7), dt.time(5, 6, 7)),
        (dt.timedelta(days=-1, seconds=5), dt.timedelta(days=-1, seconds=5)),
        (decimal.Decimal("-0.001"), decimal.Decimal("-0.001")),
        (True, True),
        ((1, 2), [1, 2]),
        (np.arange(3), [0, 1, 2]),
        (np.ones((2, 2)), [[1.0, 1.0], [1.0, 1.0]]),
        ([np.ones((1, 2))], [[[1.0, 1.0]]]),
        ({"a": np.ones((1, 2)), "b": "x"}, {"a": [[1.0, 1.0]], "b": "x"}),
        (np.str_("x"), "x"),
        ({"deep": [{"er": [{"and": {"er": b"x"}}]}]}, {"deep": [{"er": [{"and": {"er": b"x"}}]}]}),
        ({}, None),
        ([{}, {}], [None, None]),
        ({"a": {}}, {"a": None}),
        ("", ""),
        ("\x00\u2028🙂", "\x00\u2028🙂"),
        (2**63 - 1, 2**63 - 1),
        (float("inf"), float("inf")),
    ],
)
def test_values_survive(value: Any, kept: Any) -> None:
    assert keep([{"c": value}, {"c": None}]) == [[{"c": kept}, {"c": None}]]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, "x"], ["`int`, `str`"]),
        ([b"x", "x"], ["`bytes`, `str`"]),
        ([["x", b"x"]], ["bytes and text"]),
        ([{"a": "x"}, {"a": b"x"}], ["bytes and text"]),
        ([[{"a": ["x"]}], [{"a": [b"x"]}]], ["bytes and text"]),
        ([dt.date(2024, 1, 1), NAIVE], ["`date`, `datetime`"]),
        (
            [NAIVE, dt.datetime(2024, 1, 1, tzinfo=UTC)],
            ["with a time zone", "without a time zone"],
        ),
        ([[NAIVE], [dt.datetime(2024, 1, 1, tzinfo=UTC)]], ["without a time zone"]),
        ([True, 1], ["`bool`, `int`"]),
        ([1, [1]], ["`int`, `list`"]),
        ([2**64], ["`int`", "too large"]),
        ([2**60 + 1, 0.5], ["`float`, `int`"]),
        ([{1: "x"}], ["`dict`", "key"]),
        ([{"b", "a"}], ["`set`", "sorted list"]),
        ([object()], ["`object`"]),
        (["\ud800"], ["surrogates"]),
    ],
)
def test_values_without_a_common_type_in_a_batch(values: list[Any], told: list[str]) -> None:
    with pytest.raises(ColumnTypeError, match="Step `work`: the values of column `c`") as caught:
        build_table([{"c": value} for value in values], "work")
    assert (caught.value.step, caught.value.column) == ("work", "c")
    for each in told:
        assert each in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second", "types"),
    [
        ("x", 1, ["string", "int64"]),
        ("x", b"x", ["string", "binary"]),
        (["x"], [b"x"], ["list<item: string>", "list<item: binary>"]),
        ({"a": ["x"]}, {"a": [b"x"]}, ["string", "binary"]),
        ("x", ["x"], ["string", "list<item: string>"]),
        ([1], {"a": 1}, ["list<item: int64>", "struct<a: int64>"]),
        ("x", dt.date(2024, 1, 1), ["string", "date32[day]"]),
        (
            NAIVE,
            dt.datetime(2024, 1, 1, tzinfo=UTC),
            ["timestamp[us]", "timestamp[us, tz=UTC]"],
        ),
        (decimal.Decimal("1.1"), 1.1, ["decimal128(2, 1)", "double"]),
        (True, 1, ["bool", "int64"]),
    ],
)
def test_values_without_a_common_type_in_two_batches(first: Any, second: Any, types: list[str]) -> None:
    for batches in ((first, second), (second, first)):
        with pytest.raises(ColumnTypeError, match="Step `work`: column `c` is") as caught:
            union(*([{"c": value}] for value in batches))
        for each in types:
            assert each in str(caught.value)
        assert (caught.value.step, caught.value.column) == ("work", "c")


def test_a_whole_number_that_no_float_holds_is_refused() -> None:
    with pytest.raises(ColumnTypeError, match="values of column `c` can't become double"):
        union([{"c": 2**60 + 1}], [{"c": 0.5}])


def test_two_time_zones_meet_in_utc_and_each_batch_keeps_its_own() -> None:
    summer, winter = dt.datetime(2024, 7, 1, tzinfo=PARIS), dt.datetime(2024, 1, 1, tzinfo=UTC)
    kept = keep([{"c": summer}], [{"c": winter}])
    assert kept[0][0]["c"].utcoffset() == dt.timedelta(hours=2)
    assert [row["c"] for row in union([{"c": summer}], [{"c": winter}])] == [summer, winter]


def test_rows_without_any_column_are_refused() -> None:
    with pytest.raises(StepOutputError, match="Step `work` gave 2 rows without any column"):
        build_table([{}, {}], "work")


def test_no_rows_fit_any_schema() -> None:
    assert build_table([], "work").equals(EMPTY_TABLE)
    assert keep([], [{"a": 1}], []) == [[], [{"a": 1}], []]
    assert keep([], []) == [[], []]


def test_rows_given_are_not_changed_and_rows_read_are_new() -> None:
    rows: Rows = [{"a": {"b": [1]}}, {}]
    table = build_table(rows, "work")
    read = table_rows(table)
    read[0]["a"]["b"].append(2)
    assert rows == [{"a": {"b": [1]}}, {}]
    assert table_rows(table)[0]["a"] == {"b": [1]}


_numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
_names = st.sampled_from(["a", "b", "c", ""])


def _values(kind: str) -> st.SearchStrategy[Any]:
    """Values that have a common type: JSON-like, of a shape fixed by `kind`."""
    shapes: dict[str, st.SearchStrategy[Any]] = {
        "number": _numbers,
        "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "flag": st.booleans(),
        "numbers": st.lists(st.none() | _numbers, max_size=3),
        "texts": st.lists(st.lists(st.text("xyz", max_size=2), max_size=2), max_size=2),
        "dict": st.dictionaries(st.sampled_from(["x", "y"]), st.none() | _numbers, max_size=2),
        "dicts": st.lists(
            st.fixed_dictionaries(
                {}, optional={"x": st.none() | _numbers, "y": st.lists(_numbers, max_size=2)}
            ),
            max_size=3,
        ),
    }
    return st.none() | shapes[kind]


@st.composite
def _batches(draw: st.DrawFn) -> list[Rows]:
    kinds = draw(
        st.dictionaries(
            _names,
            st.sampled_from(["number", "text", "flag", "numbers", "texts", "dict", "dicts"]),
            min_size=1,
        )
    )
    row = st.fixed_dictionaries({}, optional={name: _values(kind) for name, kind in kinds.items()})
    return draw(st.lists(st.lists(row.filter(bool), max_size=4), min_size=1, max_size=4))


def _is_kept(read: Any, given_value: Any) -> bool:
    """Equal but for what Arrow can't tell apart: an empty dict is None, a missing key is a None."""
    if isinstance(given_value, dict):
        if read is None:
            return not given_value
        return (
            all(_is_kept(read[key], given_value.get(key)) for key in read)
            and given_value.keys() <= read.keys()
        )
    if isinstance(given_value, list):
        return len(read) == len(given_value) and all(map(_is_kept, read, given_value))
    return bool(read == given_value)


@given(_batches())
def test_json_like_rows_come_back_from_the_union(batches: list[Rows]) -> None:
    for rows, read in zip(batches, keep(*batches), strict=True):
        assert all(_is_kept(one, other) for one, other in zip(read, rows, strict=True))
    flat = [row for rows in batches for row in rows]
    assert all(_is_kept(one, other) for one, other in zip(union(*batches), flat, strict=True))


def test_slices_with_a_field_that_is_always_none_are_cast() -> None:
    """Arrow's own cast of such a slice gives an array that can't be read."""
    rows = [{"meta": {"tokens": i, "error": None}, "note": None} for i in range(10)]
    table = build_table(rows, "load").slice(5)
    wide = unite_schemas([table.schema, build_table([{"note": "x"}], "load").schema], "load")
    widened = widen_table(table, wide, "load")
    widened.validate(full=True)
    assert widened.to_pylist() == rows[5:]
    narrowed = narrow_table(widened.slice(2), table.schema)
    narrowed.validate(full=True)
    assert narrowed.to_pylist() == rows[7:]
