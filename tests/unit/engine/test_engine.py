import sys
import threading

import pytest

from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.engine.events import RowsFailed, RunFinished, RunStarted, RunStopped, StepWarning
from distilabel_dagster.errors import (
    ColumnTypeError,
    IncompleteRunError,
    MisalignedBranchesError,
    StepProcessError,
)
from distilabel_dagster.pipeline import routing_batch_function
from tests.unit.engine.runs import BODIES, Bench, Calls, CallsOnAll, Numbers, chain, mark, merge

pytestmark = pytest.mark.timeout(30)


def diamond(size_a: int, size_b: int, size_j: int, count: int = 60):
    def declare() -> None:
        load = Numbers(name="load", count=count, batch_size=4)
        a, b = Calls(name="a", input_batch_size=size_a), Calls(name="b", input_batch_size=size_b)
        load >> [a, b] >> Calls(name="j", input_batch_size=size_j)

    return declare


def fail_once(name: str, on: int):
    left = [1]

    def body(rows):
        if left and any(row["n"] == on for row in rows):
            left.clear()
            raise ValueError("once")
        return mark(name)(rows)

    return body


def test_two_runs_give_equal_tables_in_equal_order() -> None:
    BODIES.update(a=mark("a"), b=mark("b"), j=merge)
    tables = []
    for _ in range(2):
        bench = Bench(diamond(3, 7, 5))
        bench.run()
        _, cache = bench.open()
        cache.stores["j"].open()
        tables.append(cache.stores["j"].read_all())
    assert tables[0].equals(tables[1])
    assert tables[0].to_pylist() == [{"n": n, "a": n, "b": n} for n in range(60)]


def test_a_second_run_computes_nothing_and_takes_no_lease() -> None:
    BODIES.update(a=mark("a"))
    bench = Bench(chain("a"))
    assert bench.run() == {"load": 5, "a": 4}
    assert bench.leases == [["load", "a"]]
    assert bench.run() == {"load": 0, "a": 0}
    assert len(bench.leases) == 1
    assert bench.stops(RunFinished)[0].batches_reused == 9


@pytest.mark.parametrize("sizes", [(1, 100, 7), (100, 1, 50), (50, 50, 1)])
def test_branches_with_very_different_batch_sizes_do_not_wait_for_each_other_forever(sizes) -> None:
    BODIES.update(a=mark("a"), b=mark("b"), j=merge)
    bench = Bench(diamond(*sizes, count=250))
    bench.run(max_rows_ahead=1)
    assert [row["n"] for row in bench.rows("j")] == list(range(250))


def test_a_starved_branch_holds_nobody_up() -> None:
    @routing_batch_function()
    def mostly_b(steps: list[str], seq_no: int) -> list[str]:
        return ["a"] if seq_no % 40 == 39 else ["b"]

    def declare() -> None:
        branches = [Calls(name=name, input_batch_size=2) for name in "ab"]
        (
            Numbers(name="load", count=400, batch_size=4)
            >> mostly_b
            >> branches
            >> Calls(name="j", input_batch_size=1)
        )

    BODIES.update(a=mark("a"), b=mark("b"), j=merge)
    bench = Bench(declare)
    bench.run(max_rows_ahead=1)
    assert [row["n"] for row in bench.rows("j")] == list(range(400))


def test_a_step_may_want_more_rows_than_its_predecessor_may_be_ahead() -> None:
    BODIES.update(a=lambda rows: [{**row, "a": len(rows)} for row in rows])
    bench = Bench(chain("a", count=100, batch_size=3, size=64))
    bench.run(max_rows_ahead=5)
    assert [row["a"] for row in bench.rows("a")] == [64] * 64 + [36] * 36


def test_rows_that_wait_to_be_committed_are_bounded() -> None:
    BODIES.update(a=mark("a"))
    bench = Bench(chain("a", count=30, batch_size=1, size=1))
    bench.run(max_pending_bytes=1)
    assert len(bench.rows("a")) == 30


