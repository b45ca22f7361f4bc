import doctest
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError, DamagedFileError
from distilabel_dagster.ledger import responses as responses_module
from distilabel_dagster.ledger.calls import FailedAttempt, Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.database import exclusive_transaction, open_database
from distilabel_dagster.ledger.rates import RateLimits
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.schema import LEASES_TABLE
from distilabel_dagster.ledger.usage import average_usage, read_failed_attempts, read_usage

STEP = StepInRun("pipeline_1", "generate_1f", "generate", "gpt", "http://127.0.0.1/v1")


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def pay(number: int, text: str = "Hi") -> Paid:
    response = StoredResponse(
        key_of(number), {"text": text}, "gpt", STEP.endpoint, "stop", 1, 1, None, 0.5, 1, 0.0, "run-1"
    )
    return Paid(response, STEP)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[ResponseLedger]:
    with ResponseLedger(str(path)) as opened:
        yield opened


def test_example_runs() -> None:
    failed, attempted = doctest.testmod(responses_module)
    assert attempted > 0 == failed


def test_a_deleted_file_is_noticed_though_a_connection_is_open(ledger: ResponseLedger, path: Path) -> None:
    ledger.store([pay(1)])
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(DamagedFileError):
        ledger.store([pay(2)])


def test_a_directory_moved_away_is_noticed_and_found_again(
    ledger: ResponseLedger, path: Path, tmp_path: Path
) -> None:
    ledger.store([pay(1)])
    path.parent.rename(tmp_path / "elsewhere")
    with pytest.raises(CacheDirectoryError, match="unable to open"):
        ledger.store([pay(2)])
    (tmp_path / "elsewhere").rename(path.parent)
    ledger.store([pay(2)])
    assert ledger.find_keys([key_of(1), key_of(2)]) == {key_of(1), key_of(2)}


def test_a_file_put_in_its_place_is_the_ledger_from_then_on(ledger: ResponseLedger, path: Path) -> None:
    ledger.store([pay(1)])
    copy = path.with_name("copy.sqlite")
    with ResponseLedger(str(copy)) as other:
        other.store([pay(2)])
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink()
    copy.rename(path)
    assert ledger.find_keys([key_of(1), key_of(2)]) == {key_of(2)}


def test_a_full_disk_loses_nothing_and_is_gone_on_from(path: Path) -> None:
    engine = open_database(str(path), keeps_connections=True)
    pages = 200

    @event.listens_for(engine, "checkout")
    def limit(connection: sqlite3.Connection, record: object, proxy: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    with ResponseLedger(engine) as ledger:
        ledger.store([pay(1)])
        with pytest.raises(CacheFullError, match="start the same run again"):
            ledger.store([pay(number, "long " * 1_000) for number in range(2, 1_000)])
        assert ledger.find_keys(map(key_of, range(1_000))) == {key_of(1)}
        pages = 100_000
        ledger.store([pay(number, "long " * 1_000) for number in range(2, 1_000)])
        assert len(ledger.find_keys(map(key_of, range(1_000)))) == 999
    engine.dispose()


def test_a_locked_database_is_given_up_and_read_all_the_same(path: Path) -> None:
    engine = open_database(str(path), busy_timeout_s=0.05, keeps_connections=True)
    with ResponseLedger(engine) as ledger:
        ledger.begin({STEP: [key_of(1)]})
        ledger.store([pay(2)])
        with exclusive_transaction(open_database(str(path))):
            with pytest.raises(CacheError, match="locked"):
                ledger.store([pay(1)])
            with pytest.raises(CacheError, match="locked"):
                ledger.begin({STEP: [key_of(3)]})
            assert ledger.find_keys([key_of(2)]) == {key_of(2)}
        ledger.store([pay(1)])
    engine.dispose()


def test_claims_that_cannot_be_given_back_are_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = ResponseLedger(open_database(str(path), busy_timeout_s=0.05))
    ledger.open_claims()
    with exclusive_transaction(open_database(str(path))):
        ledger.close()
    assert "could not be given back" in caplog.text
    assert "could not be released" in caplog.text


class Statements:
    """What goes to the database, in order."""

    def __init__(self, ledger: ResponseLedger) -> None:
        self.seen: list[tuple[str, Any]] = []
        event.listen(ledger.engine, "before_cursor_execute", self._note)

    def _note(self, *arguments: Any) -> None:
        _, _, statement, parameters, _, is_many = arguments
        self.seen.append((statement, parameters[0] if is_many else parameters))

    def texts(self) -> list[str]:
        return [text for text, _ in self.seen]


def test_a_response_waits_for_the_disk_and_a_claim_does_not(ledger: ResponseLedger) -> None:
    statements = Statements(ledger)
    ledger.begin({STEP: [key_of(1)]})
    ledger.release([key_of(1)])
    RateLimits(ledger.engine).reserve("gpt", 1, 60, 0.0)
    assert [text for text in statements.texts() if "synchronous" in text] == ["PRAGMA synchronous=NORMAL"] * 3
    statements.seen.clear()
    ledger.store([pay(1)])
    assert statements.texts()[:2] == ["PRAGMA synchronous=FULL", "BEGIN IMMEDIATE"]


def test_no_table_that_grows_is_read_from_end_to_end(ledger: ResponseLedger, path: Path) -> None:
    statements = Statements(ledger)
    rates = RateLimits(ledger.engine)
    failed = FailedAttempt(key_of(1), STEP, "timeout", None, "slow", "run-1", 0.0)
    with ResponseLedger(str(path)) as other:
        other.begin({STEP: [key_of(7)]})
        ledger.store([pay(1), pay(2)], [failed])
        ledger.begin({STEP: [key_of(1), key_of(3), key_of(7)]})
    ledger.release([key_of(3)])
    ledger.look_up([key_of(1)])
    ledger.find_keys([key_of(1), key_of(2)])
    for _ in range(2):
        rates.reserve("gpt", 1, 60, 0.0)
    rates.settle("gpt", 1, 60)
    read_usage(ledger.engine, partition="pipeline_1")
    read_usage(ledger.engine, step_key="generate_1f")
    average_usage(ledger.engine, STEP.endpoint, "gpt", "generate")
    read_failed_attempts(ledger.engine, "pipeline_1", "generate_1f")
    planned = [seen for seen in statements.seen if not seen[0].startswith(("PRAGMA", "BEGIN"))]
    tables = {
        name for text, _ in planned for name in ("responses", "claims", "usage", "failures") if name in text
    }
    assert tables == {"responses", "claims", "usage", "failures"}
    scans = []
    with sqlite3.connect(path) as connection:
        for text, parameters in planned:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", parameters)]
            scans += [(text, step) for step in plan if step.startswith("SCAN ") and "CONSTANT" not in step]
    connection.close()
    assert scans == []


def test_an_owner_on_another_host_is_believed_until_it_is_silent(ledger: ResponseLedger, path: Path) -> None:
    now = ledger.clock()
    with ResponseLedger(str(path)) as elsewhere:
        elsewhere.begin({STEP: [key_of(1)]})
        mine = LEASES_TABLE.c.key != ledger._held.keys[0] if ledger._held else False
        with exclusive_transaction(ledger.engine) as connection:
            connection.execute(update(LEASES_TABLE).where(mine).values(host="gpu-7", heartbeat=now - 50))
        assert ledger.begin({STEP: [key_of(1)]}).elsewhere == {key_of(1)}
        with exclusive_transaction(ledger.engine) as connection:
            connection.execute(update(LEASES_TABLE).where(mine).values(heartbeat=now - 61))
        assert ledger.begin({STEP: [key_of(1)]}).claimed == {key_of(1)}
