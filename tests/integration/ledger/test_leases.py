import contextlib
import doctest
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, cast

import pytest
from sqlalchemy import delete, select

from distilabel_dagster.errors import CacheError, DamagedFileError, StepInUseError
from distilabel_dagster.ledger import lease_rows
from distilabel_dagster.ledger import leases as leases_module
from distilabel_dagster.ledger.database import exclusive_transaction, open_database, read_transaction
from distilabel_dagster.ledger.leases import HeldLeases, Leases
from distilabel_dagster.ledger.processes import read_uptime
from distilabel_dagster.ledger.schema import LEASES_TABLE

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import json, sys
from distilabel_dagster.errors import StepInUseError
from distilabel_dagster.ledger.leases import Leases

held = None
for line in sys.stdin:
    command, *keys = json.loads(line)
    try:
        if command == "acquire":
            held = Leases(sys.argv[1]).acquire(keys)
        elif command == "check":
            held.check()
        elif command == "release":
            held.release()
        print("ok", flush=True)
    except StepInUseError as error:
        print(f"StepInUseError {error.pid}", flush=True)
"""


class OtherProcess:
    """A real process that does as it's told."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def tell(self, *command: str) -> None:
        stdin = cast("IO[str]", self.process.stdin)
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()

    def answer(self) -> str:
        return cast("IO[str]", self.process.stdout).readline().strip()

    def do(self, *command: str) -> str:
        self.tell(*command)
        return self.answer()


class Clock:
    """A clock that tests set forward: time goes by for everybody, unless it's said that it jumped."""

    def __init__(self) -> None:
        self.now = time.time()
        self._uptime_ahead = read_uptime() - self.now

    def __call__(self) -> float:
        return self.now

    def uptime(self) -> float:
        return self.now + self._uptime_ahead

    def jump(self, seconds: float) -> None:
        """Set the time of day, and no other clock."""
        self.now += seconds
        self._uptime_ahead -= seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def url(path: Path) -> str:
    return str(path)


@pytest.fixture
def other(url: str) -> Iterator[OtherProcess]:
    started = OtherProcess(url)
    yield started
    with contextlib.suppress(ProcessLookupError):
        started.process.kill()
    started.process.communicate()


def held_keys(url: str) -> list[str]:
    with read_transaction(open_database(url)) as connection:
        return list(connection.execute(select(LEASES_TABLE.c.key).order_by(LEASES_TABLE.c.key)).scalars())


def heartbeat_of(url: str, key: str) -> float:
    with read_transaction(open_database(url)) as connection:
        return float(connection.execute(select(LEASES_TABLE.c.heartbeat).filter_by(key=key)).scalar_one())


