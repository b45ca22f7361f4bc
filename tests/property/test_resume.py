"""Runs that are stopped and killed, again and again, give what an undisturbed run gives."""

import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.scenarios import Lab, expect_rows
from tests.property.strategies import shapes_and_sizes

RUNS = 5
ENDS = st.one_of(
    st.tuples(st.just("stop"), st.integers(1, 12)),
    st.tuples(st.just("crash"), st.integers(0, 30)),
)


@settings(max_examples=80)
@given(given=shapes_and_sizes(RUNS), ends=st.lists(ENDS, max_size=RUNS - 1))
def test_every_row_comes_out_once_and_in_order(given, ends) -> None:
    shape, sizes = given
    lab = Lab(shape, f"lab{uuid.uuid4().hex}")
    crashes = 0
    try:
        for run, (end, moment) in enumerate(ends):
            if end == "stop":
                assert lab.run(sizes[run], stop_at_call=moment) is None
            else:
                crashes += lab.run(sizes[run], crash_at_write=moment) is not None
        assert lab.run(sizes[len(ends)]) is None
        assert lab.finished
        assert lab.read(sizes[-1]) == expect_rows(shape)
        again = {row: count for row, count in lab.disturbance.seen.items() if count > 1 + crashes}
        assert not again, "a committed row was computed again"
    finally:
        lab.close()
