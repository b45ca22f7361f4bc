"""Responses that were paid for, by call, and who is about to pay for which."""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, insert

from distilabel_dagster.errors import CacheError, DamagedFileError
from distilabel_dagster.ledger.calls import (
    Begun,
    FailedAttempt,
    Paid,
    StepInRun,
    StoredResponse,
    encode_failure,
)
from distilabel_dagster.ledger.claims import (
    OWNER_PREFIX,
    claim,
    drop_claims,
    drop_claims_of_dead,
    give_all_back,
    give_back,
)
from distilabel_dagster.ledger.database import (
    exclusive_transaction,
    insert_missing,
    open_database,
    read_transaction,
    select_by_keys,
)
from distilabel_dagster.ledger.database_errors import describe_url
from distilabel_dagster.ledger.leases import HeldLeases, Leases
from distilabel_dagster.ledger.processes import read_uptime
from distilabel_dagster.ledger.response_encoding import COLUMNS, decode_rows, encode_row
from distilabel_dagster.ledger.response_rows import (
    StoredResponses,
    check_index,
    replace_row,
    select_rows,
)
from distilabel_dagster.ledger.schema import FAILED_ATTEMPTS_TABLE, RESPONSES_TABLE
from distilabel_dagster.ledger.usage import Usage, count_usage, usage_of

_logger = logging.getLogger("distilabel_dagster.ledger")
_MOST_LEASES: Final = 5
"""How often in a row a process begins anew that others have taken for dead."""

_Made = TypeVar("_Made")
DAMAGED_ANSWER: Final = "damaged_answer"
"""What an answer in the ledger that can't be used any more is counted as, among the failures."""


