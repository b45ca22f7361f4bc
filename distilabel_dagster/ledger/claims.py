"""Claims: which process is about to call which key, so that no two pay for the same answer.

A claim belongs to an owner, and the owner's lease says whether it lives; the claims of a dead one are anybody's.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select

from distilabel_dagster.ledger.database import iter_chunks, select_by_keys, upsert
from distilabel_dagster.ledger.leases import find_free, remove_dead
from distilabel_dagster.ledger.schema import CLAIMS_TABLE, LEASES_TABLE

OWNER_PREFIX: Final = "calls/"
_FORGET_AFTER_S: Final = 3_600.0
"""Silence after which an owner elsewhere is taken off the list; its claims are free long before."""

_table: Final = CLAIMS_TABLE.c
_DROP: Final = delete(CLAIMS_TABLE).where(_table.key.in_(bindparam("keys", expanding=True)))
_DROP_OWN: Final = _DROP.where(_table.owner == bindparam("of"))


def claim(
    connection: Connection, keys: Sequence[bytes], owner: str, now: float, expire_after_s: float
) -> frozenset[bytes]:
    """Claim those of some keys that no other live owner has; those that `owner` has already count too.

    In an exclusive transaction, so that one owner only gets a key.
    """
    holders: dict[bytes, str] = dict(select_by_keys(connection, CLAIMS_TABLE, ("key", "owner"), keys))
    others = {*holders.values()} - {owner}
    free = find_free(connection, others, now, expire_after_s) if others else frozenset[str]()
    new = [key for key in keys if key not in holders or holders[key] in free]
    if new:
        replacing = upsert(connection, CLAIMS_TABLE, replaced=("owner",))
        connection.execute(replacing, [{"key": key, "owner": owner} for key in new])
    return frozenset(new).union(key for key, holder in holders.items() if holder == owner)


def drop_claims(connection: Connection, keys: Iterable[bytes]) -> None:
    """Take claims away, whosever they are."""
    for chunk in iter_chunks(keys):
        connection.execute(_DROP, {"keys": chunk})


def give_back(connection: Connection, keys: Iterable[bytes], owner: str) -> None:
    """Take those claims away that an owner has."""
    for chunk in iter_chunks(keys):
        connection.execute(_DROP_OWN, {"keys": chunk, "of": owner})


def give_all_back(connection: Connection, owner: str) -> None:
    """Take all claims of an owner away."""
    connection.execute(delete(CLAIMS_TABLE).where(_table.owner == owner))


def drop_claims_of_dead(connection: Connection, now: float) -> None:
    """Take away what killed processes have left: their leases, and claims without one."""
    remove_dead(connection, OWNER_PREFIX, now, _FORGET_AFTER_S)
    connection.execute(delete(CLAIMS_TABLE).where(_table.owner.not_in(select(LEASES_TABLE.c.key))))
