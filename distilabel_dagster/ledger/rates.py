"""Limits of requests or tokens per minute, kept in the ledger so that all runs that share it share them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from sqlalchemy import Connection, Engine, bindparam, select

from distilabel_dagster.ledger.database import exclusive_transaction, upsert
from distilabel_dagster.ledger.schema import RATE_LIMITS_TABLE

_SELECT: Final = select(RATE_LIMITS_TABLE).where(
    RATE_LIMITS_TABLE.c.limit_key.in_(bindparam("limit_keys", expanding=True))
)

_LONGEST_WAIT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call takes from one limit.

    Attributes:
        limit_key: name of the limit, the same for all who share it.
        amount: requests, or tokens.
        per_minute: what the limit allows; the one who asks last is believed.
    """

    limit_key: str
    amount: float
    per_minute: float


class RateLimits:
    """The limits in one database; safe to share between threads.

    Amounts are spread evenly (generic cell rate algorithm without a burst, ITU-T I.371): one that is taken moves the
    next by as long as the limit takes to allow it, so that in any 60 seconds no more than a limit allows is begun.

    Attributes:
        engine: the ledger's database; one that keeps its connections makes this several times as fast.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def reserve(
        self, limit_key: str, amount: float, per_minute: float, now: float, *, horizon_s: float = inf
    ) -> float:
        """Take an amount from a limit, and tell from when on it may be used; see `reserve_all`."""
        return self.reserve_all([Reservation(limit_key, amount, per_minute)], now, horizon_s=horizon_s)

    def reserve_all(self, wanted: Sequence[Reservation], now: float, *, horizon_s: float = inf) -> float:
        """Take amounts from several limits, and tell from when on they may be used: `now`, or a later time.

        What is reserved by a process that dies is lost to the others. With a horizon that is bounded: a time
        beyond it means that nothing was reserved, and one has to ask again by then. No wait is longer than ten minutes:
        what says so was written before a clock was set back.

        Args:
            wanted: limits and amounts, each limit once.
            now: seconds since 1970, on a clock that agrees with those of the others.
            horizon_s: how far ahead one reserves.

        Raises:
            CacheError: the database can't be written.
        """
        with exclusive_transaction(self.engine, is_durable=False) as connection:
            free_at = _read(connection, [each.limit_key for each in wanted])
            begin = min(max([now, *free_at.values()]), now + _LONGEST_WAIT_S)
            if begin <= now + horizon_s:
                after = {each.limit_key: begin + each.amount * 60.0 / each.per_minute for each in wanted}
                _write(connection, after)
        return begin

    def settle(self, limit_key: str, difference: float, per_minute: float) -> None:
        """Correct a reservation by what was used beyond it, or by less (negative) where that wasn't all used.

        Raises:
            CacheError: the database can't be written.
        """
        with exclusive_transaction(self.engine, is_durable=False) as connection:
            for free_at in _read(connection, [limit_key]).values():
                _write(connection, {limit_key: free_at + difference * 60.0 / per_minute})


def _read(connection: Connection, limit_keys: list[str]) -> dict[str, float]:
    rows = connection.execute(_SELECT, {"limit_keys": limit_keys})
    # What is no time can't have come from here, and a limit that isn't known holds nobody up.
    return {row.limit_key: row.free_at for row in rows if isinstance(row.free_at, float)}


def _write(connection: Connection, free_at: dict[str, float]) -> None:
    replacing = upsert(connection, RATE_LIMITS_TABLE, replaced=("free_at",))
    connection.execute(replacing, [{"limit_key": key, "free_at": at} for key, at in free_at.items()])
