import asyncio
import logging
import re

import pyarrow as pa
import pytest

from distilabel_dagster.engine.row_source import RowSource
from distilabel_dagster.engine.worker import ThreadWorker, load_step, process_batch, unload_step
from distilabel_dagster.errors import ColumnTypeError, StepLoadError, StepOutputError, StepProcessError
from distilabel_dagster.steps import GeneratorStep, GlobalStep, Step, step


def make_step(body, base=Step, **fields):
    class Made(base):
        @property
        def outputs(self):
            return ["out"]

        def process(self, *inputs):
            return body(*inputs)

    return Made(name="made", **fields)


def make_source(body):
    class Made(GeneratorStep):
        def process(self, offset=0):
            return body(offset)

    return Made(name="made")


def run(made, *tables, on_error="impute"):
    return process_batch(made, [pa.Table.from_pylist(rows) for rows in tables], on_error, 3)


def fail(*_):
    raise ValueError("no")
    yield


def test_several_yields_are_put_together() -> None:
    def body(rows):
        yield rows
        yield [{"n": 9}]

    assert run(make_step(body), [{"n": 1}]).table.to_pylist() == [{"n": 1}, {"n": 9}]


def test_a_failing_batch_keeps_its_rows_without_the_step_s_outputs() -> None:
    output = run(make_step(fail), [{"n": 1}, {"n": 2}])
    assert output.table.to_pylist() == [{"n": 1, "out": None}, {"n": 2, "out": None}]
    assert list(output.errors) == [0, 1]
    assert all(
        re.fullmatch(r"ValueError: no \(test_worker\.py:\d+\)", told) for told in output.errors.values()
    )
    assert "Traceback" in output.trace
    assert "ValueError: no" in output.trace


def test_a_failing_batch_fails_the_run_if_asked() -> None:
    with pytest.raises(StepProcessError, match=r"`made` failed on batch 3 \(1 rows\): ValueError: no"):
        run(make_step(fail), [{"n": 1}], on_error="raise")


def test_a_global_step_s_failure_is_never_kept_as_failed_rows() -> None:
    with pytest.raises(StepProcessError):
        run(make_step(fail, GlobalStep), [{"n": 1}])


@pytest.mark.parametrize(
    "error", [SystemExit(2), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
)
def test_a_step_that_would_end_the_program_fails_the_run_instead(error: BaseException) -> None:
    def leave(*_):
        raise error

    with pytest.raises(StepProcessError, match=type(error).__name__):
        run(make_step(leave), [{"n": 1}])
    made = make_step(fail)
    object.__setattr__(made, "load", leave)
    with pytest.raises(StepLoadError, match=type(error).__name__):
        load_step(made)
    with pytest.raises(StepProcessError, match=type(error).__name__):
        RowSource(make_source(leave), 0).pull()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (lambda rows: rows, "returned a list, expected a generator"),
        (lambda rows: None, "returned a NoneType"),
        (lambda rows: iter([{"n": 1}]), "yielded a dict, expected a list of rows"),
        (lambda rows: iter([[1]]), "item 0 is a int"),
        (lambda rows: iter([[{1: 2}]]), "column 1, which isn't a string"),
        (lambda rows: iter([[{}]]), "without any column"),
    ],
)
def test_output_that_is_no_list_of_rows_is_an_error_whatever_the_policy(body, told: str) -> None:
    with pytest.raises(StepOutputError, match=told) as caught:
        run(make_step(body), [{"n": 1}])
    assert "made" in str(caught.value)


def test_values_without_a_common_type_are_an_error_that_names_the_column() -> None:
    with pytest.raises(ColumnTypeError, match=r"`made`.*`n`"):
        run(make_step(lambda rows: iter([[{"n": 1}, {"n": "x"}]])), [{"n": 1}])


def test_a_step_is_not_called_without_rows() -> None:
    assert run(make_step(fail), []).table.num_rows == 0


def test_a_step_can_say_which_rows_failed() -> None:
    made = make_step(lambda rows: iter([rows]))
    object.__setattr__(made, "row_error", lambda row: "odd" if row["n"] % 2 else None)
    assert run(made, [{"n": 1}, {"n": 2}]).errors == {0: "odd"}


def test_a_generator_that_reads_its_offset_starts_there() -> None:
    source = RowSource(make_source(lambda offset: iter([([{"n": offset}], True)])), 7)
    output, last_batch = source.pull()
    assert (output.table.to_pylist(), last_batch) == ([{"n": 7}], True)


def test_a_generator_that_ignores_its_offset_is_started_anew_and_skipped() -> None:
    class Forgetful(GeneratorStep):
        def process(self, offset=0):
            yield [{"n": 0}, {"n": 1}], False
            yield [{"n": 2}, {"n": 3}], True

    source = RowSource(Forgetful(name="made"), 3)
    output, last_batch = source.pull()
    assert (output.table.to_pylist(), last_batch) == ([{"n": 3}], True)


def test_a_function_generator_is_looked_at_as_well() -> None:
    @step(outputs=["n"], step_type="generator")
    def forgetful(offset: int = 0):
        yield [{"n": 0}, {"n": 1}], True

    output, _ = RowSource(forgetful(name="made"), 1).pull()
    assert output.table.to_pylist() == [{"n": 1}]


def test_batches_without_rows_are_passed_over_but_the_last() -> None:
    source = RowSource(
        make_source(lambda offset: iter([([], False), ([{"n": offset}], False), ([], True)])), 0
    )
    assert source.pull()[0].table.num_rows == 1
    output, last_batch = source.pull()
    assert (output.table.num_rows, last_batch) == (0, True)


def test_a_generator_that_ends_without_saying_so_has_ended() -> None:
    assert RowSource(make_source(lambda offset: iter([])), 0).pull() is None


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([{"n": 1}], "yielded a list, expected a pair"),
        (({"n": 1}, True), "yielded a dict"),
        ((1, True), "yielded a int"),
    ],
)
def test_a_generator_must_yield_rows_and_whether_they_are_the_last(made, told: str) -> None:
    with pytest.raises(StepOutputError, match=told):
        RowSource(make_source(lambda offset: iter([made])), 0).pull()


def test_a_generator_must_be_one() -> None:
    with pytest.raises(StepOutputError, match="returned a list, expected a generator"):
        RowSource(make_source(lambda offset: [([], True)]), 0).pull()


def test_a_generator_s_error_says_that_committed_rows_stay() -> None:
    def body(offset):
        raise OSError("gone")

    with pytest.raises(StepProcessError, match=r"`made` failed while it made rows: OSError: gone"):
        RowSource(make_source(body), 0).pull()


def test_a_failing_unload_is_only_logged(caplog) -> None:
    made = make_step(fail)
    object.__setattr__(made, "unload", lambda: 1 / 0)
    with caplog.at_level(logging.WARNING):
        unload_step(made)
    assert "`made`: `unload()` failed: ZeroDivisionError" in caplog.text


def test_a_thread_runs_its_jobs_in_order_and_hands_on_what_they_raise() -> None:
    async def main():
        worker = ThreadWorker("test")
        done = [worker.submit(lambda n=n: n * n) for n in range(5)]
        failed = worker.submit(lambda: 1 / 0)
        results = await asyncio.gather(*done)
        with pytest.raises(ZeroDivisionError):
            await failed
        worker.close()
        return results

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]
