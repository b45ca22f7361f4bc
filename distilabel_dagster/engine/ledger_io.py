"""The ledger off the event loop: what many calls want of it at the same time goes there in one transaction."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.engine.worker import ThreadWorker
from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.calls import (
    Begun,
    FailedAttempt,
    Paid,
    StepInRun,
    StoredResponse,
)
from distilabel_dagster.ledger.processes import read_elapsed
from distilabel_dagster.ledger.responses import ResponseLedger

_SILENT_AFTER_S: Final = 20.0


@dataclass(slots=True)
class _Round:
    """What the next two transactions do: one keeps what came, one says what is there for those who ask."""

    kept: "asyncio.Future[dict[bytes, StoredResponse]]"
    begun: "asyncio.Future[Begun]"
    waiting: "list[asyncio.Future[dict[bytes, StoredResponse]]]" = field(default_factory=list)
    wanted: dict[StepInRun, list[bytes]] = field(default_factory=dict)
    paid: list[Paid] = field(default_factory=list)
    failed: list[FailedAttempt] = field(default_factory=list)
    released: list[bytes] = field(default_factory=list)

    def tell(self, kept: "asyncio.Future[dict[bytes, StoredResponse]]") -> None:
        """Pass on to those who wait what came of keeping."""
        error = None if kept.cancelled() else kept.exception()
        for each in self.waiting:
            if each.done():
                continue
            if kept.cancelled():
                each.cancel()
            elif error is not None:
                each.set_exception(error)
            else:
                each.set_result(kept.result())


def _build_round() -> _Round:
    loop = asyncio.get_running_loop()
    made = _Round(loop.create_future(), loop.create_future())
    for each in (made.kept, made.begun):
        # Seen here, so that a failure which nobody waits for isn't reported by the event loop as well.
        each.add_done_callback(lambda done: done.cancelled() or done.exception())
    return made


class LedgerIO:
    """A run's way to its ledger; belongs to the event loop.

    While one round is written, the next fills up: a slow disk makes larger rounds, not a queue.

    Args:
        open_ledger: opens the ledger, when it's needed for the first time; gives None where the cache has none, and
            then nothing is kept.
    """

    def __init__(self, open_ledger: Callable[[], ResponseLedger | None]) -> None:
        self._open_ledger = open_ledger
        self._ledger: ResponseLedger | None = None
        self._is_open = False
        self._is_closed = False
        self._worker: ThreadWorker | None = None
        self._round: _Round | None = None
        self._writing: asyncio.Task[None] | None = None
        self._reached_at = read_elapsed()

    @property
    def is_silent(self) -> bool:
        """Whether the ledger wasn't reached for so long (a pause, a machine asleep) that others may have taken over."""
        return read_elapsed() - self._reached_at > _SILENT_AFTER_S

    def open(self) -> ResponseLedger | None:
        """Give the ledger, ready for claims; from any thread, while nothing is written.

        Raises:
            CacheError: it can't be opened.
        """
        if not self._is_open:
            self._ledger = self._open_ledger()
            if self._ledger is not None:
                self._ledger.open_claims()
            self._is_open = True
        return self._ledger

    def run(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """Run a function in the thread of the ledger."""
        if self._worker is None:
            self._worker = ThreadWorker("ledger")
        return self._worker.submit(function, *arguments)

    async def begin(self, step: StepInRun, keys: Sequence[bytes]) -> Begun:
        """Look keys up, and claim those that nobody has answered or is asking about.

        Raises:
            CacheError: the ledger can't be read or written.
        """
        turn = self._next_round()
        turn.wanted.setdefault(step, []).extend(keys)
        return await asyncio.shield(turn.begun)

    async def store(self, paid: Sequence[Paid]) -> dict[bytes, StoredResponse]:
        """Keep what was answered; when this returns it's durable.

        Returns:
            Those of other runs that came first under some of the keys, and stay.

        Raises:
            CacheError: the ledger can't be written.
        """
        if not paid:
            return {}
        turn = self._next_round()
        turn.paid += paid
        # A future of one's own costs half of a shield, and this is where all answers go through.
        kept: asyncio.Future[dict[bytes, StoredResponse]] = asyncio.get_running_loop().create_future()
        turn.waiting.append(kept)
        if len(turn.waiting) == 1:
            turn.kept.add_done_callback(turn.tell)
        return await kept

    def note_failure(self, attempt: FailedAttempt) -> None:
        """Record an attempt that failed, with the next round."""
        self._next_round().failed.append(attempt)

    def release(self, keys: Sequence[bytes]) -> None:
        """Give back claims of calls that weren't answered, with the next round."""
        if keys:
            self._next_round().released += keys

    def _next_round(self) -> _Round:
        if self._is_closed:  # only calls that are given up come so late, and their claims end with the ledger
            late = _build_round()
            late.kept.cancel()
            late.begun.cancel()
            return late
        if self._round is None:
            self._round = _build_round()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write())
        return self._round

    async def _write(self) -> None:
        while self._round is not None:
            await asyncio.sleep(0)  # what is ready to join does
            turn, self._round = self._round, None
            if turn.paid or turn.failed or turn.released:
                await self._execute(turn.kept, self._keep, turn)
            if turn.wanted:
                await self._execute(turn.begun, self._begin, turn)

    async def _execute(
        self, done: "asyncio.Future[Any]", function: Callable[[_Round], Any], turn: _Round
    ) -> None:
        try:
            done.set_result(await self.run(function, turn))
            self._reached_at = read_elapsed()
        except Exception as error:  # noqa: BLE001  (handed to all that wait)
            done.set_exception(error)

    def _keep(self, turn: _Round) -> dict[bytes, StoredResponse]:
        ledger = self.open()
        others: dict[bytes, StoredResponse] = {}
        if ledger is None:
            return others
        if turn.paid or turn.failed:
            others = ledger.store(turn.paid, turn.failed)
            for each in turn.paid:
                reach("call.kept", each.step.step)
        if turn.released:
            ledger.release(turn.released)
        return others

    def _begin(self, turn: _Round) -> Begun:
        ledger = self.open()
        if ledger is None:
            keys = frozenset(key for asked in turn.wanted.values() for key in asked)
            return Begun({}, keys, frozenset())
        return ledger.begin(turn.wanted)

    async def close(self) -> None:
        """Write what is left, and close the ledger; failures to do so are the next run's to find."""
        while self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing})
        self._is_closed = True
        if self._ledger is not None:
            with contextlib.suppress(CacheError):
                await self.run(self._ledger.close)
            self._is_open = False
        if self._worker is not None:
            self._worker.close()
