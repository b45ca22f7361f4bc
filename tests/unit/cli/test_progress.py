import io
import logging

import pytest
from rich.console import Console

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cli.progress import BarView, CountingView, PlainView, listen
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine import events
from distilabel_dagster.ledger.usage import Usage
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts

_log = logging.getLogger("distilabel_dagster.pipeline")


@pytest.fixture
def dag() -> DAG:
    with Pipeline("p") as pipeline:
        LoadDataFromDicts(name="load", data=[{"text": "hey"}])
    return pipeline.dag


def test_events_and_warnings_are_lines_where_it_is_no_terminal() -> None:
    file = io.StringIO()
    with listen(PlainView(Console(file=file, width=30))):
        _log.info("told", extra={"event": events.RunFinished(3, 4)})
        _log.warning("told", extra={"event": events.StepWarning("load", "look [here]")})
        logging.getLogger("distilabel_dagster.cache").warning("a part is damaged")
        logging.getLogger("distilabel_dagster.cache").info("nobody asked")
        logging.getLogger("distilabel_dagster.step.load").info("the step's own words")
    _log.warning("after the end")
    assert [line.partition("] ")[2] for line in file.getvalue().splitlines()] == [
        "Finished: 3 batches computed, 4 reused",
        "WARNING Step `load`: look [here]",
        "WARNING a part is damaged",
        "the step's own words",
    ]


def test_logging_is_as_before_afterwards() -> None:
    package = logging.getLogger("distilabel_dagster")
    before = package.level, package.propagate, list(package.handlers)
    with listen(PlainView(Console(file=io.StringIO()))):
        assert package.isEnabledFor(logging.INFO)
    assert (package.level, package.propagate, list(package.handlers)) == before


def test_line_that_cannot_be_written_does_not_end_the_run() -> None:
    class Gone:
        def show(self, event: events.RunEvent) -> None:
            raise OSError(5, "Input/output error")

        def tell(self, text: str, *, is_warning: bool) -> None:
            raise OSError(5, "Input/output error")

    with listen(Gone()):
        _log.info("told", extra={"event": events.RunFinished(3, 4)})
        _log.warning("more")


def test_bar_of_a_step_ends_full_with_rows_rate_and_failures(dag: DAG) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, color_system=None)
    view = BarView(console, dag, {"load": "0" * 40}, CacheFileSystem("memory://bars"))
    with view.live():
        view.show(events.RunStarted({"load": events.StepState(1, 10, is_complete=False)}))
        view.show(events.StepStarted("load"))
        view.show(events.RowsFailed("load", 3, 2, "no answer"))
        view.show(events.StepFinished("load", 1010, 10, 1, 2, duration_s=10.0))
        view.show(events.RunFinished(10, 1))
    shown = file.getvalue()
    assert "Load pipeline from cache" in shown
    assert "2 rows of batch 3 failed" in shown
    assert "Finished: 10 batches computed, 1 reused" in shown
    assert "Step `load`: finished" not in shown
    assert "1,010 rows, 2 failed, 100 rows/s" in shown.splitlines()[-1] + shown.splitlines()[-2]


def test_calls_stand_below_the_bars_while_the_run_is_on_and_at_its_end(dag: DAG) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=160, color_system=None)
    view = BarView(console, dag, {"load": "0" * 40}, CacheFileSystem("memory://bars"))
    usage = Usage(1234, 56, 7000, 8000, cost_usd=0.25, failures={"rate_limit": 3})
    with view.live():
        view.show(events.RunStarted({"load": events.StepState(0, 0, is_complete=False)}))
        view.show(events.StepStarted("load"))
        assert "Calls:" not in file.getvalue()
        view.show(events.Progress({"load": 10}, {"load": usage, "other": Usage(1)}))
        while_on = file.getvalue()
        view.show(events.StepFinished("load", 20, 2, 0, 0, duration_s=1.0))
        view.show(events.RunFinished(2, 0, usage=Usage(2000, 60)))
    assert "Calls: 1235 calls, 56 reused, 7,000 tokens in, 8,000 out, $0.2500" in while_on
    assert "failed attempts: 3 rate_limit" in while_on
    assert "Progress:" not in file.getvalue()
    assert "Calls: 2000 calls, 60 reused" in "".join(file.getvalue().splitlines()[-2:])


def test_calls_are_in_the_lines_where_it_is_no_terminal() -> None:
    file = io.StringIO()
    with listen(PlainView(Console(file=file, width=30))):
        _log.info(
            "", extra={"event": events.Progress({"ask": 7}, {"ask": Usage(7, 3, 70, 140, cost_usd=0.5)})}
        )
    assert "`ask` 7 rows (7 calls, 3 reused, 70 tokens in, 140 out, $0.5000)" in file.getvalue()


def test_calls_of_several_ops_are_added_up() -> None:
    shown = PlainView(Console(file=io.StringIO()))
    view = CountingView(shown)
    view.show(events.StepFinished("load", 5, 1, 0, 0, 0.0))
    view.show(events.StepFinished("ask", 5, 1, 0, 0, 0.0, Usage(50)))
    view.show(events.RunFinished(1, 0, usage=Usage(5, 2)))
    view.show(events.StepFinished("answer", 5, 1, 0, 0, 0.0, Usage(7)))
    view.show(events.RunFinished(1, 0, usage=Usage(3)))
    view.show(events.RunFinished(1, 0))
    assert view.usage == Usage(8, 2)
    assert view.usage_in_all == Usage(57)
