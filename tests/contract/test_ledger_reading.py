"""Who only looks at a ledger leaves it as it is."""

from sqlalchemy import Engine, create_engine, inspect, text

from distilabel_dagster.ledger.calls import FailedAttempt, Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.database import open_database
from distilabel_dagster.ledger.reading import look_up_usage
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.usage import Usage

STEP = StepInRun("pipeline", "ask_1", "ask", "tiny", "")


def connect(ledger_url: str) -> Engine:
    return create_engine(ledger_url if "://" in ledger_url else f"sqlite:///{ledger_url}")


def test_totals_of_steps_are_read(ledger_url: str) -> None:
    paid = [
        Paid(StoredResponse(bytes([n]) * 32, {}, "tiny", "", None, 3, 5, 0.5, 0.1, 1, 0.0, "run"), STEP)
        for n in range(2)
    ]
    failed = [FailedAttempt(bytes(32), STEP, "server", 500, "down", "run", 0.0)]
    with ResponseLedger(ledger_url) as ledger:
        ledger.store(paid, failed)
        ledger.begin({STEP: [bytes([1]) * 32]})
        expected = Usage(2, 1, 6, 10, cost_usd=1.0, failures={"server": 1})
        assert look_up_usage(ledger_url, ["ask_1", "other_2"]) == {"ask_1": expected}
    assert look_up_usage(ledger_url, ["ask_1"]) == {"ask_1": expected}


def test_empty_database_gets_no_tables(ledger_url: str) -> None:
    assert look_up_usage(ledger_url, ["ask_1"]) == {}
    assert inspect(connect(ledger_url)).get_table_names() == []


def test_older_ledger_is_not_brought_up_to_date(ledger_url: str) -> None:
    open_database(ledger_url).dispose()
    with connect(ledger_url).begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = 1"))
    assert look_up_usage(ledger_url, ["ask_1"]) == {}
    with connect(ledger_url).begin() as connection:
        assert connection.execute(text("SELECT version FROM schema_version")).scalar() == 1
