"""One call with its attempts: which failures are tried again, when, and what comes of it in the end."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from distilabel_dagster.errors import ModelCallError, ModelUnavailableError
from distilabel_dagster.models.limits import EndpointLimiter
from distilabel_dagster.models.provider_errors import FAILURE_KINDS

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_LONGEST_WAIT_S: Final = 3_600.0
_TOLD_WAIT_S: Final = 30.0
_MOST_DOUBLINGS: Final = 16
_OVERLOADED: Final = "rate_limit"
_SHARE_WHILE_OTHERS_ARE_ANSWERED: Final = 0.1
_T = TypeVar("_T")
_logger = logging.getLogger("distilabel_dagster.llm")


@dataclass(frozen=True, slots=True)
class Answered(Generic[_T]):
    """What came of a call.

    Attributes:
        value: what the attempt that succeeded gave.
        attempts: how many it took.
        latency_s: seconds that the last one took.
    """

    value: _T
    attempts: int
    latency_s: float


async def call_with_retries(
    attempt: Callable[[], Awaitable[_T]],
    limiter: EndpointLimiter,
    *,
    max_retries: int,
    tokens: int = 0,
    on_failure: Callable[[ModelCallError], None] | None = None,
) -> Answered[_T]:
    """Make a call, and make it again after failures that pass.

    A failure's Retry-After holds all calls to the endpoint; without one, this call pauses for 0.5 s, then twice as
    long each time up to 30 s, less a random half of it. A place in flight is held during an attempt, and during a pause
    as long as the endpoint answers nobody. One that asks to wait for more than an hour can't be used now.

    Args:
        attempt: makes one attempt.
        limiter: the endpoint's.
        max_retries: attempts after the first.
        tokens: what an attempt will use, for endpoints that count tokens per minute.
        on_failure: told of each attempt that failed.

    Raises:
        ModelUnavailableError: no call to the endpoint can succeed now.
        ModelCallError: this call failed.
        CallsStopped: a stop came before an attempt.
        Exception: what `attempt` raised that isn't ours; it isn't tried again.
    """
    loop = asyncio.get_running_loop()
    course = _Course(limiter, max_retries)
    while True:
        async with limiter.slot(tokens, is_retry=course.attempts > 0):
            course.begin(loop.time())
            try:
                value = await attempt()
            except ModelCallError as error:
                failure = error
            except Exception:
                limiter.note("failed")
                raise
            else:
                limiter.note("answered")
                return Answered(value, course.attempts, loop.time() - course.begun_at)
            if on_failure is not None:
                on_failure(failure)
            pause_s = course.pause_after(failure)
            if not course.others_are_answered:
                # The endpoint may be down: those that wait shouldn't all try that out.
                await limiter.pause(pause_s)
                continue
        await limiter.pause(pause_s)


class _Course:
    """How a call comes along over its attempts."""

    def __init__(self, limiter: EndpointLimiter, max_retries: int) -> None:
        self._limiter = limiter
        self._max_retries = max_retries
        self._first_begun_at: float | None = None
        self._used_up = 0.0
        self.attempts = 0
        self.begun_at = 0.0

    def begin(self, now: float) -> None:
        """Begin an attempt."""
        self.attempts += 1
        self.begun_at = now
        if self._first_begun_at is None:
            self._first_begun_at = now

    @property
    def others_are_answered(self) -> bool:
        """Whether the endpoint has answered any call since this attempt began."""
        return self._limiter.answered_at >= self.begun_at

    def pause_after(self, failure: ModelCallError) -> float:
        """Take a failure in, and give the seconds after which to try again; 0 where all calls cool down.

        Raises:
            ModelCallError: it isn't tried again.
        """
        is_overload = failure.kind == _OVERLOADED
        # To come back at once is no wait that an endpoint could mean.
        wait_s = failure.retry_after_s or None
        self._limiter.note("overloaded" if is_overload and wait_s is None else "failed")
        # "Too many calls" while others are answered is a queue, not a failure.
        is_queue = is_overload and self.others_are_answered
        self._used_up += _SHARE_WHILE_OTHERS_ARE_ANSWERED if is_queue else 1.0
        if self._used_up > self._max_retries or not FAILURE_KINDS[failure.kind].is_retried:
            raise _conclude(failure, self.attempts, self._limiter, self._first_begun_at or 0.0)
        if wait_s is not None:
            if wait_s > _LONGEST_WAIT_S:
                raise _build_unavailable_error(failure, self.attempts)
            if wait_s > _TOLD_WAIT_S:
                _logger.warning("%s It asks to wait for %.0f s, and that is waited for.", failure, wait_s)
            self._limiter.cool_down(wait_s)
            return 0.0
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self.attempts - 1, _MOST_DOUBLINGS))
        return float(longest * random.uniform(0.5, 1.0))


def _conclude(
    failure: ModelCallError, attempts: int, limiter: EndpointLimiter, first_attempt_at: float
) -> ModelCallError:
    """Give the error of a call that isn't tried again: of its own, or of all calls to the endpoint."""
    kind = FAILURE_KINDS[failure.kind]
    is_unreachable = failure.kind == "connection"
    if kind.ends_run or (
        kind.is_retried and limiter.note_given_up(first_attempt_at, is_unreachable=is_unreachable)
    ):
        return _build_unavailable_error(failure, attempts)
    return failure


def _build_unavailable_error(failure: ModelCallError, attempts: int) -> ModelUnavailableError:
    told = str(failure)
    if attempts > 1:
        told = f"{told} That was said {attempts} times."
    error = ModelUnavailableError(told, **failure.__dict__)
    error.__cause__ = failure
    return error
