"""Claims: which process is about to call which key, so that no two pay for the same answer.

A claim belongs to an owner, and the owner's lease says whether it lives; the claims of a dead one are anybody's.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, delete, select

from distilabel_dagster.ledger.database import delete_by_keys, select_by_keys, upsert
from distilabel_dagster.ledger.lease_rows import Moment, find_free, remove_dead
from distilabel_dagster.ledger.schema import CLAIMS_TABLE, LEASES_TABLE

OWNER_PREFIX: Final = "calls/"
_FORGET_AFTER_S: Final = 3_600.0
"""Silence after which an owner elsewhere is taken off the list; its claims are free long before."""

_table: Final = CLAIMS_TABLE.c


def claim(
    connection: Connection, keys: Sequence[bytes], owner: str, moment: Moment, expire_after_s: float
) -> frozenset[bytes]:
    """Claim those of some keys that no other live owner has; those that `owner` has already count too.

    In an exclusive transaction, so that one owner only gets a key. Who was silent loses the keys that are taken, and
    stays on the list: when it comes back it still has those that nobody wanted, and finds the others claimed elsewhere.
    """
    holders: dict[bytes, str] = dict(select_by_keys(connection, CLAIMS_TABLE, ("key", "owner"), keys))
    others = {*holders.values()} - {owner}
    free = find_free(connection, others, moment, expire_after_s) if others else frozenset[str]()
    new = [key for key in keys if key not in holders or holders[key] in free]
    if new:
        replacing = upsert(connection, CLAIMS_TABLE, replaced=("owner",))
        connection.execute(replacing, [{"key": key, "owner": owner} for key in new])
    return frozenset(new).union(key for key, holder in holders.items() if holder == owner)


def drop_claims(connection: Connection, keys: Iterable[bytes]) -> None:
    """Take claims away, whosever they are."""
    delete_by_keys(connection, CLAIMS_TABLE, keys)


def give_back(connection: Connection, keys: Iterable[bytes], owner: str) -> None:
    """Take those claims away that an owner has."""
    delete_by_keys(connection, CLAIMS_TABLE, keys, owner=owner)


def give_all_back(connection: Connection, owner: str) -> None:
    """Take all claims of an owner away."""
    connection.execute(delete(CLAIMS_TABLE).where(_table.owner == owner))


def drop_claims_of_dead(connection: Connection, moment: Moment) -> None:
    """Take away what killed processes have left: their leases, and claims without one."""
    remove_dead(connection, OWNER_PREFIX, moment, _FORGET_AFTER_S)
    connection.execute(delete(CLAIMS_TABLE).where(_table.owner.not_in(select(LEASES_TABLE.c.key))))
