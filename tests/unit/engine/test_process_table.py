"""Steps that offer to work on tables: asked where they may be, checked as rows are."""

from collections.abc import Callable
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.batch import Rows
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.engine.row_source import RowSource
from distilabel_dagster.engine.worker import process_batch
from distilabel_dagster.errors import ColumnTypeError, StepOutputError, StepProcessError
from distilabel_dagster.steps import GeneratorStep, KeepColumns, Step

VALUES = st.sampled_from(
    [
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.text(),
        st.none() | st.lists(st.none() | st.floats(allow_nan=False)),
        st.none() | st.dictionaries(st.sampled_from("pq"), st.none() | st.booleans()),
    ]
)


@st.composite
def row_lists(draw: st.DrawFn) -> Rows:
    """Rows with some of the columns a to d, each of one type."""
    kinds = {name: draw(VALUES) for name in draw(st.lists(st.sampled_from("abcd"), min_size=1, unique=True))}
    return [{name: draw(values) for name, values in kinds.items()} for _ in range(draw(st.integers(0, 4)))]


class ByTable(Step):
    """Gives what the test says, of a table; its rows say that they were made of rows."""

    make: ClassVar[Callable[[pa.Table], Any]] = staticmethod(lambda table: table)

    def process(self, inputs: Rows) -> Any:
        yield [{**row, "by": "rows"} for row in inputs]

    def process_table(self, table: pa.Table) -> Any:
        return ByTable.make(table)


class OwnProcess(ByTable):
    """Inherits `process_table` from a class whose `process` it replaces."""

    def process(self, inputs: Rows) -> Any:
        yield [{"mine": True} for _ in inputs]


TABLE = build_table([{"a": 1, "t": "x"}, {"a": 2, "t": None}], "load")


def run(step: Step, table: pa.Table = TABLE) -> Rows:
    return process_batch(step, [table], "raise", 0).table.to_pylist()


def making(monkeypatch: pytest.MonkeyPatch, make: Callable[[pa.Table], Any]) -> ByTable:
    monkeypatch.setattr(ByTable, "make", staticmethod(make))
    return ByTable(name="by_table")


def test_the_table_is_asked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(making(monkeypatch, lambda table: table.drop(["t"]))) == [{"a": 1}, {"a": 2}]


def test_none_leaves_it_to_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row["by"] for row in run(making(monkeypatch, lambda table: None))] == ["rows", "rows"]


def test_mappings_leave_it_to_process(monkeypatch: pytest.MonkeyPatch) -> None:
    step = making(monkeypatch, lambda table: table)
    step.output_mappings = {"by": "made_by"}
    assert [row["made_by"] for row in run(step)] == ["rows", "rows"]


def test_several_predecessors_leave_it_to_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Merge(ByTable):
        def process(self, *inputs: Rows) -> Any:
            yield [{"merged": len(inputs)} for _ in inputs[0]]

        def process_table(self, table: pa.Table) -> Any:
            raise AssertionError("there are two")

    made = process_batch(Merge(name="merge"), [TABLE, TABLE], "raise", 0)
    assert made.table.to_pylist() == [{"merged": 2}] * 2


def test_a_process_of_ones_own_counts() -> None:
    assert run(OwnProcess(name="own")) == [{"mine": True}] * 2


def test_a_batch_without_rows_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(table: pa.Table) -> Any:
        raise AssertionError

    assert run(making(monkeypatch, fail), TABLE.slice(0, 0)) == []


