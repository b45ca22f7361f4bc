"""Damage every kind of file in every way, print the table, and fail if anything went wrong:

    python -m tests.integration.damage [--json PATH] [--processes N] [--minutes M] [--only TEXT …] [--samples]

Cases come in an order in which those that stand for others are first; what there was no time for is told.
"""

import argparse
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from tests.integration.damage.cases import Case, iter_cases
from tests.integration.damage.sites import STATES, build_original
from tests.integration.damage.table import print_table, write_json
from tests.integration.damage.trial import Outcome, try_out

_IN_MEMORY = Path("/dev/shm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; give the exit code: 1 if any case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.damage")
    parser.add_argument("--json", type=Path, help="where to write all outcomes")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no case after so long")
    parser.add_argument(
        "--only", action="append", default=[], help="cases whose names have this in them; repeatable"
    )
    parser.add_argument("--samples", action="store_true", help="a few places of each kind only")
    options = parser.parse_args(arguments)
    until = time.monotonic() + options.minutes * 60
    shares = [(number, options.processes, options, until) for number in range(options.processes)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        done = pool.map(_try_share, shares, chunksize=1)
    outcomes = sorted((each for outcomes, _ in done for each in outcomes), key=lambda each: each.case)
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 220)
    print_table(outcomes, console)
    left = sum(count for _, count in done)
    if left:
        console.print(f"There was no time for {left:,} cases more; give more by --minutes.", markup=False)
    if options.json is not None:
        write_json(outcomes, options.json)
    return 1 if not outcomes or any(each.faults for each in outcomes) else 0


def _try_share(share: tuple[int, int, argparse.Namespace, float]) -> tuple[list[Outcome], int]:
    """Try out every n-th case; give the outcomes, and how many there was no time for."""
    number, of, options, until = share
    logging.getLogger("distilabel_dagster").addHandler(logging.NullHandler())
    scratch = Path(
        tempfile.mkdtemp(prefix="damage-", dir=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None)
    )
    try:
        originals = {state: build_original(scratch / state, state) for state in STATES}
        cases = [
            each
            for each in iter_cases(originals)
            if all(text in each.name for text in options.only) and (each.is_sample or not options.samples)
        ]
        mine = list(_in_order(cases))[number::of]
        outcomes = []
        for case in mine:
            if time.monotonic() > until:
                break
            outcomes.append(try_out(case, originals[case.state], scratch / "trial"))
        return outcomes, len(mine) - len(outcomes)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _in_order(cases: list[Case]) -> Iterator[Case]:
    """Those that stand for others first; then all kinds in turn, at ever more places."""
    yield from (case for case in cases if case.is_sample)
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        if not case.is_sample:
            groups.setdefault((case.state, case.file, case.damage), []).append(case)
    longest = max(map(len, groups.values()), default=0)
    for index in range(longest):
        yield from (group[index] for group in groups.values() if index < len(group))


if __name__ == "__main__":
    sys.exit(main())
