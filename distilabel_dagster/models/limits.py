"""How many calls an endpoint gets: a cap, a cool-down that all its callers share, and a way back after overload."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Literal, Protocol

Outcome = Literal["answered", "overloaded", "failed"]
_WINDOW: Final = 32
_OVERLOADED_SHARE: Final = 0.3
_DOWN_AFTER: Final = 5


class CallsStopped(BaseException):
    """A stop was asked for while a call waited for its turn; it wasn't made.

    It isn't an `Exception`, so that a task's own handling of failures doesn't take it for one.
    """


class Pace(Protocol):
    """Spreads calls over time, for endpoints that count requests or tokens per minute."""

    async def wait(self, tokens: int) -> None:
        """Wait until a call that will use about `tokens` may begin."""
        ...

    async def settle(self, estimated: int, used: int) -> None:
        """Tell what a call has used."""
        ...


class _Slot:
    """A place in flight for the length of a block; a class, as `contextlib`'s way costs a call more than all else here."""

    __slots__ = ("_is_retry", "_limiter", "_tokens")

    def __init__(self, limiter: "EndpointLimiter", tokens: int, is_retry: bool) -> None:
        self._limiter = limiter
        self._tokens = tokens
        self._is_retry = is_retry

    async def __aenter__(self) -> None:
        await self._limiter.acquire(self._tokens, is_retry=self._is_retry)

    async def __aexit__(self, *exc_info: object) -> None:
        self._limiter.release()


class EndpointLimiter:
    """The calls to one model at one endpoint, for all steps of a run; belongs to one event loop.

    The cap is kept at any moment, and calls begin in the order in which they came. Where a good part of the answers
    says "too much", the cap is halved (at most once in a while), and grows back by one for each full round of good
    answers (additive increase, multiplicative decrease, as in congestion control: RFC 5681).

    Attributes:
        max_concurrency: the cap.
        capacity: what the cap is at the moment.
        in_flight: calls on the wire.
    """

    def __init__(self, max_concurrency: int, pace: Pace | None = None) -> None:
        self.max_concurrency = max_concurrency
        self.capacity = max_concurrency
        self.in_flight = 0
        self.pace = pace
        self.is_stopped = False
        self.answered_at = float("-inf")
        self._queue: deque[asyncio.Future[None]] = deque()
        self._queue_again: deque[asyncio.Future[None]] = deque()
        self._quiet_until = 0.0
        self._window: deque[bool] = deque(maxlen=max(_WINDOW, max_concurrency))
        self._good = 0
        self._exhausted = 0
        self._stopping: asyncio.Event | None = None

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._queue) + len(self._queue_again)

    def slot(self, tokens: int = 0, *, is_retry: bool = False) -> "_Slot":
        """Hold one of the places in flight for the length of an `async with`; wait for it, and for the pace.

        Args:
            tokens: what the call will use, as far as one can tell.
            is_retry: whether it's another attempt of a call; those go before calls that weren't made yet.

        Raises:
            CallsStopped: a stop came first.
        """
        return _Slot(self, tokens, is_retry)

    async def acquire(self, tokens: int, *, is_retry: bool) -> None:
        """Take a place in flight, as `slot` does."""
        await self._acquire(self._queue_again if is_retry else self._queue)
        try:
            if self.pace is not None:
                await self._unless_stopped(self.pace.wait(tokens))
            await self._wait_until_quiet_ends()
            self._check_running()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give a place in flight back."""
        self.in_flight -= 1
        self._wake()

    def _check_running(self) -> None:
        if self.is_stopped:
            raise CallsStopped

    async def _acquire(self, queue: deque[asyncio.Future[None]]) -> None:
        self._check_running()
        if not self.waiting and self._has_room():
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.in_flight -= 1  # the turn came together with the cancellation
                self._wake()
            elif turn in queue:
                queue.remove(turn)
            raise

    async def _wait_until_quiet_ends(self) -> None:
        """Sit out a cool-down that began after the call got its place."""
        loop = asyncio.get_running_loop()
        while (left_s := self._quiet_until - loop.time()) > 0:
            await self.pause(left_s)

    def _has_room(self) -> bool:
        return self.in_flight < self.capacity and asyncio.get_running_loop().time() >= self._quiet_until

    def _wake(self) -> None:
        while self.waiting and self._has_room():
            turn = (self._queue_again or self._queue).popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def cool_down(self, seconds: float) -> None:
        """Begin no call for so long; what is in flight goes on."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if until > self._quiet_until:
            self._quiet_until = until
            loop.call_at(until, self._end_quiet, until)

    def _end_quiet(self, until: float) -> None:
        # A timer may fire a little early, within the clock's resolution, and none follows it.
        if until == self._quiet_until:
            self._quiet_until = float("-inf")
        self._wake()

    async def pause(self, seconds: float) -> None:
        """Sleep between two attempts.

        Raises:
            CallsStopped: a stop came first.
        """
        await self._unless_stopped(asyncio.sleep(seconds))

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, None]) -> None:
        if self._stopping is None:
            self._stopping = asyncio.Event()
            if self.is_stopped:
                self._stopping.set()
        waiter = asyncio.ensure_future(waiting)
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({waiter, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not waiter.done():
                raise CallsStopped
            waiter.result()
        finally:
            waiter.cancel()
            stop.cancel()

    def stop(self) -> None:
        """Begin no call any more: all that wait get `CallsStopped`; what is in flight goes on."""
        self.is_stopped = True
        if self._stopping is not None:
            self._stopping.set()
        waiting = [*self._queue_again, *self._queue]
        self._queue_again.clear()
        self._queue.clear()
        for turn in waiting:
            if not turn.done():
                turn.set_exception(CallsStopped())

    def note(self, outcome: Outcome) -> None:
        """Take in how an attempt ended; the cap follows."""
        self._window.append(outcome == "overloaded")
        if outcome == "overloaded":
            self._good = 0
            is_full = len(self._window) == self._window.maxlen
            if is_full and sum(self._window) > _OVERLOADED_SHARE * len(self._window):
                self.capacity = max(1, self.capacity // 2)
                self._window.clear()
            return
        if outcome == "answered":
            self.answered_at = asyncio.get_running_loop().time()
            self._exhausted = 0
            self._good += 1
            if self._good >= self.capacity and self.capacity < self.max_concurrency:
                self._good = 0
                self.capacity += 1
                self._wake()

    def note_given_up(self, first_attempt_at: float, *, is_unreachable: bool) -> bool:
        """Take in that a call used up its attempts; tell whether the endpoint is down.

        It's down when nothing was answered since the call's first attempt, and either it can't be reached at all or
        several calls in a row had this end: one call alone may be at fault itself.

        Args:
            first_attempt_at: the loop's time of the call's first attempt.
            is_unreachable: no connection could be made.
        """
        if self.answered_at >= first_attempt_at:
            return False
        self._exhausted += 1
        return is_unreachable or self._exhausted >= _DOWN_AFTER