def test_no_rows_are_a_table_without_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    step = making(monkeypatch, lambda table: table.slice(0, 0))
    assert process_batch(step, [TABLE], "raise", 0).table.num_columns == 0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda table: table.to_pylist(), "gave a list, expected a `pyarrow.Table` or None"),
        (lambda table: pa.table([table["a"], table["a"]], ["a", "a"]), "two columns `a`"),
    ],
)
def test_what_is_no_output_ends_the_run(
    make: Callable[[pa.Table], Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepOutputError, match=told):
        run(making(monkeypatch, make))


def test_types_that_rows_do_not_have_become_those_that_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(table: pa.Table) -> pa.Table:
        made = pa.table({"d": pa.array(["x", "x"]).dictionary_encode(), "i": pa.array([1, 2], pa.int8())})
        return made.replace_schema_metadata({"pandas": "of no use"})

    made = process_batch(making(monkeypatch, make), [TABLE], "raise", 0).table
    assert made.schema == pa.schema({"d": pa.string(), "i": pa.int64()})
    assert made.schema.metadata is None


def test_values_that_rows_cannot_have_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    far = pa.array([2**62, 2**62], pa.timestamp("s"))
    with pytest.raises(ColumnTypeError, match="`far`"):
        run(making(monkeypatch, lambda table: pa.table({"far": far})))


def test_an_exception_fails_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    step = making(monkeypatch, lambda table: table["nothing"])
    with pytest.raises(StepProcessError, match="nothing"):
        run(step)
    made = process_batch(step, [TABLE], "impute", 0)
    assert made.table.to_pylist() == TABLE.to_pylist()
    assert sorted(made.errors) == [0, 1]


@given(row_lists(), st.lists(st.sampled_from("abcdx"), min_size=1, unique=True))
def test_keep_columns_keeps_the_same_either_way(rows: Rows, columns: list[str]) -> None:
    step = KeepColumns(name="keep", columns=columns)
    table = build_table(rows, "load")
    expected = step.run_process(table.to_pylist())
    assert run(step, table) == (expected if rows else [])


# --- generator steps ------------------------------------------------------------------------------


class GivesTables(GeneratorStep):
    """Gives what the test says, as tables; its rows say that they are rows."""

    make: ClassVar[Callable[[int], Any]] = staticmethod(lambda offset: iter([(TABLE, True)]))

    def process(self, offset: int = 0) -> Any:
        yield [{"by": "rows", "offset": offset}], True

    def process_tables(self, offset: int = 0) -> Any:
        return GivesTables.make(offset)


class OwnRows(GivesTables):
    """Inherits `process_tables` from a class whose `process` it replaces."""

    def process(self, offset: int = 0) -> Any:
        yield [{"mine": offset}], True


class Forgets(GeneratorStep):
    """Gives all tables, wherever it's started."""

    def process(self, offset: int = 0) -> Any:
        yield [], True

    def process_tables(self, offset: int = 0) -> Any:
        assert not offset
        yield TABLE.slice(0, 1), False
        yield [{"a": 5}, {"a": 6}], False
        yield pa.table({"a": pa.array([7, 8], pa.int8())}), True


class MapsRows(GivesTables):
    """Has a way of its own to name columns."""

    def map_rows(self, rows: Rows) -> Rows:
        return [{f"my_{name}": value for name, value in row.items()} for row in rows]


def giving(monkeypatch: pytest.MonkeyPatch, make: Callable[[int], Any]) -> GivesTables:
    monkeypatch.setattr(GivesTables, "make", staticmethod(make))
    return GivesTables(name="load")


def pull_all(step: GeneratorStep, offset: int = 0) -> list[tuple[Rows, bool]]:
    source, pulled = RowSource(step, offset), []
    while (made := source.pull()) is not None:
        pulled.append((made[0].table.to_pylist(), made[1]))
        if made[1]:
            break
    return pulled


def test_a_generator_is_asked_for_tables_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pull_all(GivesTables(name="load")) == [(TABLE.to_pylist(), True)]
    assert pull_all(OwnRows(name="load"), 3) == [([{"mine": 3}], True)]
    assert pull_all(giving(monkeypatch, lambda offset: None), 3) == [([{"by": "rows", "offset": 3}], True)]


def test_tables_and_rows_may_take_turns_and_are_skipped_alike() -> None:
    batches: list[tuple[Rows, bool]] = [
        ([{"a": 1, "t": "x"}], False),
        ([{"a": 5}, {"a": 6}], False),
        ([{"a": 7}, {"a": 8}], True),
    ]
    assert pull_all(Forgets(name="load")) == batches
    assert pull_all(Forgets(name="load"), 2) == [([{"a": 6}], False), batches[2]]
    assert pull_all(Forgets(name="load"), 4) == [([{"a": 8}], True)]
    assert pull_all(Forgets(name="load"), 9) == [([], True)]


@pytest.mark.parametrize("mappings", [{"a": "b"}, {"a": "t"}, {"a": "t", "t": "a"}, {"t": "a"}, {"x": "y"}])
def test_columns_are_renamed_as_those_of_rows(mappings: dict[str, str]) -> None:
    step = GivesTables(name="load", output_mappings=mappings)
    assert pull_all(step) == [(step.map_rows(TABLE.to_pylist()), True)]


def test_a_way_of_its_own_to_name_columns_is_gone() -> None:
    assert pull_all(MapsRows(name="load"))[0][0][0] == {"my_a": 1, "my_t": "x"}


def test_batches_without_rows_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    step = giving(monkeypatch, lambda offset: iter([(TABLE.slice(0, 0), False), (TABLE, False)]))
    assert pull_all(step) == [(TABLE.to_pylist(), False)]


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda offset: [(TABLE, True)], StepOutputError, r"`process_tables\(\)` returned a list"),
        (lambda offset: iter([TABLE]), StepOutputError, "yielded a Table, expected a pair"),
        (lambda offset: iter([(TABLE.to_batches()[0], True)]), StepOutputError, "yielded a RecordBatch"),
        (lambda offset: 1 // offset, StepProcessError, "ZeroDivisionError"),
        (
            lambda offset: iter([(pa.table({"t": pa.array([b"\xff"]).view(pa.string())}), True)]),
            StepProcessError,
            r"failed while it made rows: UnicodeDecodeError.*Rows committed before stay",
        ),
        (
            lambda offset: iter([(pa.table({"u": pa.array([2**64 - 1, None], pa.uint64())}), True)]),
            ColumnTypeError,
            "column `u`",
        ),
    ],
)
def test_what_is_no_table_ends_the_run(
    make: Callable[[int], Any], error: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error, match=told):
        pull_all(giving(monkeypatch, make))
