import itertools
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from distilabel_dagster.base import fault_points
from distilabel_dagster.cache import layout
from distilabel_dagster.errors import CacheError, DamagedFileError, StepInUseError
from distilabel_dagster.ledger import repair as repair_module
from distilabel_dagster.ledger.database import exclusive_transaction, open_database, read_transaction
from distilabel_dagster.ledger.findings import RepairReport
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.ledger.reading import count_responses
from distilabel_dagster.ledger.repair import check_ledger, repair_ledger
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.schema import RESPONSES_TABLE, SCHEMA_VERSION_TABLE
from distilabel_dagster.ledger.usage import read_failed_attempts, read_usage
from tests.contract.ledger_process import OTHER_STEP, ROOT, STEP, answer, fail, key_of, keys_of, pay
from tests.integration.ledger.damaged_ledgers import (
    COUNT,
    EXPECTED,
    KEYS,
    NAME,
    Ledgers,
    build_ledgers,
    use,
)


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Ledgers:
    return build_ledgers(tmp_path_factory.mktemp("ledgers"))


@pytest.fixture(params=["at_rest", "after_a_kill"])
def path(request: pytest.FixtureRequest, ledgers: Ledgers, tmp_path: Path) -> Path:
    """A ledger with a damaged answer and a damaged counter."""
    copy = tmp_path / "cache"
    shutil.copytree(getattr(ledgers, request.param), copy)
    if request.param == "at_rest":
        damage_answer(copy / NAME, 3)
    else:
        damage_bytes(copy / NAME, b"answer 3 ")
    return copy / NAME


@pytest.fixture
def at_rest(ledgers: Ledgers, tmp_path: Path) -> Path:
    copy = tmp_path / "cache"
    shutil.copytree(ledgers.at_rest, copy)
    return copy / NAME


@pytest.fixture(autouse=True)
def no_hook() -> Iterator[None]:
    yield
    fault_points.install(None)


def damage_answer(path: Path, number: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            'UPDATE responses SET response = \'{"text":"Hm"}\' WHERE key = ?', (key_of(number),)
        )


def damage_bytes(path: Path, text: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(text)] ^= 1
    path.write_bytes(content)


def test_set_aside_files_are_called_as_those_of_the_cache() -> None:
    assert repair_module.SET_ASIDE_SUFFIX == layout.SET_ASIDE_SUFFIX


def test_a_whole_ledger_is_left_alone(ledgers: Ledgers, at_rest: Path) -> None:
    before = at_rest.read_bytes()
    assert check_ledger(str(at_rest)) == []
    assert repair_ledger(str(at_rest)) is None
    assert at_rest.read_bytes() == before
    assert [each.name for each in at_rest.parent.iterdir()] == [NAME]
    assert check_ledger(str(ledgers.after_a_kill / NAME)) == []


def test_no_ledger_is_no_problem(tmp_path: Path) -> None:
    assert check_ledger(str(tmp_path / "none" / NAME)) == []
    assert repair_ledger(str(tmp_path / "none" / NAME)) is None
    assert list(tmp_path.iterdir()) == []
    open_database(str(tmp_path / NAME)).dispose()
    assert check_ledger(str(tmp_path / NAME)) == []


def test_a_damaged_answer_is_told_and_all_others_are_kept(path: Path) -> None:
    problems = check_ledger(str(path))
    assert [problem.key for problem in problems] == [key_of(3)]
    assert problems[0].what == (
        f"can't be read: the response under {key_of(3).hex()} does not have the checksum that it was written with"
    )
    assert "--repair" in problems[0].remedy
    before = {each.name: each.read_bytes() for each in path.parent.iterdir() if each.name != f"{NAME}-shm"}
    report = repair_ledger(str(path))
    assert report == RepairReport(
        location=str(path),
        responses=COUNT - 1,
        responses_lost=1,
        tables_cut=(),
        set_aside=tuple(
            f"{path}.set-aside{suffix}"
            for suffix in ("-wal", "-shm", "")
            if (path.parent / f"{NAME}.set-aside{suffix}").exists()
        ),
    )
    kept = {
        each.name.replace(".set-aside", ""): each.read_bytes() for each in path.parent.glob("*.set-aside*")
    }
    assert {name: kept[name] for name in before} == before
    assert check_ledger(str(path)) == []
    with ResponseLedger(str(path)) as ledger:
        begun = ledger.begin({STEP: sorted(KEYS)})
        assert begun.claimed == {key_of(3)}
        assert begun.damaged == set()
        assert begun.found == {key: each for key, each in EXPECTED.items() if key != key_of(3)}
        usage = read_usage(ledger.engine)
        assert usage[STEP].calls == COUNT
        assert usage[STEP].failures == {"rate_limit": COUNT}
        assert usage[OTHER_STEP].failures == {"rate_limit": 2}
        attempts = read_failed_attempts(ledger.engine, STEP.partition, STEP.step_key, limit=1_000)
        assert len(attempts) == COUNT
        ledger.store([], [fail(1)])
        with read_transaction(ledger.engine) as connection:
            checksums = connection.exec_driver_sql("SELECT count(*) FROM responses WHERE checksum IS NULL")
            assert checksums.scalar() == 0


