"""What the steps of a run share while it's on."""

import asyncio
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from distilabel_dagster.engine.events import RunEvent
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.engine.tally import Tally
from distilabel_dagster.engine.worker import OnError

END: Final = None
"""Put behind the last event."""

WhenInUse = Literal["raise", "wait"]
"""What a run does when another one writes its steps: end with an error that says who, or wait for that one's end."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes; none of it changes what rows come out.

    Attributes:
        on_error: what becomes of a batch on which an ordinary step fails: "impute" keeps its rows without the step's
            outputs, "raise" fails the run.
        use_cache: False computes all steps of the run anew.
        retry_failed: whether rows that failed in an earlier run are tried again.
        grace_period_s: seconds that batches being computed get to finish at a stop.
        max_generator_batches: batches after which a generator step is ended, for trying a pipeline out.
        max_rows_ahead: rows that a step may be ahead of the step nearest behind it.
        max_pending_bytes: bytes of rows that may wait to be committed, of all steps together; beyond it none makes more.
        max_held_bytes: bytes of rows that all steps together may hold in memory; beyond it a step makes more only where
            one behind it lacks rows.
        max_cost_usd: US dollars that the calls of the pipeline may cost under its signature, earlier runs included;
            at the limit the run is stopped.
        run_id: what the ledger calls the run; made up where none is given.
        when_in_use: what the run does when another one writes a step that it's to write.
        max_new_calls: calls that each step may make beyond what the ledger has; a step that needs more ends there, and
            what doesn't follow it goes on. None for any number.
    """

    on_error: OnError = "impute"
    use_cache: bool = True
    retry_failed: bool = True
    grace_period_s: float = 30.0
    max_generator_batches: int | None = None
    max_rows_ahead: int = 20_000
    max_pending_bytes: int = 64 * 1024 * 1024
    max_held_bytes: int = 96 * 1024 * 1024
    max_cost_usd: float | None = None
    run_id: str = ""
    when_in_use: WhenInUse = "raise"
    max_new_calls: int | None = None


class WriteLease(Protocol):
    """Proof that this run alone writes to some steps' directories."""

    def check(self) -> None:
        """Raise if it was lost."""
        ...

    def release(self) -> None:
        """Give it back; safe to repeat."""
        ...


class RunState:
    """The logs of all steps, the wish to stop, and a way to wait for either to change.

    Everything but `emit` belongs to the event loop's thread.
    """

    def __init__(self, logs: dict[str, OutputLog], options: RunOptions) -> None:
        self.logs = logs
        self.options = options
        self.events: queue.SimpleQueue[RunEvent | None] = queue.SimpleQueue()
        self.is_stopping = False
        self.repaired: set[str] = set()
        self.finished: set[str] = set()
        self.lease: WriteLease | None = None
        self.tallies: dict[str, Tally] = {}
        self.ended: set[str] = set()
        self.request_stop: Callable[[str], None] = lambda _: None
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def pending_bytes(self) -> int:
        """Bytes of the rows of all steps that wait to be committed."""
        return sum(log.pending_bytes for log in self.logs.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of the rows that all steps hold in memory, those that wait to be committed among them."""
        return sum(log.held_bytes for log in self.logs.values())

    def emit(self, event: RunEvent) -> None:
        """Tell the outside; never blocks."""
        self.events.put(event)

    def check_lease(self) -> None:
        """Make sure that this run is still the one that writes; call it before each write.

        Raises:
            StepInUseError: another run has taken over.
        """
        if self.lease is not None:
            self.lease.check()

    def notify(self) -> None:
        """Let all that wait look again."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, is_reached: Callable[[], bool]) -> None:
        """Wait until `is_reached()`."""
        while not is_reached():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
