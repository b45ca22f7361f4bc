"""Goes through all cases, in several processes."""

import logging
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.integration.damage.cases import Case, iter_cases
from tests.integration.damage.sites import STATES, build_original
from tests.integration.damage.trial import Outcome, try_out

_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Share:
    """What one process does.

    Attributes:
        number: which of the processes it is.
        of: how many there are; it tries out every so many-th case.
        only: texts that a case's name has in it.
        samples: whether only cases that stand for others are tried out.
        until: when to begin no further one, in seconds of the system's monotonic clock.
    """

    number: int
    of: int
    only: Sequence[str]
    samples: bool
    until: float


def try_all(
    processes: int, *, only: Sequence[str] = (), samples: bool = False, minutes: float
) -> tuple[list[Outcome], int]:
    """Try out all cases; give the outcomes by name, and how many cases there was no time for."""
    until = time.monotonic() + minutes * 60
    shares = [Share(number, processes, only, samples, until) for number in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        done = pool.map(try_share, shares, chunksize=1)
    outcomes = sorted((each for outcomes, _ in done for each in outcomes), key=lambda each: each.case)
    return outcomes, sum(left for _, left in done)


def try_share(share: Share) -> tuple[list[Outcome], int]:
    """Try out a process's share; give the outcomes, and how many cases there was no time for."""
    logging.getLogger("distilabel_dagster").addHandler(logging.NullHandler())
    place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    scratch = Path(tempfile.mkdtemp(prefix="damage-", dir=place))
    try:
        originals = {state: build_original(scratch / state, state) for state in STATES}
        cases = [
            each
            for each in iter_cases(originals)
            if all(text in each.name for text in share.only) and (each.is_sample or not share.samples)
        ]
        mine = list(iter_in_order(cases))[share.number :: share.of]
        outcomes = []
        for case in mine:
            if time.monotonic() > share.until:
                break
            outcomes.append(try_out(case, originals[case.state], scratch / "trial"))
        return outcomes, len(mine) - len(outcomes)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def iter_in_order(cases: list[Case]) -> Iterator[Case]:
    """Go through those that stand for others first; then all kinds in turn, at ever more places."""
    yield from (case for case in cases if case.is_sample)
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        if not case.is_sample:
            groups.setdefault((case.state, case.file, case.damage), []).append(case)
    longest = max(map(len, groups.values()), default=0)
    for index in range(longest):
        yield from (group[index] for group in groups.values() if index < len(group))