def wait_until(is_reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_example_runs() -> None:
    failed, attempted = doctest.testmod(leases_module)
    assert attempted > 0 == failed


def test_keys_are_held_until_released(url: str) -> None:
    leases = Leases(url)
    with leases.acquire(["b", "a", "b"]) as held:
        assert held.keys == ("a", "b")
        held.check()
        assert held_keys(url) == ["a", "b"]
        with leases.acquire(["c"]) as beside:
            beside.check()
    assert held_keys(url) == []
    held.release()
    with leases.acquire(["a"]):
        held.release()  # of old: it takes nothing from the new holder
        assert held_keys(url) == ["a"]
        with pytest.raises(StepInUseError):
            held.check()


def test_no_keys_are_no_trouble(url: str) -> None:
    with Leases(url).acquire([]) as held:
        held.check()


def test_all_keys_or_none(url: str) -> None:
    leases = Leases(url)
    with leases.acquire(["b"]):
        with pytest.raises(StepInUseError, match="Step `b` is being written"):
            leases.acquire(["a", "b", "c"])
        assert held_keys(url) == ["b"]


def test_keys_are_released_after_an_exception(url: str) -> None:
    with pytest.raises(KeyError), Leases(url).acquire(["a"]):
        raise KeyError
    assert held_keys(url) == []


def test_one_process_does_not_hold_a_key_twice(url: str) -> None:
    with Leases(url).acquire(["a"]), pytest.raises(StepInUseError, match="this very process") as caught:
        Leases(url).acquire(["a"])
    assert vars(caught.value)["pid"] == os.getpid()


def test_one_of_many_threads_wins(url: str) -> None:
    leases = Leases(url)
    start = threading.Barrier(12)

    def race(_: int) -> HeldLeases | None:
        start.wait()
        try:
            return leases.acquire(["a", "b"])
        except StepInUseError:
            return None

    with ThreadPoolExecutor(12) as pool:
        winners = [held for held in pool.map(race, range(12)) if held]
    assert len(winners) == 1
    winners[0].check()
    winners[0].release()


def test_one_of_many_processes_wins(url: str) -> None:
    racers = [OtherProcess(url) for _ in range(3)]
    for racer in racers:
        racer.tell("acquire", "a", "b")
    answers = [racer.answer() for racer in racers]
    winner = racers[answers.index("ok")]
    assert sorted(answers) == sorted(["ok"] + [f"StepInUseError {winner.pid}"] * 2)
    for racer in racers:
        racer.process.communicate()


def test_another_process_is_named_and_its_release_is_seen(url: str, other: OtherProcess) -> None:
    assert other.do("acquire", "a") == "ok"
    leases = Leases(url)
    with pytest.raises(StepInUseError, match=f"process {other.pid} on host ") as caught:
        leases.acquire(["a"])
    told = vars(caught.value)
    assert (told["key"], told["pid"], told["path"]) == ("a", other.pid, url)
    assert 0 <= (datetime.now(timezone.utc) - told["since"]).total_seconds() < 60
    assert other.do("release") == "ok"
    leases.acquire(["a"]).release()


def test_a_killed_process_is_taken_over_at_once(url: str, other: OtherProcess) -> None:
    assert other.do("acquire", "a") == "ok"
    os.kill(other.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    with Leases(url).acquire(["a"]) as held:  # still a zombie
        held.check()


def test_a_killed_process_that_is_gone_is_taken_over_at_once(url: str, other: OtherProcess) -> None:
    assert other.do("acquire", "a", "b") == "ok"
    other.process.kill()
    other.process.wait()
    with Leases(url).acquire(["a"]) as held:
        held.check()
        assert held_keys(url) == ["a", "b"]


def test_a_paused_process_is_taken_over_when_it_was_silent_for_long_enough(
    url: str, other: OtherProcess
) -> None:
    assert other.do("acquire", "a") == "ok"
    assert other.do("check") == "ok"
    os.kill(other.pid, signal.SIGSTOP)
    clock = Clock()
    leases = Leases(url, clock=clock, uptime=clock.uptime)
    with pytest.raises(StepInUseError):
        leases.acquire(["a"])
    clock.now += 61
    held = leases.acquire(["a"])
    held.check()
    os.kill(other.pid, signal.SIGCONT)
    assert other.do("check") == f"StepInUseError {os.getpid()}"
    assert other.do("release") == "ok"
    held.check()
    held.release()
    assert other.do("check") == "StepInUseError None"


def test_signs_of_life_keep_a_key(url: str) -> None:
    clock = Clock()
    holder = Leases(url, heartbeat_every_s=0.01, clock=clock, uptime=clock.uptime)
    with holder.acquire(["a"]) as held:
        for _ in range(3):
            clock.now += 50
            wait_until(lambda: heartbeat_of(url, "a") == clock.now)
        with pytest.raises(StepInUseError):
            Leases(url, clock=clock, uptime=clock.uptime).acquire(["a"])
        held.check()


def test_a_holder_that_slept_goes_on_when_nobody_came(url: str) -> None:
    clock = Clock()
    with Leases(url, heartbeat_every_s=0.01, clock=clock, uptime=clock.uptime).acquire(["a"]) as held:
        clock.now += 3600
        held.check()
        wait_until(lambda: heartbeat_of(url, "a") == clock.now)
        held.check()


def test_a_failed_sign_of_life_is_made_up_for(url: str, path: Path) -> None:
    clock = Clock()
    engine = open_database(url, busy_timeout_s=0.01)
    with Leases(engine, heartbeat_every_s=0.01, clock=clock, uptime=clock.uptime).acquire(["a"]) as held:
        blocking = sqlite3.connect(path, isolation_level=None)
        blocking.execute("PRAGMA busy_timeout=10000")
        blocking.execute("BEGIN IMMEDIATE")
        clock.now += 30
        time.sleep(0.1)
        held.check()
        blocking.execute("ROLLBACK")
        blocking.close()
        wait_until(lambda: heartbeat_of(url, "a") == clock.now)
        held.check()


def test_a_ledger_out_of_reach_is_an_error_only_when_the_key_may_be_lost(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "cache" / "ledger.sqlite"
    held = Leases(str(path), clock=clock, uptime=clock.uptime).acquire(["a"])
    path.parent.rename(tmp_path / "moved")
    clock.now += 60
    held.check()
    clock.now += 1
    with pytest.raises(CacheError, match="unable to open"):
        held.check()
    held.release()


def test_a_deleted_ledger_is_an_error_at_once(url: str, path: Path) -> None:
    held = Leases(url).acquire(["a"])
    for file in path.parent.glob("ledger.sqlite*"):
        file.unlink()
    with pytest.raises(DamagedFileError):
        held.check()
    held.release()


def test_a_row_that_someone_deleted_is_a_lost_key(url: str) -> None:
    held = Leases(url).acquire(["a", "b"])
    with exclusive_transaction(open_database(url)) as connection:
        connection.execute(delete(LEASES_TABLE).where(LEASES_TABLE.c.key == "b"))
    with pytest.raises(StepInUseError, match=r"Step `b`: this process may write no longer") as caught:
        held.check()
    assert vars(caught.value)["host"] is None
    held.release()
    assert held_keys(url) == []


def test_a_release_that_fails_is_told_and_harmless(
    url: str, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Leases(open_database(url, busy_timeout_s=0.01)).acquire(["a"])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as blocking:
        blocking.execute("BEGIN IMMEDIATE")
        held.release()
    assert "could not be released" in caplog.text
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lease_rows, "given_up", set())  # as in another process
        with pytest.raises(StepInUseError):
            Leases(url).acquire(["a"])
    with Leases(url).acquire(["a"]) as again:  # this one knows that it has let go
        again.check()


def act_in_fork(url: str, held: HeldLeases, told: "multiprocessing.SimpleQueue[str]") -> None:
    for act in (held.check, lambda: Leases(url).acquire(["a"]), held.release):
        try:
            act()
            told.put("ok")
        except StepInUseError as error:
            told.put(f"held by {vars(error)['pid']}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_fork_is_another_process(url: str) -> None:
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    with Leases(url).acquire(["a"]) as held:
        child = context.Process(target=act_in_fork, args=(url, held, told))
        child.start()
        holder = f"held by {os.getpid()}"
        assert [told.get() for _ in range(3)] == [holder, holder, "ok"]
        child.join()
        held.check()
