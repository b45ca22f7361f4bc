"""The limits of a run's models: one for each model at each endpoint, whichever steps use it."""

import asyncio
import functools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Final, Protocol

from distilabel_dagster.engine.calls import Request
from distilabel_dagster.ledger.calls import Paid, StoredResponse
from distilabel_dagster.models.limits import CallsStopped, EndpointLimiter
from distilabel_dagster.models.model import RemoteModel

_CHARACTERS_PER_TOKEN: Final = 4
_BLOCKS_PER_MINUTE: Final = 240
_HORIZON_S: Final = 2.0


class Rates(Protocol):
    """Amounts per minute, shared by all who share a ledger."""

    def reserve(
        self, limit_key: str, amount: float, per_minute: float, now: float, *, horizon_s: float = inf
    ) -> float:
        """Take an amount, and give the time from which it may be used, in seconds since 1970.

        A time beyond the horizon means that nothing was taken: ask again by then.
        """
        ...

    def settle(self, limit_key: str, difference: float, per_minute: float) -> None:
        """Correct a reservation by what was used beyond it (or less, if negative)."""
        ...


class OwnRates:
    """Amounts per minute of this process alone: a virtual clock for each limit (GCRA, ITU-T I.371)."""

    def __init__(self) -> None:
        self._free_at: dict[str, float] = {}

    def reserve(
        self, limit_key: str, amount: float, per_minute: float, now: float, *, horizon_s: float = inf
    ) -> float:
        """Take an amount, and give the time from which it may be used."""
        begins = max(self._free_at.get(limit_key, now), now)
        if begins <= now + horizon_s:
            self._free_at[limit_key] = begins + amount * 60 / per_minute
        return begins

    def settle(self, limit_key: str, difference: float, per_minute: float) -> None:
        """Correct a reservation."""
        self._free_at[limit_key] = self._free_at.get(limit_key, 0.0) + difference * 60 / per_minute


class RatePace:
    """Spreads calls evenly over the minute.

    Args:
        key: what the limits are called.
        requests_per_minute: most calls in a minute; None for any number.
        tokens_per_minute: most tokens in a minute; None for any number.
        rates: who counts.
        run: runs a function off the event loop.
    """

    def __init__(
        self,
        key: str,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        rates: Rates,
        run: Callable[..., "asyncio.Future[Any]"],
    ) -> None:
        self._key = key
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._rates = rates
        self._run = run
        self._reserved: list[float] = []
        self._turn = asyncio.Lock()

    async def wait(self, tokens: int) -> None:
        """Wait until a call that will use about `tokens` may begin."""
        begins = 0.0
        async with self._turn:  # in order, and one at a time where there's a wait
            if self._requests_per_minute:
                begins = await self._next_request(self._requests_per_minute)
            if self._tokens_per_minute and tokens:
                begins = max(begins, await self._reserve("tokens", tokens, self._tokens_per_minute))
        left_s = begins - time.time()
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _next_request(self, per_minute: float) -> float:
        """The time of the next call; a quarter of a second's worth is reserved at once."""
        if not self._reserved:
            count = max(1, int(per_minute / _BLOCKS_PER_MINUTE))
            begins = await self._reserve("requests", count, per_minute)
            self._reserved = [begins + index * 60 / per_minute for index in reversed(range(count))]
        return self._reserved.pop()

    async def _reserve(self, what: str, amount: float, per_minute: float) -> float:
        """Take an amount when its time is near: what is reserved by a run that ends is lost to the next."""
        reserve = functools.partial(self._rates.reserve, horizon_s=_HORIZON_S)
        while True:
            now = time.time()
            begins = float(await self._run(reserve, f"{self._key} {what}", amount, per_minute, now))
            if begins <= now + _HORIZON_S:
                return begins
            await asyncio.sleep(min(begins - now - _HORIZON_S, _HORIZON_S))

    async def settle(self, estimated: int, used: int) -> None:
        """Tell what a call has used."""
        if self._tokens_per_minute and used != estimated:
            arguments = f"{self._key} tokens", used - estimated, self._tokens_per_minute
            await self._run(self._rates.settle, *arguments)