def test_branches_that_drift_apart_are_an_error_that_names_them_and_not_a_wait_forever() -> None:
    def declare() -> None:
        load = Numbers(name="load", count=200, batch_size=4)
        branches = [Calls(name=name, input_batch_size=2) for name in "ab"]
        load >> to_all >> branches >> Calls(name="j", input_batch_size=2)

    @routing_batch_function()
    def to_all(steps: list[str]) -> list[str]:
        return steps

    BODIES.update(a=mark("a"), b=lambda rows: rows * 50, j=merge)
    with pytest.raises(MisalignedBranchesError, match=r"`a`.*`b`"):
        Bench(declare).run(max_rows_ahead=1)


def test_routed_batches_without_rows_do_not_hold_up_the_join() -> None:
    @routing_batch_function()
    def in_turn(steps: list[str], seq_no: int) -> list[str]:
        return [steps[seq_no % 2]]

    def declare() -> None:
        keep = Calls(name="keep", input_batch_size=4)
        branches = [Calls(name=name, input_batch_size=2) for name in "ab"]
        (
            Numbers(name="load", count=20, batch_size=4)
            >> keep
            >> in_turn
            >> branches
            >> Calls(name="j", input_batch_size=2)
        )

    BODIES.update(keep=lambda rows: [row for row in rows if row["n"] < 6], a=mark("a"), b=mark("b"), j=merge)
    bench = Bench(declare)
    assert set(bench.run()) == {"load", "keep", "a", "b", "j"}
    assert [row["n"] for row in bench.rows("j")] == list(range(6))


def test_what_other_steps_finished_is_committed_when_one_fails() -> None:
    def two() -> None:
        load = Numbers(name="load", count=10, batch_size=2)
        load >> [Calls(name="a", input_batch_size=2), CallsOnAll(name="g")]

    def fail(rows):
        raise ValueError("no")

    BODIES.update(a=mark("a"), g=fail)
    bench = Bench(two)
    with pytest.raises(StepProcessError, match="`g` failed"):
        bench.run()
    assert len(bench.rows("a")) == len(bench.rows("load")) == 10
    BODIES["g"] = mark("g")
    assert bench.run() == {"load": 0, "a": 0, "g": 1}


def test_columns_that_do_not_go_together_cost_only_the_step_and_what_follows_it() -> None:
    def declare() -> None:
        load = Numbers(name="load", count=6, batch_size=2)
        odd = Calls(name="odd", input_batch_size=2)
        load >> [odd, Calls(name="good", input_batch_size=2)]
        odd >> Calls(name="behind", input_batch_size=1)

    good_is_done = threading.Event()

    def odd(rows):
        if rows[0]["n"] > 3:
            good_is_done.wait(20)
        return [{"n": row["n"], "odd": "text" if row["n"] > 3 else 1} for row in rows]

    def good(rows):
        if rows[-1]["n"] == 5:
            good_is_done.set()
        return mark("good")(rows)

    BODIES.update(odd=odd, good=good, behind=mark("behind"))
    bench = Bench(declare)
    with pytest.raises(ColumnTypeError, match="`odd`"):
        bench.run()
    assert len(bench.rows("good")) == 6
    assert len(bench.rows("odd")) == 4
    assert [type(event) for event in bench.events[-1:]] == [RunStopped]


def test_a_step_that_calls_exit_is_an_error_of_the_step_and_the_rest_is_committed() -> None:
    BODIES.update(a=mark("a"), b=lambda rows: sys.exit(3))
    bench = Bench(chain("a", "b"))
    with pytest.raises(StepProcessError, match="SystemExit: 3"):
        bench.run()
    assert bench.rows("load")


@pytest.mark.parametrize("where", ["a", "b"])
def test_failed_rows_are_tried_again_and_only_what_was_made_of_them_is_computed_again(where: str) -> None:
    BODIES.update(a=mark("a"), b=mark("b"))
    BODIES[where] = fail_once(where, on=4)
    bench = Bench(chain("a", "b", size=2))
    assert bench.run() == {"load": 5, "a": 5, "b": 5}
    assert [row[where] for row in bench.rows("b")].count(None) == 2
    started_anew = bench.run()
    assert started_anew == {"load": 0, "a": 1 if where == "a" else 0, "b": 1}
    assert bench.stops(RunStarted)[0].to_repair[where] == 1
    assert bench.rows("b") == [{"n": n, "a": n, "b": n} for n in range(10)]
    assert bench.run() == {"load": 0, "a": 0, "b": 0}


