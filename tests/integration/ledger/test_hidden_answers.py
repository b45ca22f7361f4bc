"""A WAL that SQLite doesn't read to its end since a bit of it changed: the answers in it aren't paid again."""

import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.base import fault_points
from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.ledger import hidden_answers
from distilabel_dagster.ledger.database import exclusive_transaction, open_database
from distilabel_dagster.ledger.hidden_answers import COPY_SUFFIX, find_hidden_answers
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.ledger.repair import check_ledger, repair_ledger
from distilabel_dagster.ledger.response_encoding import encode_row
from distilabel_dagster.ledger.response_rows import replace_row
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.wal import (
    FRAME_HEADER_BYTES,
    WAL_HEADER_BYTES,
    WalFrames,
    count_hidden_commits,
    read_frames,
)
from tests.contract.ledger_process import ROOT, STEP, OtherLedger, answer, key_of, keys_of, pay

NAME = "ledger.sqlite"
PAGE = 4_096
STEP_BYTES = FRAME_HEADER_BYTES + PAGE
COMMITS, EACH = 12, 5
COUNT = COMMITS * EACH
KEYS = set(keys_of(range(COUNT)))


def text_of(number: int) -> str:
    """Some go on to pages of their own."""
    return f"answer {number} " * (900 if number % 4 == 0 else 3)


EXPECTED = {key_of(number): answer(number, text_of(number)) for number in range(COUNT)}

WRITER = """
import os, sys
from distilabel_dagster.ledger.responses import ResponseLedger
from tests.integration.ledger.test_hidden_answers import store
ledger = ResponseLedger(sys.argv[1])
ledger.open_claims()
store(ledger)
os._exit(7)
"""


def store(ledger: ResponseLedger) -> None:
    for commit in range(COMMITS):
        ledger.store([pay(n, text_of(n)) for n in range(commit * EACH, (commit + 1) * EACH)])


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed process left: all but the tables is in the WAL."""
    path = tmp_path_factory.mktemp("killed") / NAME
    with ResponseLedger(str(path)):
        pass
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, check=False)
    assert done.returncode == 7
    return path


@pytest.fixture
def path(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed.parent, tmp_path / "cache")
    return tmp_path / "cache" / NAME


@pytest.fixture(autouse=True)
def no_hook() -> Iterator[None]:
    yield
    fault_points.install(None)


def wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def copy_of(path: Path) -> Path:
    return path.with_name(path.name + COPY_SUFFIX)


def read(path: Path) -> WalFrames:
    with wal_of(path).open("rb") as file:
        frames = read_frames(file)
    assert frames is not None
    return frames


def rewrite(path: Path, change: Callable[[bytearray], Any]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def flip(path: Path, place: int, bit: int = 0) -> None:
    def change(content: bytearray) -> None:
        content[place] ^= 1 << bit

    rewrite(wal_of(path), change)


def flip_first_answer(path: Path) -> None:
    """Flip a bit in the first of the commits with answers, in what an answer says."""
    flip(path, wal_of(path).read_bytes().index(b"answer 1 answer"))


def list_hidden_leaves(path: Path) -> list[int]:
    """Frames in which answers are, of all that comes after the first commit with some."""
    content = wal_of(path).read_bytes()
    places = range(WAL_HEADER_BYTES + FRAME_HEADER_BYTES, len(content), STEP_BYTES)
    return [place for place in places if content[place] == 13 and b"answer " in content[place : place + PAGE]]


def use(path: Path) -> set[bytes]:
    """Give the answers that a run finds, after making sure that they're right and that it asks for the others only."""
    with ResponseLedger(str(path)) as ledger:
        found = dict(ledger.look_up(KEYS))
        assert found == {key: EXPECTED[key] for key in found}
        begun = ledger.begin({STEP: sorted(KEYS)})
        assert begun.found == found
        assert begun.claimed == KEYS - found.keys()
    assert not copy_of(path).exists()
    assert check_ledger(str(path)) == []
    return set(found)


def test_what_comes_after_a_changed_bit_is_found_and_not_asked_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip_first_answer(path)
    hidden = count_hidden_commits(wal_of(path))
    assert hidden >= COMMITS - 1
    # The page that was hit comes again, whole, with the next commit.
    assert use(path) == KEYS
    (told,) = [record for record in caplog.records if "brought back" in record.message]
    assert told.levelno == logging.WARNING
    assert f"{hidden:,} commits after a page" in told.message
    assert f"{COUNT} answers were brought back" in told.message
    caplog.clear()
    assert use(path) == KEYS
    assert caplog.records == []