def test_answers_of_an_older_release_are_kept_and_get_checksums(tmp_path: Path) -> None:
    path = tmp_path / NAME
    text = (ROOT / "tests" / "fixtures" / "ledgers" / "version-2.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(text)
        connection.execute("DELETE FROM leases")
    assert check_ledger(str(path)) == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE responses SET response = '{half' WHERE key = ?", (key_of(3),))
    assert [problem.key for problem in check_ledger(str(path))] == [key_of(3)]
    report = repair_ledger(str(path))
    assert report is not None
    assert (report.responses, report.responses_lost) == (2, 1)
    with ResponseLedger(str(path)) as ledger:
        found = ledger.begin({STEP: keys_of([1, 2, 3])}).found
        assert {key: each.response["text"] for key, each in found.items()} == {
            key_of(number): f"It's answer {number}: Ünïcode 🙂" for number in (1, 2)
        }
        assert read_usage(ledger.engine)[STEP].calls == 3


def test_a_ledger_in_use_is_not_repaired(at_rest: Path) -> None:
    damage_answer(at_rest, 3)
    with Leases(str(at_rest)).acquire(["generate_1f"]):
        with pytest.raises(
            StepInUseError, match=rf"can't be repaired while process {os.getpid()} on"
        ) as caught:
            repair_ledger(str(at_rest))
        told = vars(caught.value)
        assert (told["key"], told["pid"], told["path"]) == ("generate_1f", os.getpid(), str(at_rest))
    with ResponseLedger(str(at_rest)), pytest.raises(StepInUseError, match="can't be repaired while"):
        repair_ledger(str(at_rest))
    assert repair_ledger(str(at_rest)) is not None


def test_a_newer_release_s_ledger_is_told_and_left_alone(at_rest: Path) -> None:
    with exclusive_transaction(open_database(str(at_rest))) as connection:
        connection.execute(update(SCHEMA_VERSION_TABLE).values(version=99))
    problems = check_ledger(str(at_rest))
    assert len(problems) == 1
    assert problems[0].what.startswith("has schema version 99, made by a newer release")
    with pytest.raises(CacheError, match="has schema version 99"):
        repair_ledger(str(at_rest))
    assert [each.name for each in at_rest.parent.iterdir() if "set-aside" in each.name] == []


def test_damage_all_over_is_told_in_so_many_words(at_rest: Path) -> None:
    with exclusive_transaction(open_database(str(at_rest))) as connection:
        connection.execute(update(RESPONSES_TABLE).values(attempts=7))
    problems = check_ledger(str(at_rest))
    assert len(problems) == 101
    assert problems[-1].what == "holds 20 more answers that aren't what was written"
    report = repair_ledger(str(at_rest))
    assert report is not None
    assert (report.responses, report.responses_lost) == (0, COUNT)


def test_counters_that_cannot_be_read_are_told(at_rest: Path) -> None:
    damage_answer(at_rest, 3)
    with closing(sqlite3.connect(at_rest)) as connection, connection:
        connection.execute("UPDATE usage SET calls = 'many'")
    assert any("counters" in problem.what for problem in check_ledger(str(at_rest)))
    report = repair_ledger(str(at_rest))
    assert report is not None
    assert report.tables_cut == ("usage",)
    assert report.responses == COUNT - 1


def test_a_key_that_is_damaged_in_the_row_is_known_from_the_index(at_rest: Path) -> None:
    content = bytearray(at_rest.read_bytes())
    first = content.index(key_of(77) + b"gpt")
    content[first] ^= 1
    at_rest.write_bytes(content)
    assert use(at_rest).found == KEYS  # the key is read from the index, and it's right there
    assert any("doesn't hang together" in problem.what for problem in check_ledger(str(at_rest)))
    report = repair_ledger(str(at_rest))
    assert report is not None
    assert (report.responses, report.responses_lost) == (COUNT, 0)


def test_an_index_that_leads_to_another_answer_is_damage_and_loses_none(at_rest: Path) -> None:
    """The numbers of two rows are exchanged in the index."""
    content = bytearray(at_rest.read_bytes())
    first, second = (content.index(key_of(number) + bytes([number + 1])) + 32 for number in (77, 78))
    content[first], content[second] = content[second], content[first]
    at_rest.write_bytes(content)
    outcome = use(at_rest)
    assert isinstance(outcome.error, DamagedFileError)
    assert "its index leads from" in str(outcome.error)
    report = repair_ledger(str(at_rest))
    assert report is not None
    assert (report.responses, report.responses_lost) == (COUNT, 0)
    assert use(at_rest).found == KEYS


def test_the_files_permissions_stay(at_rest: Path) -> None:
    damage_answer(at_rest, 3)
    at_rest.chmod(0o640)
    repair_ledger(str(at_rest))
    assert stat.S_IMODE(at_rest.stat().st_mode) == 0o640


def test_a_second_repair_sets_aside_beside_the_first(at_rest: Path) -> None:
    for number in (3, 4):
        damage_answer(at_rest, number)
        assert repair_ledger(str(at_rest)) is not None
    names = {each.name for each in at_rest.parent.iterdir()}
    assert names == {NAME, f"{NAME}.set-aside", f"{NAME}.set-aside-1"}
    assert count_responses(str(at_rest)) == COUNT - 2


def die_in_repair(path: Path, moment: int) -> bool:
    """Repair in a process that is killed at a moment, counted from 0; tell whether it came that far."""
    child = os.fork()
    if child == 0:
        moments = itertools.count()

        def die(point: str, about: str) -> None:
            if next(moments) == moment:
                os._exit(9)

        try:
            fault_points.install(die)
            repair_ledger(str(path))
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def list_moments(path: Path) -> list[int]:
    """Give moments of a repair to be killed at: each at which a file changes its name, and some of those before."""
    passed: list[str] = []
    fault_points.install(lambda point, about: passed.append(point))
    repair_ledger(str(path))
    fault_points.install(None)
    named = [moment for moment, point in enumerate(passed) if point.startswith("file.")]
    return sorted({*named, *range(0, len(passed), 5)})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_kill_at_any_moment_of_a_repair_loses_nothing(ledgers: Ledgers, tmp_path: Path) -> None:
    def copy_ledger(name: str) -> Path:
        shutil.copytree(ledgers.after_a_kill, tmp_path / name)
        damage_bytes(tmp_path / name / NAME, b"answer 3 ")
        return tmp_path / name / NAME

    moments = list_moments(copy_ledger("whole"))
    assert len(moments) > 10
    interrupted = 0
    for moment in moments:
        ledger = copy_ledger(f"{moment}")
        assert die_in_repair(ledger, moment)
        if ledger.with_name(f"{NAME}.repaired").exists():
            # Nobody uses either file before the new one is in its place.
            interrupted += 1
            outcome = use(ledger)
            assert isinstance(outcome.error, DamagedFileError)
            assert "a repair of it was interrupted" in str(outcome.error)
        repair_ledger(str(ledger))
        assert check_ledger(str(ledger)) == []
        assert use(ledger).found >= KEYS - {key_of(3)}
        assert any(each.name.endswith(".set-aside") for each in ledger.parent.iterdir())
        assert not any(".repair" in each.name for each in ledger.parent.iterdir())
    assert interrupted >= 6


def store_and_end(path: Path, number: int) -> None:
    ledger = ResponseLedger(str(path))
    ledger.store([pay(number)])
    ledger.close()


def test_who_writes_meanwhile_is_not_lost(at_rest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage_answer(at_rest, 3)
    salvage = repair_module._salvage
    numbers = [900, 901]

    def salvage_slowly(*arguments: Any) -> Any:
        salvaged = salvage(*arguments)
        if numbers:
            store_and_end(at_rest, numbers.pop())
        return salvaged

    monkeypatch.setattr(repair_module, "_salvage", salvage_slowly)
    report = repair_ledger(str(at_rest))
    assert report is not None
    with ResponseLedger(str(at_rest)) as ledger:
        assert ledger.look_up(keys_of([900, 901])) == {key_of(n): answer(n) for n in (900, 901)}


def test_who_writes_all_the_time_is_told(at_rest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage_answer(at_rest, 3)
    salvage = repair_module._salvage

    def salvage_slowly(*arguments: Any) -> Any:
        salvaged = salvage(*arguments)
        store_and_end(at_rest, 900)
        return salvaged

    monkeypatch.setattr(repair_module, "_salvage", salvage_slowly)
    with pytest.raises(CacheError, match="others write to it"):
        repair_ledger(str(at_rest))
    assert count_responses(str(at_rest)) == COUNT + 1
    assert not any(".repair" in each.name or ".set-aside" in each.name for each in at_rest.parent.iterdir())
