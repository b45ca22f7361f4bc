"""A run on the terminal: a bar per step, or plain lines where it's no terminal."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.step_store import StepStore, count_failed_rows
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine import events
from distilabel_dagster.engine.tally import describe_usage
from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.usage import Usage, add_up

_PACKAGE: Final = "distilabel_dagster"
_LOOK_EVERY_S: Final = 0.5
_LOOK_PATIENCE_S: Final = 5.0
_SHARE_OF_LOOKING: Final = 0.05
_SHOWN_BY_BARS: Final = (events.StepStarted, events.Progress, events.StepFinished)


class RunView(Protocol):
    """What shows a run."""

    def show(self, event: events.RunEvent) -> None:
        """Show what happened."""

    def tell(self, text: str, *, is_warning: bool) -> None:
        """Show a line that is no event."""


class _ViewHandler(logging.Handler):
    def __init__(self, view: RunView) -> None:
        super().__init__(logging.INFO)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        with contextlib.suppress(OSError):  # a terminal that has gone doesn't end a run
            if isinstance(event, events.RunEvent):
                self._view.show(event)
            elif record.levelno >= logging.WARNING or record.name.startswith(f"{_PACKAGE}.step"):
                self._view.tell(record.getMessage(), is_warning=record.levelno >= logging.WARNING)


@contextlib.contextmanager
def listen(view: RunView) -> Iterator[None]:
    """Bring the package's log, the engine's events first of all, to a view for the length of the block."""
    logger, handler = logging.getLogger(_PACKAGE), _ViewHandler(view)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class PlainView:
    """A line an event."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, event: events.RunEvent) -> None:
        """Show what happened."""
        self.tell(str(event), is_warning=event.level == "warning")

    def tell(self, text: str, *, is_warning: bool) -> None:
        """Show a line that is no event."""
        now = time.strftime("%H:%M:%S")
        level = "WARNING " if is_warning else ""
        self._console.print(Text(f"[{now}] {level}{text}"), soft_wrap=True)


class CountingView:
    """Adds up what calls to models came to, and hands all on to another view.

    Args:
        view: what shows the run.

    Attributes:
        usage: of this run, as far as its ops have finished.
    """

    def __init__(self, view: RunView) -> None:
        self._view = view
        self.usage = Usage()
        self._in_all: dict[str, Usage] = {}

    @property
    def usage_in_all(self) -> Usage:
        """What the calls of the steps that have finished came to in all runs."""
        return add_up(self._in_all.values())

    def show(self, event: events.RunEvent) -> None:
        """Show what happened."""
        if isinstance(event, events.RunFinished) and event.usage is not None:
            self.usage += event.usage
        elif isinstance(event, events.StepFinished) and event.usage is not None:
            self._in_all[event.step] = event.usage
        self._view.show(event)

    def tell(self, text: str, *, is_warning: bool) -> None:
        """Show a line that is no event."""
        self._view.tell(text, is_warning=is_warning)