def test_leases_alone_bring_them_back_as_well(path: Path) -> None:
    """A run asks who writes before it asks for answers, and with that SQLite begins to write over them."""
    flip_first_answer(path)
    with Leases(str(path)).acquire(["generate_1f"]) as held:
        held.check()
    assert use(path) == KEYS


def test_any_bit_behind_the_first_commit_costs_one_answer_at_most(path: Path, tmp_path: Path) -> None:
    size = wal_of(path).stat().st_size
    step = size // 23 // STEP_BYTES * STEP_BYTES
    places = [*range(WAL_HEADER_BYTES + 5, size, step + 7), *range(WAL_HEADER_BYTES, size, step + STEP_BYTES)]
    for number, place in enumerate(places):
        copy = tmp_path / str(number) / NAME
        shutil.copytree(path.parent, copy.parent)
        flip(copy, place, number % 8)
        assert len(use(copy)) >= COUNT - 1, place


@pytest.mark.parametrize("place", [*range(32)])
def test_a_header_that_is_damaged_hides_all_and_loses_none(path: Path, place: int) -> None:
    flip(path, place)
    assert use(path) == KEYS


@pytest.mark.parametrize("within", range(24))
def test_what_a_frame_says_of_itself_may_be_damaged(path: Path, within: int) -> None:
    """The page that it's about is whole."""
    flip(path, list_hidden_leaves(path)[1] - FRAME_HEADER_BYTES + within)
    assert use(path) == KEYS


def test_a_page_that_says_of_itself_that_it_is_none_is_read_all_the_same(path: Path) -> None:
    """The last one, which no later one repeats."""
    flip(path, list_hidden_leaves(path)[-1], 1)
    assert use(path) == KEYS


def test_the_answer_that_was_hit_is_asked_again_and_no_other(path: Path) -> None:
    last = list_hidden_leaves(path)[-1]
    page = wal_of(path).read_bytes()[last : last + PAGE]
    flip(path, last + page.index(f"answer {COUNT - 1} ".encode()))
    assert use(path) == KEYS - {key_of(COUNT - 1)}


def test_a_long_answer_is_put_together_from_before_and_after_and_from_the_file(
    killed: Path, tmp_path: Path
) -> None:
    """Its page comes again with later commits; what it goes on in is where it was first written."""
    path = tmp_path / "cache" / NAME
    path.parent.mkdir()
    shutil.copy(killed, path)
    ledger = ResponseLedger(str(path))
    ledger.open_claims()
    ledger.store([pay(0, text_of(0))])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint")
    for number in range(1, 4):
        ledger.store([pay(number, text_of(number))])
    copy = tmp_path / "copy" / NAME
    shutil.copytree(path.parent, copy.parent)
    ledger.close()
    leaves = list_hidden_leaves(copy)
    flip(copy, leaves[1])
    found = find_hidden_answers(copy)
    assert found is not None
    assert {each.key: each for each in found.answers} == {key: EXPECTED[key] for key in keys_of(range(4))}


def test_a_wal_that_is_in_the_file_already_is_told_and_loses_none(path: Path) -> None:
    """SQLite reads the pages before the damage in place of the file's, though these are newer: they don't fit together."""
    ledger = ResponseLedger(str(path))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
    copy = path.parent.parent / "copy" / NAME
    shutil.copytree(path.parent, copy.parent)
    ledger.close()
    flip_first_answer(copy)
    with pytest.raises(DamagedFileError, match="cache verify --repair"):
        use(copy)
    assert repair_ledger(str(copy)) is not None
    assert use(copy) == KEYS


