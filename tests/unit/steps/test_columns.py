"""KeepColumns, ExpandColumns, GroupColumns, CombineOutputs."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.errors import MisalignedBranchesError, StepProcessError
from distilabel_dagster.steps import CombineOutputs, ExpandColumns, GroupColumns, KeepColumns, Step


def run(step: Step, *inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    before = copy.deepcopy(inputs)
    outputs = step.run_process(*inputs)
    assert inputs == before, "rows that were given in were changed"
    return outputs


# --- KeepColumns ----------------------------------------------------------------------------------


def test_kept_columns_stand_in_the_order_they_are_named_in() -> None:
    keep = KeepColumns(columns=["b", "a"])
    assert keep.inputs == keep.outputs == ["b", "a"]
    kept = run(keep, [{"a": 1, "x": 0, "b": 2}, {"b": 3}])
    assert [list(row.items()) for row in kept] == [[("b", 2), ("a", 1)], [("b", 3), ("a", None)]]


@pytest.mark.parametrize("columns", [[], ["a", "a"], "a"])
def test_kept_columns_must_be_named_once(columns: Any) -> None:
    with pytest.raises(ValueError, match="column"):
        KeepColumns(columns=columns)


# --- ExpandColumns --------------------------------------------------------------------------------


def test_lists_of_several_columns_go_together() -> None:
    expand = ExpandColumns(columns={"q": "question", "a": ""})
    assert expand.inputs == ["q", "a"]
    assert expand.outputs == ["question", "a"]
    rows = run(expand, [{"id": 1, "q": ["x", "y"], "a": (1, 2)}, {"id": 2, "q": ["z"], "a": np.array([3])}])
    assert rows == [
        {"id": 1, "q": ["x", "y"], "question": "x", "a": 1},
        {"id": 1, "q": ["x", "y"], "question": "y", "a": 2},
        {"id": 2, "q": ["z"], "question": "z", "a": 3},
    ]


@given(st.lists(st.lists(st.integers(), max_size=3), max_size=4))
def test_expanding_keeps_every_item_in_order(lists: list[list[int]]) -> None:
    rows = [{"id": index, "n": items} for index, items in enumerate(lists)]
    expanded = run(ExpandColumns(columns=["n"]), rows)
    assert [(row["id"], row["n"]) for row in expanded] == [
        (index, item) for index, items in enumerate(lists) for item in items
    ]


def test_missing_list_gives_one_row_and_empty_list_none() -> None:
    rows = [{"id": 1, "a": None, "b": None}, {"id": 2, "a": [], "b": []}, {"id": 3, "a": None, "b": [1, 2]}]
    assert run(ExpandColumns(columns=["a", "b"]), rows) == [
        {"id": 1, "a": None, "b": None},
        {"id": 3, "a": None, "b": 1},
        {"id": 3, "a": None, "b": 2},
    ]


def test_json_text_is_decoded_where_it_is_said_to_be() -> None:
    rows = [{"a": "[1, 2]", "b": ["x", "y"]}]
    expected = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert run(ExpandColumns(columns=["a", "b"], encoded=["a"]), rows) == expected
    assert (
        run(ExpandColumns(columns=["a", "b"], encoded=True), [{"a": "[1, 2]", "b": '["x", "y"]'}]) == expected
    )


@pytest.mark.parametrize(
    ("encoded", "row", "message"),
    [
        (
            False,
            {"a": "[1]", "b": [1]},
            r"row 1 .* a str in `a`, expected a list\. If it's JSON, pass `encoded=True`",
        ),
        (False, {"a": 5, "b": [1]}, r"holds a int in `a`"),
        (True, {"a": "[1", "b": "[1]"}, r"no JSON in `a`"),
        (True, {"a": "{}", "b": "[1]"}, r"a dict in `a`, expected a list"),
        (False, {"a": [1, 2], "b": [1]}, r"different lengths: `a` 2, `b` 1"),
    ],
)
def test_what_is_no_list_is_named(encoded: bool, row: dict[str, Any], message: str) -> None:
    expand = ExpandColumns(name="expand", columns=["a", "b"], encoded=encoded)
    good = {"a": json.dumps([1]), "b": json.dumps([2])} if encoded else {"a": [1], "b": [2]}
    with pytest.raises(StepProcessError, match=message) as caught:
        expand.run_process([good, row])
    assert caught.value.step == "expand"


@pytest.mark.parametrize(
    "fields",
    [
        {"columns": []},
        {"columns": {}},
        {"columns": ["a", "a"]},
        {"columns": {"a": "x", "b": "x"}},
        {"columns": ["a"], "encoded": ["b"]},
    ],
)
def test_columns_to_expand_must_make_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"column|encoded"):
        ExpandColumns(**fields)


@given(st.integers(0, 50), st.integers(1, 7))
def test_parted_token_counts_add_up(tokens: int, count: int) -> None:
    metadata = {
        "statistics_ask": {"input_tokens": tokens, "output_tokens": [tokens, 1], "model": "m"},
        "raw_output_ask": "text",
    }
    expand = ExpandColumns(columns=["n"], split_statistics=True)
    rows = run(expand, [{"n": list(range(count)), "distilabel_metadata": metadata}])
    parts = [row["distilabel_metadata"]["statistics_ask"] for row in rows]
    assert sum(part["input_tokens"] for part in parts) == tokens
    assert [sum(column) for column in zip(*(part["output_tokens"] for part in parts), strict=True)] == [
        tokens,
        1,
    ]
    assert {part["model"] for part in parts} == {"m"}
    assert {row["distilabel_metadata"]["raw_output_ask"] for row in rows} == {"text"}


def test_metadata_of_grouped_generations_goes_with_its_item() -> None:
    metadata = [{"statistics_ask": {"input_tokens": n}} for n in (3, 4)]
    row = {"g": ["x", "y"], "distilabel_metadata": metadata}
    assert [
        r["distilabel_metadata"] for r in run(ExpandColumns(columns=["g"], split_statistics=True), [row])
    ] == metadata
    assert [r["distilabel_metadata"] for r in run(ExpandColumns(columns=["g"]), [row])] == [metadata] * 2
    longer = {"g": ["x"], "distilabel_metadata": metadata}
    expanded = run(ExpandColumns(columns=["g"], split_statistics=True), [longer])
    assert expanded == [{"g": "x", "distilabel_metadata": metadata}]


# --- GroupColumns and CombineOutputs --------------------------------------------------------------


def test_grouped_columns_are_lists_in_the_order_of_predecessors() -> None:
    group = GroupColumns(columns=["g", "m"], output_columns=["gs", "ms"])
    assert group.inputs == ["g", "m"]
    assert group.outputs == ["gs", "ms"]
    first = [{"q": "1", "g": "a", "m": "x"}, {"q": "2", "g": "b"}]
    second = [{"q": "1", "g": "c", "m": "y", "own": 1}, {"q": "2", "g": None}]
    assert run(group, first, second) == [
        {"q": "1", "gs": ["a", "c"], "ms": ["x", "y"], "own": 1},
        {"q": "2", "gs": ["b", None], "ms": []},
    ]
    assert GroupColumns(columns=["g"]).outputs == ["grouped_g"]
    assert run(GroupColumns(columns=["g"]), [{"g": 1}], [{"g": 2}], [{"g": 3}]) == [{"grouped_g": [1, 2, 3]}]


@pytest.mark.parametrize("output_columns", [["x"], ["x", "x"], []])
def test_lists_need_a_name_each(output_columns: list[str]) -> None:
    with pytest.raises(ValueError, match=r"name"):
        GroupColumns(columns=["a", "b"], output_columns=output_columns)


def test_combined_rows_have_all_columns() -> None:
    assert run(CombineOutputs(), [{"a": 1, "b": 2}], [{"b": 3, "c": 4}]) == [{"a": 1, "b": 3, "c": 4}]
    assert run(CombineOutputs(), [{"a": 1}]) == [{"a": 1}]
    assert run(CombineOutputs(), [], []) == []


@pytest.mark.parametrize("step", [CombineOutputs(name="join"), GroupColumns(name="join", columns=["a"])])
def test_branches_of_different_length_are_never_paired(step: Step) -> None:
    with pytest.raises(MisalignedBranchesError, match=r"`join` .* `predecessor 1` 2, `predecessor 2` 1"):
        step.run_process([{"a": 1}, {"a": 2}], [{"a": 3}])


@pytest.mark.parametrize(
    ("metadata", "merged"),
    [
        ([{"x": 1}, {"y": 2}], {"x": 1, "y": 2}),
        ([{"x": 1}, {"x": 2, "y": 3}], {"x": [1, 2], "y": 3}),
        ([[{"x": 1}], [{"x": 2}]], [{"x": 1}, {"x": 2}]),
        ([{"x": 1}, [{"x": 2}, {"x": 3}]], [{"x": 1}, {"x": 2}, {"x": 3}]),
        ([None, {"x": 1}], {"x": 1}),
    ],
)
def test_metadata_of_all_predecessors_is_merged(metadata: list[Any], merged: Any) -> None:
    inputs = [[{"a": 1, "distilabel_metadata": each}] for each in metadata]
    assert run(CombineOutputs(), *inputs)[0]["distilabel_metadata"] == merged
    assert run(GroupColumns(columns=["a"]), *inputs)[0]["distilabel_metadata"] == merged
    assert "distilabel_metadata" not in run(CombineOutputs(), [{"a": 1}], [{"b": 1}])[0]
