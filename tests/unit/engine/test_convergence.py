import pytest

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.engine.convergence import ConvergenceBuffer
from distilabel_dagster.engine.step_buffer import InputPlan
from distilabel_dagster.errors import MisalignedBranchesError
from tests.unit.engine.records import make_batch, make_batches


def make_buffer(size: int = 10, branches: tuple[str, ...] = ("a", "b")) -> ConvergenceBuffer:
    return ConvergenceBuffer("join", "source", list(branches), size)


def add_groups(
    buffer: ConvergenceBuffer, *sizes: int, last: bool = True, routed_to: dict[int, tuple[str, ...]]
) -> None:
    for record in make_batches(*sizes, last=last, routed_to=routed_to):
        buffer.add("source", record)


def make(
    seq_no: int, size: int, group: int, of: int, used: int | None = None, *, last: bool = False
) -> BatchRecord:
    """What a branch made of `used` of the `of` rows of the source's batch `group`."""
    return make_batch(seq_no, size, last=last, source=[(group, of, of if used is None else used)])


def take_all(buffer: ConvergenceBuffer) -> list[InputPlan]:
    plans = []
    while (plan := buffer.next_plan()) is not None:
        plans.append(plan)
    return plans


def test_groups_come_in_the_order_of_the_routing_step_whichever_branch_is_faster() -> None:
    buffer = make_buffer()
    add_groups(buffer, 2, 2, 2, routed_to={0: ("a",), 1: ("b",), 2: ("a",)})
    buffer.add("b", make(0, 2, 1, 2, last=True))
    assert buffer.next_plan() is None
    buffer.add("a", make(0, 2, 0, 2))
    assert [list(plan.slices) for plan in take_all(buffer)] == [["a"], ["b"]]
    buffer.add("a", make(1, 2, 2, 2, last=True))
    (plan,) = take_all(buffer)
    assert (list(plan.slices), plan.last_batch) == (["a"], True)


def test_only_branches_that_got_the_batch_give_rows() -> None:
    buffer = make_buffer(branches=("a", "b", "c"))
    add_groups(buffer, 2, routed_to={0: ("c", "a")})
    for name in ("a", "c"):
        buffer.add(name, make(0, 2, 0, 2, last=True))
    (plan,) = take_all(buffer)
    assert list(plan.slices) == ["a", "c"]


def test_no_plan_takes_rows_of_two_groups() -> None:
    buffer = make_buffer(size=3)
    add_groups(buffer, 4, 2, routed_to={0: ("a", "b"), 1: ("a", "b")})
    for name in ("a", "b"):
        buffer.add(name, make(0, 4, 0, 4))
        buffer.add(name, make(1, 2, 1, 2, last=True))
    assert [plan.size for plan in take_all(buffer)] == [3, 1, 2]


def test_a_group_is_waited_for_until_each_branch_has_made_all_of_it() -> None:
    buffer = make_buffer()
    add_groups(buffer, 4, routed_to={0: ("a", "b")})
    buffer.add("a", make(0, 4, 0, 4, last=True))
    buffer.add("b", make(0, 2, 0, 4, used=2))
    assert buffer.next_plan() is None
    buffer.add("b", make(1, 2, 0, 4, used=2, last=True))
    assert [plan.size for plan in take_all(buffer)] == [4]


def test_a_group_of_which_all_branches_dropped_all_rows_is_an_empty_batch() -> None:
    buffer = make_buffer()
    add_groups(buffer, 2, 2, routed_to={0: ("a", "b"), 1: ("a", "b")})
    for name in ("a", "b"):
        buffer.add(name, make(0, 0, 0, 2))
        buffer.add(name, make(1, 2, 1, 2, last=True))
    assert [(plan.size, plan.last_batch) for plan in take_all(buffer)] == [(0, False), (2, True)]