class Endpoints:
    """The limiters of a run; belongs to the event loop.

    Args:
        models: the models of the run's steps.
        rates: who counts requests and tokens per minute.
        run: runs a function off the event loop.
    """

    def __init__(
        self, models: Iterable[RemoteModel], rates: Rates, run: Callable[..., "asyncio.Future[Any]"]
    ) -> None:
        self._models: dict[str, list[RemoteModel]] = {}
        self._limiters: dict[str, EndpointLimiter] = {}
        self._by_model: dict[int, tuple[RemoteModel, EndpointLimiter]] = {}
        self._rates = rates
        self._run = run
        self._output_tokens: dict[str, float] = {}
        self.is_stopped = False
        for model in models:
            self._models.setdefault(_key_of(model), []).append(model)

    def limiter(self, model: RemoteModel) -> EndpointLimiter:
        """Give the limiter that a model shares with all of the same endpoint and name."""
        known = self._by_model.get(id(model))
        if known is not None:
            return known[1]
        key = _key_of(model)
        if key not in self._limiters:
            sharing = self._models.setdefault(key, [model])
            made = EndpointLimiter(_smallest_cap(sharing), self._build_pace(key, sharing))
            if self.is_stopped:
                made.stop()
            self._limiters[key] = made
        # With the model itself, so that its id stays its own.
        self._by_model[id(model)] = (model, self._limiters[key])
        return self._limiters[key]

    def _build_pace(self, key: str, sharing: list[RemoteModel]) -> RatePace | None:
        requests = min((m.requests_per_minute for m in sharing if m.requests_per_minute), default=None)
        tokens = min((m.tokens_per_minute for m in sharing if m.tokens_per_minute), default=None)
        if requests is None and tokens is None:
            return None
        name = f"{sharing[0].endpoint} {sharing[0].model_name}"
        return RatePace(name, requests, tokens, self._rates, self._run)

    def estimate_tokens(self, model: RemoteModel, requests: Sequence[Request]) -> int:
        """Say about how many tokens a call will use; 0 where nobody counts them."""
        if not model.tokens_per_minute:
            return 0
        characters = len(json.dumps([request.content for request in requests], ensure_ascii=False))
        written = self._output_tokens.get(_key_of(model), 0.0) * sum(request.count for request in requests)
        return int(characters / _CHARACTERS_PER_TOKEN + written) or 1

    def note_tokens(self, model: RemoteModel, stored: StoredResponse) -> None:
        """Remember how long answers are, for the next estimate."""
        key, count = _key_of(model), stored.output_tokens
        if count is not None:
            before = self._output_tokens.get(key, float(count))
            self._output_tokens[key] = before + (count - before) / 16

    async def settle(self, model: RemoteModel, estimated: int, paid: Sequence[Paid]) -> None:
        """Correct what a call was taken to use by what it has used, for limits per minute."""
        pace = self.limiter(model).pace
        if pace is not None:
            used = sum(
                (each.response.input_tokens or 0) + (each.response.output_tokens or 0) for each in paid
            )
            await pace.settle(estimated, used)

    def check_running(self) -> None:
        """Make sure that no stop was asked for.

        Raises:
            CallsStopped: one was.
        """
        if self.is_stopped:
            raise CallsStopped

    def stop(self) -> None:
        """Let no call begin any more."""
        self.is_stopped = True
        for limiter in self._limiters.values():
            limiter.stop()


def _key_of(model: RemoteModel) -> str:
    """Name the place whose limits a model has; a model without an endpoint is a place of its own."""
    return f"{model.endpoint or f'object {id(model)}'} {model.model_name}"


def _smallest_cap(sharing: list[RemoteModel]) -> int:
    """The smallest cap that was set; the default counts only where none was."""
    given = [model for model in sharing if "max_concurrency" in model.model_fields_set]
    return min(model.max_concurrency or 1 for model in given or sharing)