class ResponseLedger:
    """The responses of calls, in the ledger's database; safe to share between threads, not with a fork.

    A step asks by `begin` for the calls it's about to make, makes those that it was given, and hands what arrives
    to `store`, which has it on the disk when it returns. What was given to a process that dies is given to the
    next that asks, at once on the same host, else when it was silent for long enough.

    Attributes:
        engine: the database, for `ledger.usage` and `ledger.rates`.
        location: where it is, as one tells a user.
        clock: seconds since 1970 in UTC, as all hosts see them.

    A response that isn't what was stored, since the disk or someone changed a bit of it, counts as none: it's asked for
    again, with a warning, and the new one takes its place.

    Example:
        >>> import tempfile
        >>> from distilabel_dagster.ledger.calls import Paid, StepInRun, StoredResponse
        >>> step = StepInRun("pipeline-1", "generate_1", "generate", "m", "")
        >>> key = bytes(32)
        >>> with ResponseLedger(f"{tempfile.mkdtemp()}/ledger.sqlite") as ledger:
        ...     assert key in ledger.begin({step: [key]}).claimed
        ...     answer = StoredResponse(key, {"text": "Hi"}, "m", "", None, 3, 1, None, 0.2, 1, 0.0, "run-1")
        ...     _ = ledger.store([Paid(answer, step)])
        ...     ledger.begin({step: [key]}).found[key].response
        {'text': 'Hi'}
    """

    def __init__(
        self,
        engine_or_url: Engine | str,
        *,
        expire_after_s: float = 60.0,
        heartbeat_every_s: float = 10.0,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = read_uptime,
    ) -> None:
        """Open the database if need be.

        Args:
            engine_or_url: what `open_database` takes, or gave.
            expire_after_s: silence after which a process is taken for dead, equal for all that share the database.
            heartbeat_every_s: time between signs of life; has to be shorter.
            clock: seconds since 1970 in UTC.
            uptime: seconds on a clock that all processes of this host share, and that never jumps.

        Raises:
            CacheError: the database can't be opened, see `open_database`.
        """
        self._owns_engine = isinstance(engine_or_url, str)
        self.engine = (
            open_database(engine_or_url, keeps_connections=True)
            if isinstance(engine_or_url, str)
            else engine_or_url
        )
        self.location = describe_url(self.engine.url)
        self.clock = clock
        self._leases = Leases(
            self.engine,
            expire_after_s=expire_after_s,
            heartbeat_every_s=heartbeat_every_s,
            clock=clock,
            uptime=uptime,
        )
        self._pid = os.getpid()
        self._lock = threading.RLock()  # threads queue here in order; in SQLite they would poll
        self._held: HeldLeases | None = None
        self._told: set[bytes] = set()  # damaged responses that were warned of

    def __enter__(self) -> "ResponseLedger":
        self.open_claims()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open_claims(self) -> None:
        """Show that this process lives, so that it can claim calls; clear up after those that were killed.

        Safe to repeat: what was claimed before is still this process's.

        Raises:
            CacheError: the database can't be written.
        """
        with self._lock:
            self._check_process()
            if self._held is None:
                self._take_lease()

    def close(self) -> None:
        """Give all claims back; safe to repeat, and nothing in a fork. The ledger can be opened again.

        Where the database can't be reached, that is logged, not raised: the claims are free when this process
        ends, or when it has been silent for long enough.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            held, self._held = self._held, None
            if held is not None:
                try:
                    with exclusive_transaction(self.engine, is_durable=False) as connection:
                        give_all_back(connection, held.keys[0])
                except CacheError as error:
                    _logger.warning("Calls that weren't made could not be given back. %s", error)
                held.release()
            if self._owns_engine:
                self.engine.dispose()

    def find_keys(self, keys: Iterable[bytes]) -> set[bytes]:
        """Tell which keys have a response, without reading any: one that is damaged counts.

        Raises:
            CacheError: the database can't be read.
        """
        wanted = set(keys)
        with read_transaction(self.engine) as connection:
            return wanted.intersection(
                row[0] for row in select_by_keys(connection, RESPONSES_TABLE, ["key"], wanted)
            )

    def look_up(self, keys: Iterable[bytes]) -> StoredResponses:
        """Read the responses under some keys, as far as there are any; counts and claims nothing.

        Raises:
            CacheError: the database can't be read.
        """
        with read_transaction(self.engine) as connection:
            rows = {row[0]: row for row in select_rows(connection, keys)}
        return StoredResponses(rows, self.location)

    def begin(self, wanted: Mapping[StepInRun, Sequence[bytes]]) -> Begun:
        """Settle what becomes of the calls that steps are about to make.

        Each key ends up in one of three sets: it has a response (counted as reused, for each time it's wanted);
        or it's claimed by this process, which now has to call it or `release` it; or another live process calls
        it, so that one asks again after a while. Claiming twice is as good as once: this ledger's own claims are
        claimed again. Committed when it returns, but of no use after a loss of power.

        Raises:
            CacheError: the database can't be read or written; nothing is claimed.
            DamagedFileError: the database is damaged beyond single responses.
        """
        keys = sorted({key for asked in wanted.values() for key in asked})
        with self._lock:
            rows, claimed = self._while_alive(lambda connection: self._begin(connection, wanted, keys))
            stored, damaged = decode_rows(rows, self.location)
            again: frozenset[bytes] = frozenset()
            if damaged:
                mended, again = self._while_alive(
                    lambda connection: self._begin_again(connection, wanted, damaged)
                )
                stored |= mended
        claimed |= again
        return Begun(stored, claimed, frozenset(keys) - stored.keys() - claimed, again)

    def store(
        self, paid: Sequence[Paid], failed: Sequence[FailedAttempt] = ()
    ) -> dict[bytes, StoredResponse]:
        """Keep responses, count what they used, and note attempts that failed: all of it, or nothing.

        When it returns, responses survive a loss of power. Under each key the first response stays, unless it's
        damaged; a later one is counted, since it was paid, and dropped. The keys' claims end, whosever they are; those
        of failed attempts go on.

        Returns:
            The responses of other runs that stay in place of some of these: what the rows are to be made of.

        Raises:
            CacheError: the database can't be written; nothing was kept, and one may try again.
            DamagedFileError: it's damaged; nothing was kept.
            TypeError: a response isn't JSON data.
        """
        rows = [encode_row(each.response) for each in paid]
        others: dict[bytes, StoredResponse] = {}
        failures = [encode_failure(each) for each in failed]
        used = usage_of(paid, failed)
        with self._lock, self._exclusive(is_durable=bool(rows)) as connection:
            if rows:
                keys = [each.response.key for each in paid]
                if insert_missing(connection, RESPONSES_TABLE, rows) != len(rows):
                    others = self._settle(connection, rows)
                drop_claims(connection, keys)
            if failures:
                connection.execute(insert(FAILED_ATTEMPTS_TABLE), failures)
            count_usage(connection, used)
        return others

    def release(self, keys: Iterable[bytes]) -> None:
        """Give claims of this process back, for calls that it won't make after all; others are left alone.

        Raises:
            CacheError: the database can't be written.
        """
        with self._lock:
            if self._held is not None:
                with self._exclusive(is_durable=False) as connection:
                    give_back(connection, keys, self._held.keys[0])

    @contextlib.contextmanager
    def _exclusive(self, *, is_durable: bool) -> Iterator[Connection]:
        self._check_process()
        with exclusive_transaction(self.engine, is_durable=is_durable) as connection:
            yield connection

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"This ledger was made by process {self._pid}, of which process {os.getpid()} is a fork: claims would "
                "have two owners. Make another ResponseLedger in the fork."
            )

    def _while_alive(self, act: Callable[[Connection], _Made]) -> _Made:
        """Do something in a transaction in which this process is known to live; under a new lease if it must be."""
        for _ in range(_MOST_LEASES):
            if self._held is None:
                raise RuntimeError("open_claims() comes before begin()")
            with self._exclusive(is_durable=False) as connection:
                if self._held.renew(connection):
                    return act(connection)
            self._renew_lost_lease()
        raise CacheError(
            f"The ledger {self.location} can't be used: others that share it take this process for dead, again and again. "
            "Set the clocks of the hosts: they have to agree to well within a minute.",
            path=self.location,
        )

    def _begin(
        self, connection: Connection, wanted: Mapping[StepInRun, Sequence[bytes]], keys: Sequence[bytes]
    ) -> tuple[list[tuple[Any, ...]], frozenset[bytes]]:
        """Give rows found and keys claimed."""
        rows = select_rows(connection, keys)
        found = {row[0] for row in rows}
        claimed = self._claim(connection, [key for key in keys if key not in found])
        count_usage(connection, _count_reused(wanted, found))
        return rows, claimed

    def _begin_again(
        self,
        connection: Connection,
        wanted: Mapping[StepInRun, Sequence[bytes]],
        damaged: Mapping[bytes, DamagedFileError],
    ) -> tuple[dict[bytes, StoredResponse], frozenset[bytes]]:
        """Give those of damaged responses that others have replaced meanwhile, and the keys claimed of the others."""
        mended, left = decode_rows(select_rows(connection, damaged), self.location)
        check_index(connection, left)
        claimed = self._claim(connection, sorted(damaged.keys() - mended.keys()))
        new = (claimed & left.keys()) - self._told
        for step, reused in _count_reused(wanted, damaged.keys() - mended.keys()).items():
            failed = sum(key in new for key in wanted[step])
            usage = Usage(
                calls_reused=-reused.calls_reused, failures={DAMAGED_ANSWER: failed} if failed else {}
            )
            count_usage(connection, {step: usage})
        if new:
            self._told |= new
            _logger.warning(
                "%d %s in the ledger can't be used and %s asked for again; the first is this: %s",
                len(new),
                "answer" if len(new) == 1 else "answers",
                "is" if len(new) == 1 else "are",
                left[min(new)],
            )
        return mended, claimed

    def _claim(self, connection: Connection, keys: Sequence[bytes]) -> frozenset[bytes]:
        if self._held is None:
            return frozenset()
        return claim(connection, keys, self._held.keys[0], self._leases.moment(), self._leases.expire_after_s)

    def _settle(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> dict[bytes, StoredResponse]:
        """Put rows in the place of those under their keys that are damaged; give what stays of other runs."""
        run_ids = {row[0]: row[COLUMNS.index("run_id")] for row in rows}
        whole, damaged = decode_rows(select_rows(connection, run_ids), self.location)
        check_index(connection, damaged)
        for row in rows:
            if damaged.pop(row[0], None) is not None:
                replace_row(connection, row)
        return {key: stored for key, stored in whole.items() if stored.run_id != run_ids[key]}

    def _take_lease(self) -> None:
        self._held = self._leases.acquire([f"{OWNER_PREFIX}{uuid.uuid4().hex}"])
        with self._exclusive(is_durable=False) as connection:
            drop_claims_of_dead(connection, self._leases.moment())

    def _renew_lost_lease(self) -> None:
        """Go on under a new lease: this process was silent for so long that others took it for dead."""
        _logger.warning(
            "This process gave no sign of life for so long that others took it for dead; calls that were on the wire "
            "meanwhile may be paid twice."
        )
        if self._held is not None:
            self._held.release()
        self._take_lease()


def _count_reused(
    wanted: Mapping[StepInRun, Sequence[bytes]], found: Collection[bytes]
) -> dict[StepInRun, Usage]:
    return {step: Usage(calls_reused=sum(key in found for key in keys)) for step, keys in wanted.items()}
