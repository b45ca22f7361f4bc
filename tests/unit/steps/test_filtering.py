"""FilterRows: which rows each condition keeps."""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.errors import RuntimeParameterError, StepProcessError
from distilabel_dagster.steps import FilterRows

MISSING = object()


def kept(op: Any, value: Any, *found: Any) -> list[Any]:
    rows = [{} if each is MISSING else {"c": each} for each in found]
    before = copy.deepcopy(rows)
    outputs = FilterRows(column="c", op=op, value=value).run_process(rows)
    assert rows == before
    return [row.get("c", MISSING) for row in outputs]


@pytest.mark.parametrize(
    ("op", "value", "found", "expected"),
    [
        ("==", 2, [1, 2, 2.0, "2", None, MISSING], [2, 2.0]),
        ("==", None, [1, None, MISSING], [None, MISSING]),
        ("==", True, [True, False, None], [True]),
        ("==", "a", ["a", "A", ["a"]], ["a"]),
        ("==", [1, 2], [[1, 2], np.array([1, 2]).tolist(), [2, 1]], [[1, 2], [1, 2]]),
        ("!=", 2, [1, 2, None, MISSING], [1, None, MISSING]),
        ("<", 2, [1, 2, 3, None], [1]),
        ("<=", 2, [1, 2, 3, None], [1, 2]),
        (">", 2.5, [1, 2, 3, float("nan"), None], [3]),
        (">=", "b", ["a", "b", "c", MISSING], ["b", "c"]),
        ("in", ["x", None], ["x", "y", None, MISSING], ["x", None, MISSING]),
        ("in", {"y", "x"}, ["x", "z"], ["x"]),
        ("in", (1, 2), [1, 3], [1]),
        ("not in", ["x"], ["x", "y", None], ["y", None]),
        ("contains", "b", ["abc", "c", ["a", "b"], ["ab"], None], ["abc", ["a", "b"]]),
        ("contains", 2, [[1, 2], [3], None], [[1, 2]]),
        ("matches", r"^\d+$", ["12", "a1", "", None], ["12"]),
        ("is null", None, [0, "", None, MISSING], [None, MISSING]),
        ("is not null", None, [0, "", None, MISSING], [0, ""]),
        ("min_length", 2, ["a", "ab", [1, 2, 3], [], None], ["ab", [1, 2, 3]]),
        ("max_length", 2, ["", "ab", "abc", [1], None], ["", "ab", [1]]),
    ],
)
def test_condition_keeps(op: str, value: Any, found: list[Any], expected: list[Any]) -> None:
    assert kept(op, value, *found) == expected


def test_arrays_are_looked_at_as_lists() -> None:
    rows = [{"c": np.array([1, 2])}, {"c": np.array([3])}, {"c": np.int64(5)}]
    assert len(FilterRows(column="c", op="contains", value=2).run_process(rows[:2])) == 1
    assert len(FilterRows(column="c", op="==", value=[3]).run_process(rows)) == 1
    assert len(FilterRows(column="c", op=">", value=4).run_process(rows[2:])) == 1


@given(st.lists(st.integers(-3, 3)), st.sampled_from(["==", "<", "<=", "in"]), st.integers(-3, 3))
def test_a_condition_and_its_opposite_part_the_rows(numbers: list[int], op: str, value: int) -> None:
    opposite = {"==": "!=", "<": ">=", "<=": ">", "in": "not in"}[op]
    wanted = [value] if op == "in" else value
    keeps, drops = kept(op, wanted, *numbers), kept(opposite, wanted, *numbers)
    assert sorted(keeps + drops) == sorted(numbers)
    assert keeps == [number for number in numbers if number in keeps]


@pytest.mark.parametrize(
    ("op", "value", "found"),
    [
        ("<", 2, "text"),
        (">", "a", 5),
        ("matches", "a", 5),
        ("contains", "a", 5),
        ("contains", 1, "text"),
        ("min_length", 1, 5),
        ("max_length", 1, {"a": 1}),
    ],
)
def test_value_of_another_type_is_named(op: Any, value: Any, found: Any) -> None:
    step = FilterRows(name="enough", column="score", op=op, value=value)
    good = step.run_process([{"score": None}])
    assert good == []
    with pytest.raises(StepProcessError) as caught:
        step.run_process([{"score": None}, {"score": found}])
    message = str(caught.value)
    for part in ("`enough`", "row 1", type(found).__name__, "`score`", f"`{op}`", repr(value)):
        assert part in message


@pytest.mark.parametrize(
    ("op", "value"),
    [
        ("~", 1),
        ("<", True),
        ("<", [1]),
        ("in", "text"),
        ("in", 5),
        ("contains", [1]),
        ("matches", 5),
        ("matches", "("),
        ("is null", 1),
        ("is not null", False),
        ("min_length", "3"),
        ("min_length", 1.5),
        ("max_length", True),
    ],
)
def test_declaration_that_makes_no_sense_is_refused(op: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"op|value|regular expression"):
        FilterRows(column="c", op=op, value=value)


def test_value_may_be_a_runtime_parameter() -> None:
    step = FilterRows(name="enough", column="c", op=">")
    assert step.missing_runtime_parameters() == ["value"]
    with pytest.raises(RuntimeParameterError, match="enough"):
        step.set_runtime_parameters({"value": [1]}, "enough")
    step.set_runtime_parameters({"value": 1})
    assert step.missing_runtime_parameters() == []
    assert FilterRows(column="c", op="is null").missing_runtime_parameters() == []
    assert FilterRows(column="c", op="==").missing_runtime_parameters() == []


def test_types_of_values_survive_a_pipeline_file() -> None:
    for value in (1, 1.5, True, "1", ["a", 1]):
        step = FilterRows(name="f", column="c", op="==", value=value)
        loaded = FilterRows.from_dict(step.dump())
        assert loaded.value == value
        assert type(loaded.value) is type(value)
        assert compute_signature(describe_identity(loaded)) == compute_signature(describe_identity(step))


def test_sets_are_ordered() -> None:
    step = FilterRows(column="c", op="in", value={"b", "a", "d", "c"})
    assert step.value == ["a", "b", "c", "d"]


def test_filter_reads_its_column_and_adds_none() -> None:
    step = FilterRows(column="c", op="is null")
    assert step.inputs == ["c"]
    assert step.outputs == []
    assert step.run_process([]) == []