class _Bars(Progress):
    """Bars, and below them a line about calls."""

    told = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Give what stands on the terminal."""
        yield self.make_tasks_table(self.tasks)
        if self.told:
            yield Text(self.told, "dim")


class BarView:
    """A bar per step with its committed rows; what a person should read stands above the bars.

    A bar fills as the step uses up its predecessor's rows, which is known once that one is complete. How far the
    steps are is read from the cache, a few times a second at most and never for more than a twentieth of the time. Where
    models are called, a line below the bars says what the calls of the run come to.

    Args:
        console: a terminal.
        dag: the pipeline's graph.
        signatures: step -> its signature.
        fs: the cache's files.
    """

    def __init__(
        self, console: Console, dag: DAG, signatures: Mapping[str, str], fs: CacheFileSystem
    ) -> None:
        self._dag = dag
        self._stores = {name: StepStore(fs, name, each) for name, each in signatures.items()}
        self._console = console
        self._bars = _Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}", justify="right"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=5,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._rows_before: dict[str, int] = {}
        self._running: dict[str, float] = {}
        self._finished: set[str] = set()
        self._usage: dict[str, Usage] = {}
        self._ended = threading.Event()

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Keep the bars in view and current for the length of the block."""
        looking = threading.Thread(target=self._look, name="progress", daemon=True)
        try:
            with self._bars:
                looking.start()
                yield
        finally:
            self._ended.set()
            looking.join(_LOOK_PATIENCE_S)  # a daemon, which a disk that doesn't answer may hold up

    def show(self, event: events.RunEvent) -> None:
        """Show what happened."""
        match event:
            case events.RunStarted():
                self._begin(event)
            case events.StepStarted():
                self._running[event.step] = time.monotonic()
                self._bars.start_task(self._tasks[event.step])
            case events.Progress():
                self._usage |= event.usage
                self._tell_calls(add_up(self._usage.values()))
            case events.StepFinished():
                self._finish(event)
            case events.RunFinished() if event.usage is not None:
                self._tell_calls(event.usage)
        if not isinstance(event, _SHOWN_BY_BARS):
            self.tell(str(event), is_warning=event.level == "warning")

    def tell(self, text: str, *, is_warning: bool) -> None:
        """Show a line that is no event."""
        self._console.print(Text(text, "yellow" if is_warning else ""), soft_wrap=True)

    def _begin(self, event: events.RunStarted) -> None:
        for name in self._dag.topological_order():
            if name in event.steps and name not in self._tasks:
                rows = event.steps[name].rows
                self._rows_before[name] = rows
                self._tasks[name] = self._bars.add_task(name, start=False, total=None, told=f"{rows} rows")

    def _finish(self, event: events.StepFinished) -> None:
        self._running.pop(event.step, None)
        self._finished.add(event.step)
        told = _tell_rows(event.rows, event.rows_failed)
        if event.duration_s and event.batches_computed:
            told += _tell_rate(event.rows - self._rows_before[event.step], event.duration_s)
        task = self._tasks[event.step]
        self._bars.update(task, total=1, completed=1, told=told)
        self._bars.stop_task(task)

    def _tell_calls(self, usage: Usage) -> None:
        self._bars.told = f"Calls: {describe_usage(usage)}"
        self._bars.refresh()

    def _look(self) -> None:
        pause = _LOOK_EVERY_S
        while not self._ended.wait(pause):
            began = time.monotonic()
            for name, since in list(self._running.items()):
                with contextlib.suppress(CacheError, OSError):
                    self._update(name, time.monotonic() - since)
            pause = max(_LOOK_EVERY_S, (time.monotonic() - began) / _SHARE_OF_LOOKING)

    def _update(self, name: str, elapsed_s: float) -> None:
        store = self._stores[name]
        store.open()
        rows = sum(record.size for record in store.records)
        made = rows - self._rows_before[name]
        told = (
            f"{_tell_rows(rows, count_failed_rows(store.records))}, {made / max(elapsed_s, 0.1):,.0f} rows/s"
        )
        total = used = None
        predecessors = self._dag.predecessors(name)
        if predecessors and self._finished.issuperset(predecessors):
            total, used = self._count_input(predecessors[0], store.records)
        if name in self._running:
            self._bars.update(self._tasks[name], total=total, completed=used, told=told)

    def _count_input(self, predecessor: str, records: list[BatchRecord]) -> tuple[int, int]:
        """Rows that a complete predecessor has, and how many of them are used up."""
        before = self._stores[predecessor]
        if not before.is_complete:
            before.open()
        used = sum(source.rows_used for each in records for source in each.sources.get(predecessor, []))
        return sum(record.size for record in before.records), used


def _tell_rows(rows: int, failed: int) -> str:
    return f"{rows:,} rows" + (f", {failed:,} failed" if failed else "")


def _tell_rate(rows: int, elapsed_s: float) -> str:
    rate = max(rows, 0) / max(elapsed_s, 0.1)
    return f", {rate:,.1f} rows/s" if rate < 10 else f", {rate:,.0f} rows/s"
