"""Leases as rows of their table, and when a holder is taken for dead."""

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, null, select

from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.ledger.database_errors import build_error, describe_url
from distilabel_dagster.ledger.processes import ProcessIdentity, current_host
from distilabel_dagster.ledger.schema import LEASES_TABLE

_table: Final = LEASES_TABLE.c
_END_OF_TIME_S: Final = 253_402_300_800.0
_LARGEST_PID: Final = 2**31 - 1


given_up: Final[set[str]] = set()
"""Tokens of leases of this process that are over, though the database couldn't be told."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time, on the two clocks by which silence is measured.

    Attributes:
        now: seconds since 1970 in UTC, as all hosts see them.
        uptime: seconds that this machine has been awake, see `processes.read_uptime`.
    """

    now: float
    uptime: float


@dataclass(frozen=True, slots=True)
class Lease:
    """A row of the table of leases.

    Attributes:
        key: what is held.
        token: of the acquisition that holds it.
        holder: the process.
        since: when it was acquired, in seconds since 1970.
        heartbeat: the last sign of life, in seconds since 1970 by the holder's clock.
        uptime: the same by the holder's other clock, see `Moment`; None where an older release gave it.
    """

    key: str
    token: str
    holder: ProcessIdentity
    since: float
    heartbeat: float
    uptime: float | None

    def silence_s(self, moment: Moment) -> float:
        """Tell how long ago the last sign of life came.

        On the same host by the clock that nobody can set: when the time of day jumps, nobody is taken for dead. That
        clock begins anew with the machine; where a host's name doesn't tell one start of it from the next, a sign of
        life that seems to come from the future was given before.
        """
        if self.uptime is not None and self.holder.host == current_host():
            silence_s = moment.uptime - self.uptime
            if silence_s >= 0:
                return silence_s
        return moment.now - self.heartbeat

    def is_free(self, moment: Moment, expire_after_s: float) -> bool:
        """Tell whether anyone may take the key: the holder is dead, or silent for too long."""
        if self.token in given_up or self.holder.is_surely_dead():
            return True
        return self.silence_s(moment) > expire_after_s

    def describe_holder(self) -> str:
        """Say who holds it, and since when."""
        since = self.since_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.holder.pid} on host `{self.holder.host_name}` since {since}"

    @property
    def since_utc(self) -> datetime:
        """When it was acquired."""
        return datetime.fromtimestamp(self.since, tz=timezone.utc)


def read_leases(connection: Connection, keys: Iterable[str]) -> list[Lease]:
    """Read the leases on some keys, by key.

    Raises:
        DamagedFileError: one holds what can't be in it.
    """
    rows = connection.execute(select(LEASES_TABLE).where(_table.key.in_(keys)).order_by(_table.key))
    return [_to_lease(connection, row) for row in rows]


def read_all_leases(connection: Connection, prefix: str = "") -> list[Lease]:
    """Read the leases on all keys with a prefix.

    Raises:
        DamagedFileError: one holds what can't be in it.
    """
    rows = connection.execute(select(LEASES_TABLE).where(_table.key.startswith(prefix, autoescape=True)))
    return [_to_lease(connection, row) for row in rows]


def read_sound_leases(connection: Connection, *, has_uptime: bool = True) -> list[Lease]:
    """Read those of all leases that hold what they can hold.

    Args:
        connection: to the database.
        has_uptime: whether the table has that column, which it hasn't before schema 3.
    """
    names = [name for name in _table.keys() if has_uptime or name != "uptime"]  # noqa: SIM118 (columns, no mapping)
    columns = [_table[name] for name in names]
    leases = []
    for row in connection.execute(select(*columns, *([] if has_uptime else [null().label("uptime")]))):
        with contextlib.suppress(DamagedFileError):
            leases.append(_to_lease(connection, row))
    return leases


def find_free(
    connection: Connection, keys: Iterable[str], moment: Moment, expire_after_s: float
) -> frozenset[str]:
    """Tell which of some keys anyone may take: those that nobody holds, or a dead or silent holder."""
    wanted = frozenset(keys)
    held = (lease for lease in read_leases(connection, wanted) if not lease.is_free(moment, expire_after_s))
    return wanted - {lease.key for lease in held}


def remove_dead(connection: Connection, prefix: str, moment: Moment, silent_for_s: float) -> None:
    """Take away leases on keys with a prefix whose holders are dead, or silent for so long."""
    leases = read_all_leases(connection, prefix)
    dead = [lease.key for lease in leases if lease.is_free(moment, silent_for_s)]
    if dead:
        connection.execute(delete(LEASES_TABLE).where(_table.key.in_(dead)))


def _to_lease(connection: Connection, row: Row[Any]) -> Lease:
    texts = (row.key, row.token, row.host, row.process_start)
    times = (row.since, row.heartbeat, 0.0 if row.uptime is None else row.uptime)
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(time, float) and math.isfinite(time) for time in times)
        and isinstance(row.pid, int)
        and 0 < row.pid <= _LARGEST_PID
        and all(0 <= time < _END_OF_TIME_S for time in (row.since, row.heartbeat))
    ):
        reason = (
            f"who holds `{str(row.key)[:200]}` can't be made out: the lease holds values that it can't have"
        )
        raise build_error("damaged", describe_url(connection.engine.url), "read", reason)
    return Lease(
        key=row.key,
        token=row.token,
        holder=ProcessIdentity(host=row.host, pid=row.pid, start=row.process_start),
        since=row.since,
        heartbeat=row.heartbeat,
        uptime=row.uptime,
    )
