import pytest

from distilabel_dagster.engine.step_buffer import GlobalBuffer, InputPlan, JoinBuffer, Slice
from distilabel_dagster.errors import MisalignedBranchesError, StepRunError
from tests.unit.engine.records import make_batch, make_batches


def take_all(buffer: JoinBuffer | GlobalBuffer) -> list[InputPlan]:
    plans = []
    while (plan := buffer.next_plan()) is not None:
        plans.append(plan)
    return plans


def feed(buffer: JoinBuffer | GlobalBuffer, predecessor: str, *sizes: int, last: bool = True) -> None:
    for record in make_batches(*sizes, last=last):
        buffer.add(predecessor, record)


def sizes_of(plans: list[InputPlan]) -> list[int]:
    return [plan.size for plan in plans]


def test_rows_are_cut_anew_whatever_batches_they_came_in() -> None:
    buffer = JoinBuffer("step", ["a"], 4, None)
    feed(buffer, "a", 3, 3, 3)
    plans = take_all(buffer)
    assert sizes_of(plans) == [4, 4, 1]
    assert plans[0].slices == {"a": [Slice(0, 0, 3), Slice(1, 0, 1)]}
    assert [(s.seq_no, s.size, s.rows_used) for s in plans[1].created_from["a"]] == [(1, 3, 2), (2, 3, 2)]
    assert [plan.last_batch for plan in plans] == [False, False, True]


def test_a_short_batch_waits_until_no_more_can_come() -> None:
    buffer = JoinBuffer("step", ["a"], 4, None)
    feed(buffer, "a", 3, last=False)
    assert buffer.next_plan() is None
    buffer.add("a", make_batch(1, 0, last=True))
    assert buffer.next_plan() == buffer_plan_of(3, last=True)
    assert buffer.next_plan() is None


def buffer_plan_of(rows: int, *, last: bool) -> InputPlan:
    made = JoinBuffer("step", ["a"], rows, None)
    feed(made, "a", rows, 0)
    plan = made.next_plan()
    assert plan is not None
    assert plan.last_batch is last
    return plan


def test_a_last_batch_without_rows_still_ends_the_step() -> None:
    buffer = JoinBuffer("step", ["a"], 2, None)
    feed(buffer, "a", 2, last=False)
    assert sizes_of(take_all(buffer)) == [2]
    buffer.add("a", make_batch(1, 0, last=True))
    plan = buffer.next_plan()
    assert plan is not None
    assert (plan.size, plan.last_batch) == (0, True)


def test_nothing_at_all_is_one_empty_last_batch() -> None:
    buffer = JoinBuffer("step", ["a"], 2, None)
    feed(buffer, "a", 0)
    assert [(plan.size, plan.last_batch) for plan in take_all(buffer)] == [(0, True)]


def test_batches_without_rows_are_recorded_with_those_around_them() -> None:
    buffer = JoinBuffer("step", ["a"], 2, None)
    feed(buffer, "a", 0, 1, 0, 1, 0)
    (plan,) = take_all(buffer)
    assert [source.seq_no for source in plan.created_from["a"]] == [0, 1, 2, 3, 4]
    assert [each.seq_no for each in plan.slices["a"]] == [1, 3]


def test_branches_are_aligned_by_position() -> None:
    buffer = JoinBuffer("step", ["a", "b"], 3, None)
    feed(buffer, "a", 5)
    assert buffer.next_plan() is None
    feed(buffer, "b", 2, 2, 1)
    assert sizes_of(take_all(buffer)) == [3, 2]


def test_misaligned_branches_are_named_as_soon_as_one_has_ended() -> None:
    buffer = JoinBuffer("step", ["a", "b"], 3, None)
    feed(buffer, "a", 2)
    feed(buffer, "b", 2, 2, last=False)
    with pytest.raises(MisalignedBranchesError, match=r"`step`.*`a` 2, `b` 4"):
        take_all(buffer)


def test_routed_batches_are_kept_apart_and_others_left_out() -> None:
    buffer = JoinBuffer("b", ["a"], 2, "a")
    for record in make_batches(4, 4, 3, routed_to={0: ("b",), 1: ("c",), 2: ("b", "c")}):
        buffer.add("a", record)
    plans = take_all(buffer)
    assert [plan.slices["a"] for plan in plans] == [
        [Slice(0, 0, 2)],
        [Slice(0, 2, 4)],
        [Slice(2, 0, 2)],
        [Slice(2, 2, 3)],
    ]
    assert [plan.last_batch for plan in plans] == [False, False, False, True]


def test_a_routed_batch_without_rows_gets_a_batch_of_its_own_even_as_the_last() -> None:
    """A convergence step waits for what each branch makes of each batch that it got."""
    buffer = JoinBuffer("b", ["a"], 2, "a")
    for record in make_batches(2, 0, routed_to={0: ("b",), 1: ("b",)}):
        buffer.add("a", record)
    plans = take_all(buffer)
    assert [[source.seq_no for source in plan.created_from["a"]] for plan in plans] == [[0], [1]]
    assert [plan.last_batch for plan in plans] == [False, True]


def test_a_resume_goes_on_where_the_committed_batches_end_with_another_size() -> None:
    buffer = JoinBuffer("step", ["a"], 2, None)
    feed(buffer, "a", 3, 3)
    buffer.skip(make_batch(0, 4, a=[(0, 3, 3), (1, 3, 1)]))
    assert [plan.slices["a"] for plan in take_all(buffer)] == [[Slice(1, 1, 3)]]


def test_a_resume_skips_a_batch_that_shrank_when_it_was_computed_again() -> None:
    buffer = JoinBuffer("step", ["a"], 2, None)
    feed(buffer, "a", 1, 3)
    buffer.skip(make_batch(0, 1, a=[(0, 1, 1)]))
    buffer.skip(make_batch(1, 0, a=[(0, 1, 0)]))
    assert sizes_of(take_all(buffer)) == [2, 1]


def test_a_resume_refuses_records_that_cannot_be() -> None:
    buffer = JoinBuffer("step", ["a"], 2, None)
    feed(buffer, "a", 3, 3)
    with pytest.raises(StepRunError, match=r"batch 1 of `a`.*use_cache=False"):
        buffer.skip(make_batch(0, 2, a=[(1, 3, 2)]))


def test_a_complete_step_takes_nothing_more() -> None:
    buffer = JoinBuffer("step", ["a"], 2, None)
    feed(buffer, "a", 2)
    buffer.skip(make_batch(0, 2, last=True, a=[(0, 2, 2)]))
    assert buffer.next_plan() is None


def test_waiting_rows_are_those_that_arrived_and_were_not_taken() -> None:
    buffer = JoinBuffer("step", ["a"], 2, None)
    feed(buffer, "a", 3, 3)
    buffer.next_plan()
    assert buffer.waiting_rows("a") == 4


def test_a_global_step_gets_all_rows_in_one_batch_when_all_are_there() -> None:
    buffer = GlobalBuffer("step", ["a", "b"])
    feed(buffer, "a", 2, 3)
    assert buffer.next_plan() is None
    feed(buffer, "b", 1)
    (plan,) = take_all(buffer)
    assert plan.last_batch
    assert plan.slices == {"a": [Slice(0, 0, 2), Slice(1, 0, 3)], "b": [Slice(0, 0, 1)]}
    assert buffer.waiting_rows("a") == 0


def test_a_global_step_that_is_done_gets_nothing_more() -> None:
    buffer = GlobalBuffer("step", ["a"])
    feed(buffer, "a", 2)
    buffer.skip(make_batch(0, 2, last=True, a=[(0, 2, 2)]))
    assert buffer.next_plan() is None
