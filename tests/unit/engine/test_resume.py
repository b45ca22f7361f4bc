import pyarrow as pa
import pytest

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.engine.resume import find_stale, holds_same_rows, iter_repairs, usable_batches
from distilabel_dagster.engine.step_buffer import Slice
from tests.unit.engine.records import make_batch, make_batches


def repairs(records: list[BatchRecord], *, retry_failed: bool = True, **predecessors: list[BatchRecord]):
    found = iter_repairs(records, predecessors, retry_failed=retry_failed)
    return {record.seq_no: plan.slices for record, plan in found}


def test_a_batch_holds_while_what_it_was_made_of_is_as_it_was() -> None:
    assert repairs([make_batch(0, 2, a=[(0, 2, 2)])], a=make_batches(2)) == {}


def test_failed_rows_are_tried_again_only_if_asked() -> None:
    records = [make_batch(0, 2, a=[(0, 2, 2)]), make_batch(1, 2, a=[(1, 2, 2)], errors={0: "bad"})]
    assert repairs(records, a=make_batches(2, 2)) == {1: {"a": [Slice(1, 0, 2)]}}
    assert repairs(records, retry_failed=False, a=make_batches(2, 2)) == {}


def test_only_batches_made_of_what_changed_are_computed_again() -> None:
    records = [
        make_batch(0, 3, a=[(0, 2, 2), (1, 2, 1)]),
        make_batch(1, 3, a=[(1, 2, 1), (2, 2, 2)]),
        make_batch(2, 2, last=True, a=[(3, 2, 2)]),
    ]
    predecessor = make_batches(2, 2, 2, 2)
    predecessor[1] = make_batch(1, 2, revision=1)
    assert list(repairs(records, a=predecessor)) == [0, 1]


@pytest.mark.parametrize(
    ("size", "taken"),
    [
        (7, [(0, 2), (2, 4), (4, 7)]),
        (5, [(0, 2), (2, 4), (4, 5)]),
        (3, [(0, 2), (2, 3), (3, 3)]),
        (1, [(0, 1), (1, 1), (1, 1)]),
        (0, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_a_batch_of_another_size_is_shared_out_so_that_each_row_is_taken_once(
    size: int, taken: list[tuple[int, int]]
) -> None:
    records = [make_batch(n, used, a=[(0, 5, used)]) for n, used in enumerate((2, 2, 1))]
    found = repairs(records, a=[make_batch(0, size, revision=1)])
    assert [(slices["a"][0].start, slices["a"][0].stop) for slices in found.values()] == taken


def test_rows_of_a_batch_that_was_empty_go_to_the_batch_that_met_it() -> None:
    records = [make_batch(0, 2, a=[(0, 2, 2), (1, 0, 0)])]
    found = repairs(records, a=[make_batch(0, 2), make_batch(1, 3, revision=1)])
    assert found == {0: {"a": [Slice(0, 0, 2), Slice(1, 0, 3)]}}


def test_a_batch_taken_in_part_leaves_its_new_rows_to_what_comes() -> None:
    records = [make_batch(0, 2, a=[(0, 5, 2)])]
    assert repairs(records, a=[make_batch(0, 9, revision=1)]) == {0: {"a": [Slice(0, 0, 2)]}}


def test_the_new_version_records_what_it_was_made_of() -> None:
    records = [make_batch(0, 2, last=True, a=[(0, 2, 2)])]
    ((_, plan),) = iter_repairs(records, {"a": [make_batch(0, 3, revision=4)]}, retry_failed=True)
    (source,) = plan.created_from["a"]
    assert (source.size, source.rows_used, source.revision) == (3, 3, 4)
    assert plan.last_batch


def test_repairs_that_were_interrupted_are_gone_on_with() -> None:
    """The first of two batches saw the new version, the second not yet; then a third version came."""
    records = [make_batch(0, 2, a=[(0, 7, 2, 1)]), make_batch(1, 3, a=[(0, 5, 3, 0)])]
    found = repairs(records, a=[make_batch(0, 6, revision=2)])
    assert found == {0: {"a": [Slice(0, 0, 2)]}, 1: {"a": [Slice(0, 2, 6)]}}


def test_batches_are_usable_up_to_the_first_whose_input_is_gone() -> None:
    records = [make_batch(n, 2, a=[(n, 2, 2)], last=n == 2) for n in range(3)]
    assert usable_batches("step", records, {"a": make_batches(2, 2, 2)}) == 3
    assert usable_batches("step", records, {"a": make_batches(2, 2, last=False)}) == 2
    assert usable_batches("step", records, {"a": []}) == 0
    assert usable_batches("load", make_batches(2, 2), {}) == 2


def test_a_last_batch_is_usable_only_where_its_predecessor_still_ends() -> None:
    records = [make_batch(0, 2, a=[(0, 2, 2)]), make_batch(1, 2, last=True, a=[(1, 2, 2)])]
    assert usable_batches("step", records, {"a": make_batches(2, 2, last=False)}) == 1
    assert usable_batches("step", records, {"a": make_batches(2, 2, 2)}) == 1
    assert usable_batches("step", records, {"a": make_batches(2, 2, 2, routed_to={2: ("other",)})}) == 2
    assert usable_batches("step", records, {"a": make_batches(2, 2, 0)}) == 2


def test_stale_batches_are_those_that_failed_or_saw_another_revision_and_what_follows_them() -> None:
    a = [make_batch(0, 2, errors={1: "bad"}), make_batch(1, 2)]
    b = [make_batch(0, 2, a=[(0, 2, 2)]), make_batch(1, 2, a=[(1, 2, 2, 9)])]
    stale_a = find_stale(a, {}, {}, retry_failed=True)
    assert stale_a == {0}
    assert find_stale(b, {"a": a}, {"a": stale_a}, retry_failed=True) == {0, 1}
    assert find_stale(a, {}, {}, retry_failed=False) == set()


def test_nones_are_the_same_rows_whatever_type_the_column_got_in_the_cache() -> None:
    now = pa.table({"n": [1], "text": pa.nulls(1)})
    assert holds_same_rows(now, pa.table({"n": [1], "text": pa.array([None], pa.string())}))
    assert not holds_same_rows(now, pa.table({"n": [2], "text": pa.array([None], pa.string())}))
    assert not holds_same_rows(now, pa.table({"n": [1], "text": ["said"]}))
    assert not holds_same_rows(now, pa.table({"n": ["1"], "text": pa.nulls(1)}))