def test_rows_behind_a_batch_that_became_empty_late_are_not_lost() -> None:
    """The second half of the first group comes out empty after its first half was taken."""
    buffer = make_buffer(size=2)
    add_groups(buffer, 4, 4, routed_to={0: ("a", "b"), 1: ("a", "b")})
    for name in ("a", "b"):
        buffer.add(name, make(0, 2, 0, 4, used=2))
    assert [plan.size for plan in take_all(buffer)] == [2]
    for name in ("a", "b"):
        buffer.add(name, make(1, 0, 0, 4, used=2))
        buffer.add(name, make(2, 2, 1, 4, used=2))
        buffer.add(name, make(3, 2, 1, 4, used=2, last=True))
    plans = take_all(buffer)
    assert [sum(s.stop - s.start for s in plan.slices["a"]) for plan in plans] == [0, 2, 2]
    assert [source.seq_no for source in plans[0].created_from["a"]] == [1]


def test_a_routed_batch_without_rows_is_a_group_too() -> None:
    buffer = make_buffer()
    add_groups(buffer, 0, 2, routed_to={0: ("a",), 1: ("b",)})
    buffer.add("a", make(0, 0, 0, 0, last=True))
    buffer.add("b", make(0, 2, 1, 2, last=True))
    assert [plan.size for plan in take_all(buffer)] == [0, 2]


def test_branches_that_made_different_numbers_of_rows_are_named() -> None:
    buffer = make_buffer()
    add_groups(buffer, 4, routed_to={0: ("a", "b")})
    buffer.add("a", make(0, 4, 0, 4))
    buffer.add("b", make(0, 3, 0, 4))
    with pytest.raises(MisalignedBranchesError, match=r"`join`.*for batch 0 of `source`: `a` 4, `b` 3"):
        buffer.next_plan()


def test_misaligned_branches_are_an_error_before_the_longer_one_has_finished() -> None:
    """The longer one may be waiting for room, and would wait forever."""
    buffer = make_buffer()
    add_groups(buffer, 4, routed_to={0: ("a", "b")})
    buffer.add("a", make(0, 1, 0, 4))
    buffer.add("b", make(0, 50, 0, 4, used=2))
    with pytest.raises(MisalignedBranchesError):
        buffer.next_plan()


def test_batches_routed_elsewhere_are_passed_over_and_the_end_is_still_seen() -> None:
    buffer = make_buffer()
    add_groups(buffer, 2, 2, routed_to={0: ("a",), 1: ("elsewhere",)})
    buffer.add("a", make(0, 2, 0, 2, last=True))
    buffer.add("b", make_batch(0, 0, last=True, source=[]))
    plans = take_all(buffer)
    assert [plan.size for plan in plans] == [2]
    assert plans[-1].last_batch


def test_the_end_may_come_after_all_rows() -> None:
    buffer = make_buffer()
    add_groups(buffer, 2, last=False, routed_to={0: ("a",)})
    buffer.add("a", make(0, 2, 0, 2))
    assert [plan.last_batch for plan in take_all(buffer)] == [False]
    buffer.add("source", BatchRecord(1, 3, last_batch=True, batch_routed_to=("elsewhere",)))
    assert [(plan.size, plan.last_batch) for plan in take_all(buffer)] == [(0, True)]
    assert buffer.next_plan() is None


@pytest.mark.parametrize("committed", range(5))
def test_a_resume_goes_on_in_the_middle_of_a_group(committed: int) -> None:
    def fill() -> ConvergenceBuffer:
        buffer = make_buffer(size=2)
        add_groups(buffer, 4, 4, 2, routed_to={0: ("a", "b"), 1: ("b",), 2: ("a", "b")})
        for name, others in (("a", [0, 2]), ("b", [0, 1, 2])):
            for seq_no, group in enumerate(others):
                rows = 2 if group == 2 else 4
                buffer.add(name, make(seq_no, rows, group, rows, last=seq_no == len(others) - 1))
        return buffer

    whole = take_all(fill())
    resumed = fill()
    for seq_no, plan in enumerate(whole[:committed]):
        resumed.skip(BatchRecord(seq_no, plan.size, plan.last_batch, plan.created_from))
    assert take_all(resumed) == whole[committed:]
    assert [plan.size for plan in whole] == [2, 2, 2, 2, 2]


def test_waiting_rows_are_counted_by_branch() -> None:
    buffer = make_buffer()
    buffer.add("a", make(0, 4, 0, 4))
    assert (buffer.waiting_rows("a"), buffer.waiting_rows("b")) == (4, 0)
