"""Ledgers for tests that harm them: what's in them, and what becomes of a run on one."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from distilabel_dagster.errors import CacheError, DamagedFileError
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.ledger.reading import look_up_usage
from distilabel_dagster.ledger.repair import RepairReport, check_ledger, repair_ledger
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.usage import read_usage
from tests.contract.ledger_process import OTHER_STEP, ROOT, STEP, answer, fail, key_of, keys_of, pay

NAME: Final = "ledger.sqlite"
COUNT: Final = 120
KEYS: Final = frozenset(keys_of(range(COUNT)))
"""Of the answers."""


def text_of(number: int) -> str:
    """Some go on to pages of their own."""
    return f"answer {number} " * (900 if number % 10 == 0 else 3)


EXPECTED: Final = {key_of(number): answer(number, text_of(number)) for number in range(COUNT)}


@dataclass(frozen=True)
class Ledgers:
    """Two ledgers with the same answers, each in a directory of its own.

    Attributes:
        at_rest: closed by the last process that used it; all is in one file.
        after_a_kill: left by one that was killed at work: leases, claims, and half of the answers in a WAL.
    """

    at_rest: Path
    after_a_kill: Path


def build_ledgers(directory: Path) -> Ledgers:
    made = Ledgers(directory / "at rest", directory / "after a kill")
    with ResponseLedger(str(made.at_rest / NAME)) as ledger:
        _fill(ledger, 0, COUNT // 2)
    shutil.copytree(made.at_rest, made.after_a_kill)
    with ResponseLedger(str(made.at_rest / NAME)) as ledger:
        _fill(ledger, COUNT // 2, COUNT)
    command = [sys.executable, "-m", __name__, str(made.after_a_kill / NAME)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 7
    assert [path.name for path in made.at_rest.iterdir()] == [NAME]
    assert (made.after_a_kill / f"{NAME}-wal").stat().st_size > 100_000
    return made


def _fill(ledger: ResponseLedger, first: int, end: int) -> None:
    for start in range(first, end, 20):
        numbers = range(start, start + 20)
        ledger.store([pay(number, text_of(number)) for number in numbers], [fail(n) for n in numbers])
    ledger.store([], [fail(1, step=OTHER_STEP)])


@dataclass(frozen=True)
class Outcome:
    """What became of a run on a ledger.

    Attributes:
        found: the answers that were found; the others were asked for again.
        error: what ended it.
    """

    found: frozenset[bytes] = frozenset()
    error: CacheError | None = None


def use(path: Path) -> Outcome:
    """Do all that a run does, and make sure that nothing in it is wrong."""
    try:
        return Outcome(_run(path))
    except CacheError as error:
        outcome = Outcome(error=error)
    check_message(path, outcome.error)
    return outcome


def check_message(path: Path, error: CacheError | None) -> None:
    """Make sure that an error says which file it's about, and what to do."""
    assert str(path) in str(error)
    assert error is not None
    assert str(path) in str(error.path)
    assert not isinstance(error, DamagedFileError) or "cache verify --repair" in str(error)


def _run(path: Path) -> frozenset[bytes]:
    with ResponseLedger(str(path)) as ledger:
        begun = ledger.begin({STEP: sorted(KEYS)})
        assert {key: EXPECTED[key] for key in begun.found} == begun.found
        assert begun.claimed == KEYS - begun.found.keys()
        numbers = [int.from_bytes(key, "big") for key in begun.claimed]
        ledger.store([pay(number, text_of(number)) for number in numbers], [fail(n) for n in numbers])
        assert ledger.begin({STEP: sorted(KEYS)}).found == EXPECTED
        read_usage(ledger.engine)
    with Leases(str(path)).acquire(["generate_1f"]) as held:
        held.check()
    return frozenset(begun.found)


def check_and_repair(path: Path) -> RepairReport | None:
    """Look through a ledger, repair it, and make sure that it's whole then."""
    told: CacheError | None = None
    try:
        look_up_usage(str(path), ["generate_1f"])
    except CacheError as error:
        told = error
    if told is not None:
        check_message(path, told)
    problems = check_ledger(str(path))
    report = repair_ledger(str(path))
    assert (report is not None) is bool(problems)
    if report is None:
        return None
    assert check_ledger(str(path)) == []
    assert all(problem.location == str(path) and problem.remedy for problem in problems)
    assert report.set_aside
    assert all(each.startswith(f"{path}.set-aside") and os.path.lexists(each) for each in report.set_aside)
    left = {each.name for each in path.parent.iterdir()} - {NAME, f"{NAME}-wal", f"{NAME}-shm"}
    assert left == {Path(each).name for each in report.set_aside}
    assert len(use(path).found) == report.responses
    return report


def main() -> None:
    ledger = ResponseLedger(sys.argv[1])
    ledger.open_claims()
    ledger.begin({STEP: keys_of([1_000, 1_001])})
    _fill(ledger, COUNT // 2, COUNT)
    os._exit(7)


if __name__ == "__main__":
    main()