class Counted:
    """A file that counts what is read of it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.read_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int) -> bytes:
        content: bytes = self._file.read(size)
        self.read_bytes += len(content)
        return content


def test_a_whole_wal_is_read_once_and_nothing_is_looked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read_bytes = []

    def count(file: Any) -> WalFrames | None:
        counted = Counted(file)
        try:
            return read_frames(counted)  # type: ignore[arg-type]
        finally:
            read_bytes.append(counted.read_bytes)

    monkeypatch.setattr(hidden_answers, "read_frames", count)
    monkeypatch.setattr(hidden_answers, "_carve", None)
    size = wal_of(path).stat().st_size
    assert use(path) == KEYS
    # That of a new process, then none: who closes the ledger last brings the WAL to the file.
    assert read_bytes == [size]
    assert caplog.records == []


@pytest.mark.parametrize("cut", [1, 100, PAGE, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES])
def test_a_torn_tail_is_no_damage(path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    os.truncate(wal_of(path), wal_of(path).stat().st_size - cut)
    assert find_hidden_answers(path) is None
    assert len(use(path)) >= COUNT - EACH
    assert caplog.records == []


def begin_wal_anew(path: Path) -> None:
    """Leave a WAL of a few frames before those of an older one, all of which are in the file."""
    ledger = ResponseLedger(str(path))
    ledger.open_claims()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
    ledger.store([pay(COUNT, "of the new WAL")])
    ledger.store([pay(COUNT + 1, "of the new WAL")])
    shutil.copytree(path.parent, path.parent.parent / "anew")
    ledger.close()


def test_what_is_left_of_an_older_wal_is_not_hidden(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin_wal_anew(path)
    anew = path.parent.parent / "anew" / NAME
    frames = read(anew)
    assert 0 < frames.whole < len(frames.headers) // FRAME_HEADER_BYTES
    assert find_hidden_answers(anew) is None
    flip(anew, WAL_HEADER_BYTES + FRAME_HEADER_BYTES + 2_000)
    found = find_hidden_answers(anew)
    assert found is not None
    assert found.commits == len({frame.commit for frame in frames.list_committed()})
    assert {key_of(COUNT), key_of(COUNT + 1)} <= {each.key for each in found.answers}
    assert use(anew) == KEYS
    with ResponseLedger(str(anew)) as ledger:
        assert ledger.find_keys(keys_of([COUNT, COUNT + 1])) == set(keys_of([COUNT, COUNT + 1]))


def test_the_first_answer_stays(path: Path) -> None:
    """What is in the ledger isn't displaced by what was hidden, be it older or newer."""
    flip_first_answer(path)
    found = find_hidden_answers(path)
    assert found is not None
    copy_of(path).unlink()
    wal_of(path).unlink()
    with ResponseLedger(str(path)) as ledger:
        ledger.store([pay(number, "another run's", created_at=n) for n, number in enumerate((3, 8, 20))])
        with exclusive_transaction(ledger.engine) as connection:
            assert found.insert(connection) == COUNT - 3
            assert found.insert(connection) == 0
        kept = ledger.look_up(KEYS)
        assert {key for key in kept if kept[key] != EXPECTED[key]} == set(keys_of([3, 8, 20]))


def test_one_that_is_damaged_in_the_file_gives_way(path: Path) -> None:
    """A damaged answer was asked again, and the new one is in a commit that is hidden."""
    with ResponseLedger(str(path)):
        pass
    content = path.read_bytes()
    assert content.count(b"answer 7 answer 7") == 1
    path.write_bytes(content.replace(b"answer 7 answer 7", b"answer 7 answer 9"))
    ledger = ResponseLedger(str(path))
    ledger.open_claims()
    assert key_of(7) in ledger.begin({STEP: sorted(KEYS)}).claimed
    ledger.store([pay(7, "asked again", created_at=1_800_000_000.0)])
    copy = path.parent.parent / "copy" / NAME
    shutil.copytree(path.parent, copy.parent)
    ledger.close()
    flip(copy, WAL_HEADER_BYTES + FRAME_HEADER_BYTES + 3_000)
    with ResponseLedger(str(copy)) as ledger:
        begun = ledger.begin({STEP: sorted(KEYS)})
        assert begun.claimed == set()
        assert begun.found[key_of(7)] == answer(7, "asked again", created_at=1_800_000_000.0)


def test_of_two_versions_the_later_one_is_brought_back(path: Path) -> None:
    """Both are whole in the WAL: the first was damaged on the disk only."""
    ledger = ResponseLedger(str(path))
    ledger.open_claims()
    with exclusive_transaction(ledger.engine) as connection:
        replace_row(connection, encode_row(answer(7, "asked again", created_at=1_800_000_000.0)))
    copy = path.parent.parent / "copy" / NAME
    shutil.copytree(path.parent, copy.parent)
    ledger.close()
    flip_first_answer(copy)
    with ResponseLedger(str(copy)) as ledger:
        assert ledger.look_up(KEYS)[key_of(7)].response == {"text": "asked again"}


def test_nothing_else_is_touched(path: Path) -> None:
    """Neither claims nor leases nor counters are made of what was hidden."""
    flip_first_answer(path)
    open_database(str(path)).dispose()
    with closing(sqlite3.connect(path)) as connection:
        tables = ("claims", "leases", "usage", "failures", "failed_attempts", "rate_limits")
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables
        }
        assert connection.execute("SELECT count(*) FROM responses").fetchone()[0] == COUNT
    assert counts["usage"] <= 1
    assert {counts[table] for table in ("failures", "failed_attempts", "rate_limits")} == {0}


