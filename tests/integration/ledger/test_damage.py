"""What can befall a ledger's files: each ends in right answers, or in an error that names the file."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.ledger.repair import check_ledger
from distilabel_dagster.ledger.responses import ResponseLedger
from tests.contract.ledger_process import pay
from tests.integration.ledger.damaged_ledgers import (
    COUNT,
    NAME,
    Ledgers,
    Outcome,
    build_ledgers,
    check_and_repair,
    use,
)

WAL, SHM = f"{NAME}-wal", f"{NAME}-shm"
PAGE = 4_096


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Ledgers:
    return build_ledgers(tmp_path_factory.mktemp("ledgers"))


@pytest.fixture(params=["at_rest", "after_a_kill"])
def original(request: pytest.FixtureRequest, ledgers: Ledgers) -> Path:
    found: Path = getattr(ledgers, request.param)
    return found


def harm(original: Path, directory: Path, damage: Callable[[Path], None]) -> tuple[Path, Path]:
    """Give two copies of a damaged ledger: one to run on, one to repair."""
    copies = directory / "run", directory / "repair"
    for copy in copies:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy)
        damage(copy)
    return copies[0] / NAME, copies[1] / NAME


def rewrite(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def zero(path: Path, start: int, end: int) -> None:
    def change(content: bytearray) -> None:
        last = min(end, len(content))
        content[start:last] = bytes(last - start)

    rewrite(path, change)


def zero_pages(kind: int) -> Callable[[Path], None]:
    """Zero every page of a kind, but the first page."""

    def damage(directory: Path) -> None:
        def change(content: bytearray) -> None:
            for start in range(PAGE, len(content), PAGE):
                if content[start] == kind:
                    content[start : start + PAGE] = bytes(PAGE)

        rewrite(directory / NAME, change)

    return damage


def put_directory(name: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name / "within").mkdir(parents=True)

    return damage


def put_other_database(directory: Path) -> None:
    for name in (NAME, WAL, SHM):
        (directory / name).unlink(missing_ok=True)
    with closing(sqlite3.connect(directory / NAME)) as other, other:
        other.execute("CREATE TABLE moz_cookies (id INTEGER PRIMARY KEY, name TEXT)")


def put_other_wal(directory: Path) -> None:
    """Of another ledger, that was put there when a copy of this one was put back."""
    other = directory / "other.sqlite"
    ledger = ResponseLedger(str(other))
    ledger.open_claims()
    ledger.store([pay(number, "of another") for number in range(5_000, 5_400)])
    shutil.copy(directory / "other.sqlite-wal", directory / WAL)
    ledger.close()
    for left in directory.glob("other.sqlite*"):
        left.unlink()


WHOLE_OR_LESS = (type(None),)
DAMAGED = (DamagedFileError,)
ANY = (type(None), DamagedFileError)
DAMAGES: dict[str, tuple[Callable[[Path], None], tuple[type, ...]]] = {
    "header gone": (lambda d: zero(d / NAME, 0, 100), ANY),
    "first page gone": (lambda d: zero(d / NAME, 0, PAGE), ANY),
    "all but the header gone": (lambda d: zero(d / NAME, 100, 10**9), ANY),
    "leaves of tables zeroed": (zero_pages(13), ANY),
    "leaves of indexes zeroed": (zero_pages(10), ANY),
    "inner pages of tables zeroed": (zero_pages(5), ANY),
    "inner pages of indexes zeroed": (zero_pages(2), ANY),
    "overflow pages zeroed": (zero_pages(0), ANY),
    "cut to a header": (lambda d: os.truncate(d / NAME, 100), ANY),
    "cut in the middle of a page": (lambda d: os.truncate(d / NAME, PAGE * 3 + 17), ANY),
    "cut at a page": (lambda d: os.truncate(d / NAME, PAGE * 9), ANY),
    "its last page gone": (lambda d: os.truncate(d / NAME, (d / NAME).stat().st_size - PAGE), ANY),
    "empty": (lambda d: os.truncate(d / NAME, 0), ANY),
    "text": (lambda d: (d / NAME).write_text("no database at all, " * 999) and None, ANY),
    "deleted": (lambda d: (d / NAME).unlink(), ANY),
    "a directory in its place": (put_directory(NAME), DAMAGED),
    "a link to nowhere": (
        lambda d: (d / NAME).unlink() or (d / NAME).symlink_to("nowhere/at/all"),
        DAMAGED,
    ),
    "another program's": (put_other_database, DAMAGED),
    "another ledger's WAL": (put_other_wal, ANY),
    "WAL deleted": (lambda d: (d / WAL).unlink(missing_ok=True), WHOLE_OR_LESS),
    "WAL and SHM deleted": (
        lambda d: [(d / x).unlink(missing_ok=True) for x in (WAL, SHM)] and None,
        WHOLE_OR_LESS,
    ),
    "SHM deleted": (lambda d: (d / SHM).unlink(missing_ok=True), WHOLE_OR_LESS),
    "SHM of ones": (lambda d: (d / SHM).write_bytes(b"\xff" * 32_768) and None, WHOLE_OR_LESS),
    "SHM cut": (lambda d: (d / SHM).write_bytes(b"\0" * 100) and None, WHOLE_OR_LESS),
    "WAL of noise": (
        lambda d: (d / WAL).write_bytes(random.Random(5).randbytes(99_999)) and None,
        WHOLE_OR_LESS,
    ),
    "WAL cut": (
        lambda d: (
            (d / WAL).write_bytes((d / WAL).read_bytes()[:50_000] if (d / WAL).exists() else b"") and None
        ),
        WHOLE_OR_LESS,
    ),
    "a directory in the WAL's place": (put_directory(WAL), DAMAGED),
    "a directory in the SHM's place": (put_directory(SHM), DAMAGED),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_ledger_gives_right_answers_or_an_error_that_names_it(
    original: Path, tmp_path: Path, name: str
) -> None:
    damage, expected = DAMAGES[name]
    outcome = try_out(original, tmp_path, damage).outcome
    assert type(outcome.error) in expected, outcome.error


@dataclass(frozen=True)
class Trial:
    """What came of a damage.

    Attributes:
        outcome: of a run.
        is_told: whether `check_ledger` finds it.
        kept: answers after a repair.
    """

    outcome: Outcome
    is_told: bool
    kept: int


def try_out(original: Path, directory: Path, damage: Callable[[Path], None]) -> Trial:
    """Run on a damaged ledger, and repair another copy."""
    to_run, to_repair = harm(original, directory, damage)
    outcome = use(to_run)
    problems = check_ledger(str(to_repair))
    assert problems or outcome.error is None
    report = check_and_repair(to_repair)
    if report is None:
        return Trial(outcome, bool(problems), len(outcome.found))
    assert report.responses >= len(outcome.found)
    return Trial(outcome, bool(problems), report.responses)


def flip(name: str, bit: int) -> Callable[[Path], None]:
    def change(content: bytearray) -> None:
        content[bit // 8] ^= 1 << bit % 8

    return lambda directory: rewrite(directory / name, change)


def choose_bits(original: Path, count: int) -> list[tuple[str, int]]:
    """Give bits of all files, those of the headers of the file, its pages and the WAL's frames more often."""
    chosen = random.Random(4)
    bits = []
    for _ in range(count):
        name = chosen.choice([path.name for path in original.iterdir()])
        size = (original / name).stat().st_size
        step = PAGE + 24 if name == WAL else PAGE
        place = chosen.choice(
            [
                chosen.randrange(size),
                chosen.randrange(min(200, size)),
                chosen.randrange(size // step) * step + chosen.randrange(64),
            ]
        )
        bits.append((name, min(place, size - 1) * 8 + chosen.randrange(8)))
    return bits


def flip_bits(original: Path, directory: Path, count: int) -> None:
    for name, bit in choose_bits(original, count):
        trial = try_out(original, directory, flip(name, bit))
        # A bit is in one answer at most; in a WAL it hides those that come later, which are looked for.
        assert trial.kept >= COUNT - 1, (name, bit)
        if trial.outcome.error is None:
            assert trial.is_told or len(trial.outcome.found) == COUNT, (name, bit)
            assert len(trial.outcome.found) >= COUNT - 8, (name, bit)


def test_one_bit_is_noticed_or_does_no_harm(original: Path, tmp_path: Path) -> None:
    flip_bits(original, tmp_path, 10)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_any_bit_is_noticed_or_does_no_harm(original: Path, tmp_path: Path) -> None:
    flip_bits(original, tmp_path, 250)


def cut_files(original: Path, directory: Path, step: int) -> None:
    for path in original.iterdir():
        for length in range(step, path.stat().st_size, step):
            try_out(original, directory, lambda d, name=path.name, end=length: os.truncate(d / name, end))


def test_a_file_that_is_cut_is_noticed_or_does_no_harm(original: Path, tmp_path: Path) -> None:
    cut_files(original, tmp_path, 60_013)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_a_file_cut_anywhere_is_noticed_or_does_no_harm(original: Path, tmp_path: Path) -> None:
    cut_files(original, tmp_path, 1_543)


def test_what_a_structure_leads_to_no_more_is_found_again(ledgers: Ledgers, tmp_path: Path) -> None:
    for damage in (lambda d: zero(d / NAME, 0, 100), zero_pages(5)):
        trial = try_out(ledgers.at_rest, tmp_path, damage)
        assert (type(trial.outcome.error), trial.kept) == (DamagedFileError, COUNT)
    assert try_out(ledgers.at_rest, tmp_path, zero_pages(10)).kept == COUNT
    trial = try_out(ledgers.after_a_kill, tmp_path, lambda d: (d / NAME).unlink())
    assert type(trial.outcome.error) is DamagedFileError
    assert trial.kept >= COUNT // 2
