"""What only some tables have: memory that's shared, and what stands where no value is."""

import pickle
from typing import Any

import pyarrow as pa
import pytest

from distilabel_dagster.cache.foreign_tables import build_table_as_of_rows, copy_table, widen_for_rows
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.errors import StepOutputError


def check(table: pa.Table) -> pa.Table:
    """Bring a table to what its rows would be, straight and by way of what is cheap for slices."""
    expected = build_table(table.to_pylist(), "load")
    made = build_table_as_of_rows(table, "load")
    assert made.schema.serialize().equals(expected.schema.serialize())
    assert made.equals(expected)
    widened = widen_for_rows(table)
    if widened is not None:
        for start in range(table.num_rows):
            part = build_table_as_of_rows(widened.slice(start, 2), "load")
            assert part.equals(build_table(table.slice(start, 2).to_pylist(), "load"))
    return made


def test_what_stands_under_nulls_is_no_value() -> None:
    values = pa.array(["a", "b", "c"])
    mask = pa.array([False, True, False])
    struct = pa.StructArray.from_arrays([pa.array([None, "hidden", None], pa.string())], ["text"], mask=mask)
    hidden = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), values, mask=mask)
    only_hidden = pa.ListArray.from_arrays(pa.array([0, 0, 3, 3]), values, mask=mask)
    made = check(pa.table({"struct": struct, "list": hidden, "none": only_hidden}))
    assert made.schema.field("struct").type == pa.struct({"text": pa.null()})
    assert made.schema.field("none").type == pa.list_(pa.null())


def test_what_fields_say_beside_name_and_type_is_dropped() -> None:
    field = pa.field("n", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "7"})
    struct = pa.StructArray.from_arrays([pa.array([1, 2])], fields=[field])
    lists = pa.array([[1], [2]], pa.list_(pa.field("element", pa.int64(), nullable=False)))
    made = check(pa.table({"s": struct, "l": lists}, metadata={"pandas": "{}"}))
    assert (made.schema.metadata, made.schema.field("s").type.field(0).metadata) == (None, None)
    assert made.schema.field("l").type.value_field.name == "item"


def test_lists_are_cut_where_they_begin() -> None:
    table = pa.table(
        {"l": pa.array([[1], [2, 3], [], [4]], pa.list_(pa.int16())), "t": [["a"], [], None, ["b"]]}
    )
    for start in range(4):
        check(table.slice(start, 2))
    check(pa.concat_tables([table.slice(1, 2), table.slice(3), table]))


@pytest.mark.parametrize("text", [b"\xff", b"ok\xed\xa0\x80"])
@pytest.mark.parametrize("nested", [False, True])
def test_text_that_is_none_is_refused_as_its_rows_would_be(text: bytes, nested: bool) -> None:
    array: Any = pa.array([b"fine", text]).view(pa.string())
    table = pa.table({"t": pa.StructArray.from_arrays([array], ["in"]) if nested else array})
    assert widen_for_rows(table) is None
    with pytest.raises(UnicodeDecodeError):
        build_table_as_of_rows(table, "load")
    with pytest.raises(UnicodeDecodeError):
        build_table_as_of_rows(table.slice(1), "load")
    check(table.slice(0, 1))


def test_a_value_beside_the_slice_does_no_harm() -> None:
    array = pa.array([b"\xff", b"fine"]).view(pa.string())
    assert build_table_as_of_rows(pa.table({"t": array}).slice(1), "load").to_pylist() == [{"t": "fine"}]


def test_columns_that_rows_cannot_have_are_refused() -> None:
    with pytest.raises(StepOutputError, match="without NUL"):
        build_table_as_of_rows(pa.table({"a\0": [1]}), "load")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    assert widen_for_rows(twice) is None
    assert build_table_as_of_rows(twice, "load").to_pylist() == twice.to_pylist()
    assert build_table_as_of_rows(pa.table({"a": pa.array([], pa.int8())}), "load").num_columns == 0


def test_a_table_of_odd_columns_is_left_as_rows() -> None:
    odd, plain = pa.array([1], pa.uint64()), pa.array([1])
    assert widen_for_rows(pa.table({"odd": odd, "plain": plain})) is not None
    assert widen_for_rows(pa.table({"odd": odd, "odd_too": odd, "plain": plain})) is None
    check(pa.table({"odd": odd, "odd_too": odd, "plain": plain}))


def test_a_slice_does_not_keep_all_that_it_is_cut_from() -> None:
    table = pa.table({"text": ["x" * 1000] * 10_000, "list": [["y" * 10]] * 10_000})
    assert table.get_total_buffer_size() > 10_000_000
    made = build_table_as_of_rows(table.slice(5000, 50), "load")
    assert made.get_total_buffer_size() < 100_000
    assert made.equals(table.slice(5000, 50))
    assert build_table_as_of_rows(table, "load").column(0).chunk(0).buffers()[2].address == (
        table.column(0).chunk(0).buffers()[2].address
    )


def test_a_copy_is_pickled_alone() -> None:
    table = pa.table({"text": ["x" * 1000] * 1000})
    assert len(pickle.dumps(copy_table(table.slice(10, 1)))) < 5000
    assert copy_table(table.slice(0, 0)).equals(table.slice(0, 0))
    assert copy_table(pa.table({})).num_columns == 0