def test_rows_that_fail_again_cost_nothing_behind_them() -> None:
    def fail_on_four(rows):
        if any(row["n"] == 4 for row in rows):
            raise ValueError("always")
        return [{**row, "a": str(row["n"])} for row in rows]

    BODIES.update(a=fail_on_four, b=mark("b"))
    bench = Bench(chain("a", "b", size=2))
    bench.run()
    assert bench.run() == {"load": 0, "a": 1, "b": 0}


def test_a_batch_that_was_empty_because_of_a_failure_fills_and_is_counted_by_a_global_step() -> None:
    def declare() -> None:
        a, keep = Calls(name="a", input_batch_size=2), Calls(name="keep", input_batch_size=2)
        g = CallsOnAll(name="g")
        Numbers(name="load", count=6, batch_size=2) >> a >> keep >> g >> Calls(name="b", input_batch_size=4)

    BODIES.update(
        a=fail_once("a", on=2),
        keep=lambda rows: [row for row in rows if row["a"] is not None],
        g=lambda rows: [{**row, "g": len(rows)} for row in rows],
        b=mark("b"),
    )
    bench = Bench(declare)
    bench.run()
    assert [row["n"] for row in bench.rows("b")] == [0, 1, 4, 5]
    assert bench.run()["g"] == 1
    assert [(row["n"], row["g"], row["b"]) for row in bench.rows("b")] == [(n, 6, n) for n in range(6)]


def test_some_steps_can_be_run_apart_and_miss_what_is_not_there() -> None:
    BODIES.update(a=mark("a"), b=mark("b"))
    bench = Bench(chain("a", "b"))
    with pytest.raises(IncompleteRunError, match="`b` needs all rows of `a`"):
        bench.run(steps=["b"])
    bench.run(steps=["load"])
    assert bench.run(steps=["a"]) == {"a": 4}
    assert bench.run(steps=["b"]) == {"b": 4}
    assert [row["b"] for row in bench.rows("b")] == list(range(10))


def test_a_step_computed_anew_apart_with_more_batches_is_followed_to_its_end() -> None:
    """Those behind it were complete, and it has rows now where they thought it ended."""
    BODIES.update(a=mark("a"))
    bench = Bench(chain("a", batch_size=5, size=5))
    bench.run()
    bench.declare = chain("a", batch_size=1, size=5)
    bench.run(steps=["load"], use_cache=False)
    bench.run()
    assert [row["a"] for row in bench.rows("a")] == list(range(10))
    bench.declare = chain("a", batch_size=10, size=5)
    bench.run(steps=["load"], use_cache=False)
    bench.run()
    assert [row["a"] for row in bench.rows("a")] == list(range(10))


def test_a_step_without_use_cache_is_computed_anew_with_all_that_follows_it() -> None:
    def declare() -> None:
        last = Numbers(name="load", count=4, batch_size=2) >> Calls(name="a", input_batch_size=2)
        last >> Calls(name="b", input_batch_size=2, use_cache=False) >> Calls(name="c", input_batch_size=2)

    BODIES.update(a=mark("a"), b=mark("b"), c=mark("c"))
    bench = Bench(declare)
    bench.run()
    assert bench.run() == {"load": 0, "a": 0, "b": 2, "c": 2}
    assert len(bench.rows("c")) == 4


