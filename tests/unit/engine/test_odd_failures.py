"""Exceptions and columns whose text can't be written."""

import json
from typing import Any

import pyarrow as pa
import pytest

from distilabel_dagster.dag.routing import RoutingBatchFunction
from distilabel_dagster.engine.row_source import RowSource
from distilabel_dagster.engine.wiring import choose_route
from distilabel_dagster.engine.worker import load_step, process_batch, unload_step
from distilabel_dagster.errors import StepLoadError, StepOutputError, StepProcessError
from distilabel_dagster.steps import Step
from tests.unit.engine.runs import BODIES, Bench, chain
from tests.unit.engine.test_worker import make_source, make_step, run


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NoTextError(Exception):
    def __str__(self) -> Any:
        return 1  # noqa: PLE0307  (the fault that is told of)


def raises(error: Exception) -> Any:
    def body(*_: Any) -> Any:
        raise error
        yield

    return body


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("bad \ud800 text"), r"ValueError: bad \ud800 text"),
        (MuteError(), "<MuteError without a text>"),
        (NoTextError(), "<NoTextError without a text>"),
    ],
)
def test_a_failed_batch_is_kept_with_a_text_that_can_be_written(error: Exception, told: str) -> None:
    output = run(make_step(raises(error)), [{"n": 1}])
    assert output.table.to_pylist() == [{"n": 1, "out": None}]
    assert output.errors[0].startswith(told + " (test_odd_failures.py:")
    assert type(error).__name__ in output.trace
    (output.errors[0] + output.trace).encode()
    with pytest.raises(StepProcessError) as caught:
        run(make_step(raises(error)), [{"n": 1}], on_error="raise")
    assert told in str(caught.value)
    with pytest.raises(StepProcessError) as caught:
        RowSource(make_source(raises(error)), 0).pull()
    assert told in str(caught.value)


def test_a_cause_is_escaped_in_the_trace_too() -> None:
    error = KeyError("outer")
    error.__cause__ = ValueError("inner \udfff")
    assert r"inner \udfff" in run(make_step(raises(error)), [{"n": 1}]).trace


@pytest.mark.parametrize("error", [ValueError("bad \ud800"), MuteError()])
def test_loading_and_unloading_may_fail_so(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    class Made(Step):
        def load(self) -> None:
            raise error

        def unload(self) -> None:
            raise error

        def process(self, inputs: Any) -> Any:
            yield inputs

    with pytest.raises(StepLoadError) as caught:
        load_step(Made(name="made"))
    unload_step(Made(name="made"))
    (str(caught.value) + caplog.text).encode()
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("error", [ValueError("bad \ud800"), MuteError()])
def test_a_run_with_such_failures_goes_to_its_end(error: Exception) -> None:
    def fail(*_: Any) -> Any:
        raise error

    BODIES["odd"] = fail
    bench = Bench(chain("odd", count=3))
    assert bench.run() == {"load": 2, "odd": 1}
    assert [row["odd"] for row in bench.rows("odd")] == [None] * 3


@pytest.mark.parametrize(("name", "told"), [("\ud800", r"\ud800"), ("a\0b", r"a\0b")])
def test_a_column_whose_name_cannot_be_kept_is_refused_by_name(name: str, told: str) -> None:
    def body(rows: Any) -> Any:
        yield [{**row, name: 1} for row in rows]

    def pull() -> Any:
        return RowSource(make_source(lambda offset: iter([([{name: 1}], True)])), 0).pull()

    for attempt in (lambda: run(make_step(body), [{"n": 1}]), pull):
        with pytest.raises(StepOutputError) as caught:
            attempt()
        assert f"Step `made` gave the column `{told}`" in str(caught.value)


def test_a_table_with_such_a_column_is_refused() -> None:
    class Made(Step):
        def process(self, inputs: Any) -> Any:
            yield inputs

        def process_table(self, table: pa.Table) -> pa.Table:
            return table.rename_columns(["a\0b"])

    with pytest.raises(StepOutputError, match=r"`a\\0b`"):
        process_batch(Made(name="made"), [pa.table({"n": [1]})], "impute", 0)


def test_what_rows_tell_of_their_failure_is_escaped_too() -> None:
    class Made(Step):
        def row_error(self, row: dict[str, Any]) -> str | None:
            return "odd \ud800" if row["n"] else None

        def process(self, inputs: Any) -> Any:
            yield inputs

    assert run(Made(name="made"), [{"n": 0}, {"n": 1}]).errors == {1: r"odd \ud800"}


def test_texts_in_other_alphabets_stay_as_they_are() -> None:
    output = run(make_step(raises(ValueError("größer 数 😀"))), [{"n": 1}])
    assert output.errors[0].startswith("ValueError: größer 数 😀 (")
    assert json.loads(json.dumps(output.errors[0], ensure_ascii=False)) == output.errors[0]


@pytest.mark.parametrize(
    ("error", "told"),
    [(MuteError(), "<MuteError without a text>"), (ValueError("\ud800"), r"ValueError: \\ud800")],
)
def test_a_routing_function_is_told_of_as_well(error: Exception, told: str) -> None:
    def choose(targets: list[str]) -> list[str]:
        raise error

    with pytest.raises(
        StepProcessError, match=rf"routing function of step `load` failed on batch 3: {told}\."
    ) as caught:
        choose_route(RoutingBatchFunction(choose), "load", ["a"], 3)
    str(caught.value).encode()
