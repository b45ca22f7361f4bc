"""Every case: state of the cache x kind of file x kind of damage x place."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.integration.damage.damages import Damage, Obstacle, iter_damages
from tests.integration.damage.sites import STATES, Original, Site, State
from tests.integration.damage.targets import Find, Target, make_own_file, swap, targets_of, write_leases


@dataclass(frozen=True, slots=True)
class Case:
    """One damage to one file.

    Attributes:
        state: which cache it's done to.
        file: the kind of file.
        damage: the kind of damage.
        place: where in the file, or how.
        find: finds the file in a copy of the cache.
        also: finds another file that's harmed with it.
        harm: does it.
        obstacle: what stands before the file while the cache is used.
        is_sample: whether it stands for all cases of its kind: it's then tried out with repairs as well.
    """

    state: State
    file: str
    damage: str
    place: str
    find: Find
    harm: Callable[[Site, Path], None]
    also: Find | None = None
    obstacle: Obstacle | None = None
    is_sample: bool = True

    @property
    def is_about_rows(self) -> bool:
        """Whether those who load rows come upon the file."""
        return self.file not in ("ledger", "lease", "pipeline.log")

    @property
    def name(self) -> str:
        return " / ".join(filter(None, (self.state, self.file, self.damage, self.place)))


def iter_cases(originals: Mapping[State, Original]) -> Iterator[Case]:
    """All cases, at every place."""
    for state in STATES:
        for target in targets_of(state):
            path = target.find(originals[state].site)
            for damage in iter_damages(path.stat().st_size, target.begin(path)):
                if (not target.only or damage.kind in target.only) and not _is_idle(state, target, damage):
                    yield _build_case(state, target, damage)
            for number, other in enumerate(target.others, start=1):
                yield _build_swap(state, target, number, other)
        yield from _iter_leases(state)


def _is_idle(state: State, target: Target, damage: Damage) -> bool:
    """Whether a case can't be made, or does the same as others many times over."""
    if target.file != "ledger":
        return False
    # SQLite opens its file by itself, where no test can stand between; a finished pipeline asks for no answer.
    return damage.obstacle == "io error" or (state == "finished" and not damage.is_sample)


_ALIKE = frozenset({"part of a leaf", "part as shown", "step JSON"})
_TELLING = frozenset({"a bit flipped", "a directory", "deleted", "swapped"})
"""Of files that go the way of others already chosen, damage that may end otherwise."""


def choose_few(cases: list[Case]) -> list[Case]:
    """Choose one of each kind of file and kind of damage, of the two states in turn; one a file with repairs as well."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if case.is_sample and (case.file not in _ALIKE or case.damage in _TELLING):
            groups.setdefault((case.file, case.damage), []).append(case)
    chosen = [group[(7 * number) % len(group)] for number, group in enumerate(groups.values())]
    repaired = {case.file: case for case in chosen if case.obstacle is None}
    return [replace(case, is_sample=case in repaired.values()) for case in chosen]


def _build_case(state: State, target: Target, damage: Damage) -> Case:
    def harm(_site: Site, path: Path) -> None:
        if target.is_second_name:
            make_own_file(path)
        damage.harm(path)

    return Case(
        state,
        target.file,
        damage.kind,
        damage.place,
        target.find,
        harm,
        obstacle=damage.obstacle,
        is_sample=damage.is_sample,
    )


def _build_swap(state: State, target: Target, number: int, other: Find) -> Case:
    def harm(site: Site, path: Path) -> None:
        swap(target, path, other(site))

    return Case(state, target.file, "swapped", f"with another's ({number})", target.find, harm, also=other)


_BROKEN: dict[str, Any] = {
    "text": "garbage",
    "empty": "",
    "blob": b"\x00\xff" * 8,
    "negative": -1,
    "huge": 2**62,
    "infinite": float("inf"),
    "absurd": 1e300,
    "zero": 0,
}
_COLUMNS = ("key", "token", "host", "pid", "process_start", "since", "heartbeat", "uptime")


def _iter_leases(state: State) -> Iterator[Case]:
    for column, (place, value) in itertools.product(_COLUMNS, _BROKEN.items()):

        def harm(site: Site, _path: Path, column: str = column, value: Any = value) -> None:
            write_leases(site, {column: value})

        yield Case(
            state,
            "lease",
            "broken values",
            f"{column}: {place}",
            lambda site: site.ledger,
            harm,
            is_sample=place == "blob",
        )