def test_a_stateful_routing_function_goes_on_where_it_was_in_the_same_process() -> None:
    turns = iter(range(1000))

    @routing_batch_function()
    def in_turn(steps: list[str]) -> list[str]:
        return [steps[next(turns) % 2]]

    def declare() -> None:
        if not made:
            made.append(Numbers(name="load", count=12, batch_size=2))
            made[0] >> in_turn >> [Calls(name=name, input_batch_size=2) for name in "ab"]

    made: list[Numbers] = []
    bench = Bench(declare)
    pipeline, _ = bench.open()
    bench.open = lambda: (pipeline, pipeline.open_cache())  # type: ignore[method-assign]

    is_stopped = threading.Event()

    def stop(rows):
        bench.engine.request_stop("enough")
        is_stopped.set()
        return mark("a")(rows)

    def wait(rows):  # or its turns could all be over before the other's first
        assert is_stopped.wait(30)
        return mark("b")(rows)

    BODIES.update(a=stop, b=wait)
    bench.run(max_rows_ahead=1)
    assert len(bench.rows("load")) < 12
    pipeline.dag.routing["load"].choose("load", ["a", "b"], 5)  # for batches that a kill kept from the cache
    BODIES.update(a=mark("a"))
    bench.run()
    assert [row["n"] // 2 for row in bench.rows("a")] == [0, 0, 2, 2, 4, 4]
    assert [row["n"] // 2 for row in bench.rows("b")] == [1, 1, 3, 3, 5, 5]


def test_a_step_is_unloaded_before_the_next_stage_loads() -> None:
    told: list[str] = []

    class Loads(Calls):
        def load(self):
            told.append(f"load {self.name}")

        def unload(self):
            told.append(f"unload {self.name}")

    class LoadsOnAll(CallsOnAll):
        def load(self):
            told.append(f"load {self.name}")

    def declare() -> None:
        Numbers(name="load", count=4) >> Loads(name="a") >> LoadsOnAll(name="g")

    BODIES.update(a=mark("a"), g=mark("g"))
    Bench(declare).run()
    assert told == ["load a", "unload a", "load g"]


def test_a_generator_without_rows_gives_empty_outputs_all_the_way() -> None:
    BODIES.update(a=mark("a"), b=mark("b"))
    bench = Bench(chain("a", "b", count=0))
    assert set(bench.run()) == {"load", "a", "b"}
    assert bench.rows("b") == []


def test_a_run_that_fails_gives_its_lease_back() -> None:
    class Lease:
        released = 0

        def check(self) -> None:
            pass

        def release(self) -> None:
            self.released += 1

    def fail(rows):
        raise ValueError("no")

    lease = Lease()
    BODIES.update(a=fail)
    bench = Bench(chain("a"))
    events = bench.start(on_error="raise")
    bench.engine._opening._acquire = lambda steps: lease
    with pytest.raises(StepProcessError):
        list(events)
    assert lease.released == 1


def test_a_declared_output_that_is_never_made_is_told_once() -> None:
    BODIES.update(a=lambda rows: [{"n": row["n"]} for row in rows])
    bench = Bench(chain("a"))
    bench.run()
    told = [str(event) for event in bench.events if isinstance(event, StepWarning)]
    assert told == ["Step `a`: declares the output `a`, but its rows have only the columns `n`"]


def test_failed_rows_are_told_at_the_end_with_their_place() -> None:
    BODIES.update(a=fail_once("a", on=4))
    bench = Bench(chain("a"))
    bench.run()
    (failed,) = [event for event in bench.events if isinstance(event, RowsFailed)]
    assert "ValueError: once (test_engine.py:" in str(failed)
    assert "Traceback" in failed.details
    assert "3 rows failed" in str(bench.events[-1])
    bench.run()
    assert "failed" not in str(bench.events[-1])


def test_repairs_write_a_part_once(monkeypatch: pytest.MonkeyPatch) -> None:
    BODIES.update(a=lambda rows: 1 / 0)
    bench = Bench(chain("a", count=30, size=2))
    bench.run()
    BODIES.update(a=mark("a"))
    written: list[int] = []
    replace = StepStore.replace
    monkeypatch.setattr(
        StepStore, "replace", lambda self, again: (written.append(len(again)), replace(self, again))
    )
    bench.run()
    _, cache = bench.open()
    cache.stores["a"].open()
    assert sum(written) == 15
    assert len(written) == len({record.part for record in cache.stores["a"].records})
    assert bench.rows("a") == [{"n": n, "a": n} for n in range(30)]
