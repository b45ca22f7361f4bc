import pytest

from distilabel_dagster.dag.load_stages import compute_load_stages
from distilabel_dagster.errors import LoadGroupError
from tests.unit.dag.test_dag import Whole, make_dag


def test_steps_that_stream_share_one_stage() -> None:
    assert compute_load_stages(make_dag("load>a", "a>b", "load>c")) == [["load", "a", "b", "c"]]


def test_a_global_step_is_a_boundary_on_both_sides() -> None:
    dag = make_dag("load>a", "a>c", "load>b")
    dag.add_step(Whole(name="g"))
    dag.add_edge("a", "g")
    dag.add_edge("g", "b")
    assert compute_load_stages(dag) == [["load", "a", "c"], ["g"], ["b"]]


def test_a_group_shares_its_stage_with_no_other_step() -> None:
    dag = make_dag("load>a", "a>b", "b>c")
    assert compute_load_stages(dag, [["b"]]) == [["load", "a"], ["b"], ["c"]]
    assert compute_load_stages(dag, [["a", "b"]]) == [["load"], ["a", "b"], ["c"]]


def test_two_groups_side_by_side_run_one_after_the_other() -> None:
    dag = make_dag("load>a", "load>b", "a>j", "b>j")
    assert compute_load_stages(dag, [["a"], ["b"]]) == [["load"], ["a"], ["b"], ["j"]]


def test_members_of_a_group_wait_for_the_latest() -> None:
    dag = make_dag("load>a", "a>b", "load>c")
    stages = compute_load_stages(dag, [["a"], ["b", "c"]])
    assert stages == [["load"], ["a"], ["b", "c"]]


def test_each_step_by_itself() -> None:
    dag = make_dag("load>b", "load>a")
    assert compute_load_stages(dag, "sequential_step_execution") == [["load"], ["b"], ["a"]]


def test_steps_may_be_given_themselves() -> None:
    dag = make_dag("load>a", "a>b")
    assert compute_load_stages(dag, [[dag.steps["b"]]]) == [["load", "a"], ["b"]]


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([["a"], ["a"]], "`a` twice"),
        ([["alpah"]], "Did you mean `alpha`"),
        ([[]], "empty group"),
        ([["g", "a"]], "global step `g`"),
        ([["a", "b"]], "leave the group"),
        ("one_by_one", "isn't known"),
    ],
)
def test_groups_that_cannot_run_are_refused(groups, told: str) -> None:
    dag = make_dag("load>a", "a>alpha", "alpha>b")
    dag.add_step(Whole(name="g"))
    dag.add_edge("b", "g")
    with pytest.raises(LoadGroupError, match=told):
        compute_load_stages(dag, groups)
