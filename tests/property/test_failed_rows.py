"""Rows that failed are tried again, and what becomes of them then is what an undisturbed run gives."""

import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import MisalignedBranchesError
from tests.property.scenarios import Lab, Shape, expect_rows
from tests.property.strategies import shapes_and_sizes

RUNS = 4


def rows_met(shape: Shape) -> dict[str, list[str]]:
    """Which rows each ordinary step meets in an undisturbed run."""
    made = expect_rows(shape)
    keys = {name: [row["key"] for row in rows] for name, rows in made.items()}
    return {name: keys[before[0]] for name, kind, before in shape.steps if kind != "global"}


@st.composite
def failures(draw: st.DrawFn):
    """A shape, sizes, and for each disturbed run the rows that fail and the moment at which it's stopped, if any."""
    shape, sizes = draw(shapes_and_sizes(RUNS))
    choices = [(name, key) for name, keys in rows_met(shape).items() for key in keys]
    plan = []
    for _ in range(draw(st.integers(1, RUNS - 1))):
        failing = draw(st.sets(st.sampled_from(choices), max_size=4)) if choices else set()
        plan.append((failing, draw(st.none() | st.integers(1, 12))))
    return shape, sizes, plan


@settings(max_examples=80)
@given(failures())
def test_rows_that_failed_succeed_in_a_later_run(given) -> None:
    shape, sizes, plan = given
    lab = Lab(shape, f"lab{uuid.uuid4().hex}")
    try:
        for run, (failing, stop) in enumerate(plan):
            lab.disturbance.fail_on = failing
            error = lab.run(sizes[run], stop_at_call=stop)
            # A failing step keeps its rows where it would have dropped or added some.
            assert error is None or (failing and isinstance(error, MisalignedBranchesError))
        lab.disturbance.fail_on = set()
        assert lab.run(sizes[len(plan)]) is None
        assert lab.finished
        assert lab.read(sizes[-1]) == expect_rows(shape)
        lab.disturbance.seen.clear()
        assert lab.run(sizes[0], options=RunOptions(on_error="raise")) is None
        assert not lab.disturbance.seen, "nothing was left to compute"
    finally:
        lab.close()
