"""One writer a step key: leases that outlive neither their process nor its silence."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final

from sqlalchemy import Connection, Engine, bindparam, delete, insert, update

from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.errors import CacheError, DamagedFileError, StepInUseError
from distilabel_dagster.ledger.database import exclusive_transaction, open_database, read_transaction
from distilabel_dagster.ledger.database_errors import describe_url
from distilabel_dagster.ledger.lease_rows import Lease, Moment, given_up, read_leases
from distilabel_dagster.ledger.processes import (
    ProcessIdentity,
    current_process,
    read_elapsed,
    read_uptime,
)
from distilabel_dagster.ledger.schema import LEASES_TABLE

_logger = logging.getLogger("distilabel_dagster.ledger")
EXPIRE_AFTER_S: Final = 60.0
"""Silence after which a holder is taken for dead, where nobody says otherwise."""

_WAY_TO_WAIT: Final = '`when_in_use="wait"` or `--when-in-use wait` does it for you'
_table: Final = LEASES_TABLE.c
_RENEW: Final = (
    update(LEASES_TABLE)
    .where(_table.key.in_(bindparam("keys", expanding=True)), _table.token == bindparam("by"))
    .values(heartbeat=bindparam("now"), uptime=bindparam("awake"))
)


class Leases:
    """Who writes which step key, kept in the ledger's database; safe to share between threads.

    A key belongs to one acquisition until that releases it. It can be taken over at once when the process that
    holds it is dead (on the same host, where that can be seen), and from any other one when it gave no sign of
    life for `expire_after_s`. On one host that's measured by a clock that nobody can set; hosts that share a database
    need clocks that agree to well within that time, and equal settings.

    Attributes:
        engine: the database.
        expire_after_s: silence, in seconds, after which a holder is taken for dead.
        heartbeat_every_s: seconds between a holder's signs of life.

    Example:
        >>> import tempfile
        >>> leases = Leases(f"{tempfile.mkdtemp()}/ledger.sqlite")
        >>> with leases.acquire(["load_0", "generate_0"]) as held:
        ...     held.check()  # before each write
        ...     held.keys
        ('generate_0', 'load_0')
    """

    def __init__(
        self,
        engine_or_url: Engine | str,
        *,
        expire_after_s: float = EXPIRE_AFTER_S,
        heartbeat_every_s: float = 10.0,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = read_uptime,
    ) -> None:
        """Open the database if need be.

        Args:
            engine_or_url: what `open_database` gave, or takes.
            expire_after_s: silence after which a holder is taken for dead.
            heartbeat_every_s: time between signs of life; has to be shorter.
            clock: seconds since 1970 in UTC, as all hosts see them.
            uptime: seconds on a clock that all processes of this host share, and that never jumps.

        Raises:
            CacheError: the database can't be opened, see `open_database`.
        """
        if not 0 < heartbeat_every_s < expire_after_s:
            raise ValueError(
                f"heartbeat_every_s is {heartbeat_every_s}, expire_after_s is {expire_after_s}: signs of life have to "
                "come more often than a holder expires."
            )
        self._owns_engine = isinstance(engine_or_url, str)
        # Leases are looked at before each write: a new connection takes ten times as long as the look.
        self.engine = (
            open_database(engine_or_url, keeps_connections=True)
            if isinstance(engine_or_url, str)
            else engine_or_url
        )
        self.expire_after_s = expire_after_s
        self.heartbeat_every_s = heartbeat_every_s
        self.clock = clock
        self.uptime = uptime

    def close(self) -> None:
        """Close the connections that were kept, unless the database is another's; they're made anew when need be."""
        if self._owns_engine:
            self.engine.dispose()

    def moment(self) -> Moment:
        """Tell what time it is."""
        return Moment(self.clock(), self.uptime())

    def acquire(self, keys: Iterable[str]) -> "HeldLeases":
        """Take all keys, or none; doesn't wait for a holder to finish.

        Threads of one process, and a process and its forks, exclude one another like strangers.

        Raises:
            StepInUseError: another acquisition holds one of the keys; nothing was taken. Its attributes: `key`,
                `host`, `pid`, `since` (a datetime in UTC).
            CacheError: the database can't be read or written.
        """
        try:
            return self._acquire(tuple(sorted(set(keys))))
        except BaseException:
            self.close()
            raise

    def _acquire(self, wanted: tuple[str, ...]) -> "HeldLeases":
        token = uuid.uuid4().hex
        holder = current_process()
        with exclusive_transaction(self.engine, is_durable=False) as connection:
            moment = self.moment()
            found = read_leases(connection, wanted)
            for lease in found:
                if not lease.is_free(moment, self.expire_after_s):
                    raise self._build_in_use_error(lease, moment)
            if wanted:
                connection.execute(delete(LEASES_TABLE).where(_table.key.in_(wanted)))
                connection.execute(
                    insert(LEASES_TABLE),
                    [
                        {
                            "key": key,
                            "token": token,
                            "host": holder.host,
                            "pid": holder.pid,
                            "process_start": holder.start,
                            "since": moment.now,
                            "heartbeat": moment.now,
                            "uptime": moment.uptime,
                        }
                        for key in wanted
                    ],
                )
        reach("lease.acquired", ", ".join(wanted))
        for lease in found:
            if lease.token in given_up:
                continue
            _logger.warning(
                "Took over `%s` from process %d on host `%s`, which ended without releasing it or was silent for too "
                "long.",
                lease.key,
                lease.holder.pid,
                lease.holder.host_name,
            )
        return HeldLeases(self, wanted, token, holder)

    def _build_in_use_error(self, lease: Lease, moment: Moment) -> StepInUseError:
        silence_s = max(0.0, lease.silence_s(moment))
        ours = current_process()
        if lease.holder == ours:
            remedy = "That is this very process: wait until its other run of the step has ended"
        elif lease.holder.host == ours.host:
            remedy = f"Wait until that process has finished ({_WAY_TO_WAIT}), or stop it"
        else:
            remedy = (
                f"Wait until that process has finished ({_WAY_TO_WAIT}), or stop it; if it's gone already, the step is free "
                f"{self.expire_after_s - silence_s:.0f} s from now"
            )
        return StepInUseError(
            f"Step `{lease.key}` is being written by {lease.describe_holder()}; its last sign of life came "
            f"{silence_s:.0f} s ago. Only one process at a time may write a step. {remedy}, then start this run again.",
            **self._describe(lease),
        )

    def _build_lost_error(self, key: str, lease: Lease | None) -> StepInUseError:
        data: dict[str, Any] = {"key": key, "host": None, "pid": None, "since": None}
        if lease is None:
            what = (
                "may write no longer: its lease was released, here or by another process that had taken it over, or "
                "the ledger was deleted"
            )
        else:
            what = (
                f"may not write: it's held by {lease.describe_holder()}. Either this process gave no sign of life for "
                f"{self.expire_after_s:.0f} s (it was paused, or its machine asleep) and was taken for dead, or it is "
                "a fork of the holder"
            )
            data = self._describe(lease)
        return StepInUseError(
            f"Step `{key}`: this process {what}. Nothing more is written from here, and what was committed stays. When "
            "no other process writes the step, start this run again: it goes on from there.",
            **{"path": describe_url(self.engine.url), **data},
        )

    def _describe(self, lease: Lease) -> dict[str, Any]:
        return {
            "key": lease.key,
            "host": lease.holder.host_name,
            "pid": lease.holder.pid,
            "since": lease.since_utc,
            "path": describe_url(self.engine.url),
        }


class HeldLeases:
    """Step keys that this process may write until `release()`; a context manager that releases them.

    A daemon thread gives the signs of life; one that fails is made up for by the next. Without a release the
    keys stay held as long as the process lives.

    Attributes:
        keys: the keys, sorted.
    """

    def __init__(self, leases: Leases, keys: tuple[str, ...], token: str, holder: ProcessIdentity) -> None:
        self.keys = keys
        self._leases = leases
        self._token = token
        self._holder = holder
        self._confirmed = self._now()
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="step-leases", daemon=True)
        if keys:
            self._heartbeat.start()

    def __enter__(self) -> "HeldLeases":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def check(self) -> None:
        """Make sure that all keys are still held; to be called before each write.

        Reads the database (about a millisecond). While that can't be reached, the keys count as held for as long
        as nobody may take them over.

        Raises:
            StepInUseError: a key was taken over or released, or this is a fork of the holder. `host`, `pid` and
                `since` are of the process that holds the key now, None where nobody does. It stays lost.
            CacheError: the database could not be reached for so long that a key may have been taken over.
        """
        try:
            with read_transaction(self._leases.engine) as connection:
                found = {lease.key: lease for lease in read_leases(connection, self.keys)}
        except DamagedFileError:
            raise
        except CacheError:
            silence_s = max(now - then for now, then in zip(self._now(), self._confirmed, strict=True))
            if silence_s > self._leases.expire_after_s:
                raise
            return
        for key in self.keys:
            lease = found.get(key)
            if lease is None or lease.token != self._token or os.getpid() != self._holder.pid:
                raise self._leases._build_lost_error(key, lease)

    def renew(self, connection: Connection) -> bool:
        """Give a sign of life in a transaction of the caller's, and tell whether all keys are still held."""
        if os.getpid() != self._holder.pid or self._released.is_set():
            return False
        moment = self._leases.moment()
        mine = {"keys": self.keys, "by": self._token, "now": moment.now, "awake": moment.uptime}
        return connection.execute(_RENEW, mine).rowcount == len(self.keys)

    def release(self) -> None:
        """Give the keys back; safe to repeat, and nothing in a fork of the holder.

        Where the database can't be reached, that is logged, not raised: the keys are free for this process at once, for
        others when it ends, or when it has been silent for long enough.
        """
        if os.getpid() != self._holder.pid:
            return
        with self._lock:
            if self._released.is_set():
                return
            self._released.set()
        if self.keys:
            self._give_back()
        self._leases.close()

    def _give_back(self) -> None:
        about = ", ".join(self.keys)
        reach("lease.releasing", about)
        try:
            with exclusive_transaction(self._leases.engine, is_durable=False) as connection:
                connection.execute(delete(LEASES_TABLE).where(_table.token == self._token))
        except CacheError as error:
            given_up.add(self._token)
            _logger.warning("The leases on %s could not be released. %s", about, error)
        else:
            reach("lease.released", about)
        self._heartbeat.join()

    def _beat(self) -> None:
        while not self._released.wait(self._leases.heartbeat_every_s):
            now = self._now()
            try:
                with exclusive_transaction(self._leases.engine, is_durable=False) as connection:
                    is_held = self.renew(connection)
            except CacheError as error:
                _logger.warning("A sign of life for %s failed. %s", ", ".join(self.keys), error)
                continue
            if not is_held:
                return  # lost, or just released: `check` tells
            self._confirmed = now
            reach("lease.renewed", ", ".join(self.keys))

    def _now(self) -> tuple[float, float]:
        """The time by both clocks of the others: this host's that nobody can set, and the time of day."""
        return self._leases.clock(), read_elapsed()


def read_moment() -> Moment:
    """Tell what time it is."""
    return Moment(time.time(), read_uptime())