@pytest.mark.parametrize(
    "point", ["file.opened", "file.done", "ledger.begun", "ledger.committing", "ledger.committed"]
)
def test_a_kill_at_any_moment_of_it_loses_none(path: Path, point: str) -> None:
    flip_first_answer(path)
    script = f"""
import os, sys
from distilabel_dagster.base import fault_points
from distilabel_dagster.ledger.database import open_database
fault_points.install(lambda point, about: os._exit(9) if point == {point!r} else None)
open_database(sys.argv[1])
"""
    assert subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False).returncode == 9
    assert copy_of(path).exists()
    if point != "file.opened":
        # The copy is whole, and what SQLite does to the WAL doesn't matter any more.
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM leases")
    assert use(path) == KEYS


def test_a_ledger_that_cannot_be_written_now_is_brought_them_the_next_time(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip_first_answer(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_autocheckpoint=0")
        found = find_hidden_answers(path)
        assert found is not None
        other.execute("BEGIN IMMEDIATE")
        open_database(str(path), busy_timeout_s=0.05).dispose()
        assert f"{COUNT} answers" in caplog.text
        assert "tried again" in caplog.text
        assert copy_of(path).exists()
    assert use(path) == KEYS


def test_a_copy_that_cannot_be_made_is_done_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip_first_answer(path)

    def refuse(source: Any, target: Any) -> None:
        target.write(source.read(100))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", refuse)
    assert use(path) == KEYS


def test_the_copy_is_no_more_open_to_others_than_the_wal(path: Path) -> None:
    flip_first_answer(path)
    wal_of(path).chmod(0o640)
    found = find_hidden_answers(path)
    assert found is not None
    assert found.copies == (copy_of(path),)
    assert stat.S_IMODE(copy_of(path).stat().st_mode) == 0o640


def test_locks_of_this_process_outlive_a_look(path: Path) -> None:
    """A process that closes a file loses all its locks on it: another would take the file for its own then."""
    ledger = ResponseLedger(str(path))
    ledger.open_claims()
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("SELECT count(*) FROM responses").fetchone()
        flip_first_answer(path)
        assert find_hidden_answers(path) is not None
        script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM leases').fetchone(); c.close()"
        subprocess.run([sys.executable, "-c", script, str(path)], check=True)
        # The last one out deletes the WAL; that other wasn't.
        assert wal_of(path).exists()
    ledger.close()


def test_others_that_write_meanwhile_are_not_disturbed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / NAME
    other = OtherLedger(str(path))
    try:
        other.tell("store", [[n] for n in range(400)])
        opened = 0
        waiting = threading.Thread(target=other.answer)
        waiting.start()
        while waiting.is_alive():
            open_database(str(path)).dispose()
            opened += 1
        waiting.join()
        assert opened > 3
    finally:
        other.end()
    assert "brought back" not in caplog.text
    with ResponseLedger(str(path)) as ledger:
        assert len(ledger.look_up(keys_of(range(400)))) == 400
    assert check_ledger(str(path)) == []
    assert not copy_of(path).exists()


def test_a_bit_that_changes_under_one_who_writes_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has the ledger open doesn't look at checksums, so for all that share it nothing is hidden, until they end."""
    path = tmp_path / NAME
    other = OtherLedger(str(path))
    try:
        other.do("store", [[n] for n in range(20)])
        frames = read(path)
        broken = frames.list_committed()[frames.whole // 4]
        with wal_of(path).open("r+b") as file:
            file.seek(broken.offset - 4)
            file.write(b"\xff")
        with ResponseLedger(str(path)) as ledger:
            assert len(ledger.look_up(keys_of(range(20)))) == 20
            ledger.store([pay(20, "other")])
            other.do("store", [[21]])
        assert not copy_of(path).exists()
        assert caplog.records == []
        other.kill()
    finally:
        other.end()
    assert count_hidden_commits(wal_of(path)) > 10
    with ResponseLedger(str(path)) as ledger:
        assert dict(ledger.look_up(keys_of(range(22)))) == {key_of(n): answer(n, "other") for n in range(22)}
    assert "brought back" in caplog.text


def test_a_damaged_wal_is_healed_by_all_who_open_it_at_once(path: Path) -> None:
    flip_first_answer(path)
    script = "import sys; from distilabel_dagster.ledger.database import open_database; sys.stdin.read(); open_database(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT, stdin=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert use(path) == KEYS


def test_a_ledger_that_is_beyond_use_keeps_its_copy_for_the_repair(path: Path) -> None:
    flip_first_answer(path)
    rewrite(path, lambda content: content.__setitem__(slice(0, 100), bytes(100)))
    with pytest.raises(DamagedFileError):
        open_database(str(path))
    assert copy_of(path).exists()
    assert repair_ledger(str(path)) is not None
    assert use(path) == KEYS
