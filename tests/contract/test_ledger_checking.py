"""Looking through a ledger for damage, on each database that can hold one."""

import pytest
from sqlalchemy import update

from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.database import exclusive_transaction, open_database
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.ledger.reading import count_responses
from distilabel_dagster.ledger.repair import check_ledger, repair_ledger
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.schema import LEASES_TABLE, RESPONSES_TABLE, USAGE_TABLE
from tests.contract.ledger_process import STEP, fail, key_of, keys_of, pay
from tests.contract.test_ledger_schema import write_version


def test_a_ledger_at_work_is_whole(ledger_url: str) -> None:
    with ResponseLedger(ledger_url) as ledger:
        ledger.begin({STEP: keys_of(range(9))})
        ledger.store([pay(number) for number in range(5)], [fail(7)])
        assert check_ledger(ledger_url) == []
        assert count_responses(ledger_url) == 5


@pytest.mark.parametrize("version", [1, 2])
def test_a_ledger_of_an_older_release_is_whole(ledger_url: str, version: int) -> None:
    write_version(version, ledger_url)
    assert check_ledger(ledger_url) == []
    assert count_responses(ledger_url) == (3 if version == 2 else 0)


def test_what_is_wrong_is_told(ledger_url: str) -> None:
    engine = open_database(ledger_url)
    ledger = ResponseLedger(engine)
    ledger.store([pay(number) for number in range(5)])
    with Leases(engine).acquire(["a"]):
        with exclusive_transaction(engine) as connection:
            connection.execute(
                update(RESPONSES_TABLE).where(RESPONSES_TABLE.c.key == key_of(2)).values(model="gpt-0")
            )
            connection.execute(update(USAGE_TABLE).values(cost_usd=float("inf")))
            connection.execute(update(LEASES_TABLE).values(pid=-1))
        problems = check_ledger(ledger_url)
    assert [problem.key for problem in problems] == [key_of(2), None, None]
    told = [problem.what for problem in problems]
    assert f"the response under {key_of(2).hex()} does not have the checksum" in told[0]
    assert "counters" in told[1]
    assert "who holds `a`" in told[2]
    assert {problem.location for problem in problems} == {ledger.location}
    engine.dispose()


def test_a_database_that_is_empty_holds_no_ledger(ledger_url: str) -> None:
    assert check_ledger(ledger_url) == []
    assert count_responses(ledger_url) == 0


def test_a_server_s_database_is_for_its_own_tools(ledger_url: str) -> None:
    if "://" not in ledger_url:
        assert repair_ledger(ledger_url) is None
        return
    with pytest.raises(CacheError, match="which can't be repaired from here") as caught:
        repair_ledger(ledger_url)
    assert "pg_amcheck" in str(caught.value)


def test_a_server_that_is_not_there_is_told() -> None:
    problems = check_ledger("postgresql+psycopg://ann:s3cret@127.0.0.1:1/none")
    assert len(problems) == 1
    assert "can't be read" in problems[0].what
    assert "s3cret" not in repr(problems)
