import pytest

from distilabel_dagster.base.columns import check_rows, iter_lists, map_inputs, map_outputs
from distilabel_dagster.errors import StepOutputError


def through(row, inputs, outputs=None, *, copies: int = 1, made=None):
    """What becomes of a row on its way through a step that adds `made`."""
    mapped, covered = map_inputs([row], inputs)
    rows = [{**each, **(made or {})} for each in mapped for _ in range(copies)]
    return mapped[0], map_outputs(rows, inputs, outputs or {}, covered)


@pytest.mark.parametrize(
    ("row", "inputs", "seen"),
    [
        ({"q": 1, "x": 2}, {"text": "q"}, {"text": 1, "x": 2}),
        ({"q": 1, "text": 2}, {"text": "q"}, {"text": 1}),
        ({"a": 1, "b": 2}, {"a": "b", "b": "a"}, {"b": 1, "a": 2}),
        ({"x": 2}, {"text": "q"}, {"x": 2}),
        ({"q": 1}, {"text": "q", "more": "q"}, {"text": 1, "more": 1}),
    ],
    ids=["renamed", "covers another", "swapped", "not there", "twice"],
)
def test_columns_come_under_the_step_s_names_and_go_back_as_they_were(row, inputs, seen) -> None:
    mapped, back = through(row, inputs)
    assert mapped == seen
    assert back == [row]


def test_outputs_are_renamed_and_covered_columns_come_back() -> None:
    _, back = through({"q": 1, "text": 2}, {"text": "q"}, {"out": "text_out"}, made={"out": 3})
    assert back == [{"q": 1, "text_out": 3, "text": 2}]


def test_rows_made_of_one_row_all_get_its_covered_columns() -> None:
    _, back = through({"q": 1, "text": 2}, {"text": "q"}, copies=2)
    assert back == [{"q": 1, "text": 2}] * 2


def test_inputs_are_left_as_they_were() -> None:
    row = {"q": 1, "text": 2}
    map_inputs([row], {"text": "q"})
    assert row == {"q": 1, "text": 2}


def test_rows_are_a_list_of_dicts_with_text_keys() -> None:
    assert check_rows([{"a": 1}], "step", "yielded") == [{"a": 1}]
    for value, told in (({"a": 1}, "Collect the rows in a list"), ([[]], "item 0"), ([{}, {2: 1}], "row 1")):
        with pytest.raises(StepOutputError, match=told):
            check_rows(value, "step", "yielded")


def test_lists_are_gone_through_as_they_are_yielded() -> None:
    assert list(iter_lists(iter([[{"a": 1}], []]), "step")) == [[{"a": 1}], []]
    with pytest.raises(StepOutputError, match="`yield rows` instead of `return rows`"):
        list(iter_lists([[{"a": 1}]], "step"))
