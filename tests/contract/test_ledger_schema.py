"""Ledgers that other releases wrote, leases, and failures, on each database that can hold a ledger."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, inspect, select, update
from sqlalchemy.pool import NullPool

from distilabel_dagster.errors import CacheError, DamagedFileError, StepInUseError
from distilabel_dagster.ledger.database import exclusive_transaction, open_database, read_transaction
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.schema import LEASES_TABLE, METADATA, SCHEMA_VERSION, SCHEMA_VERSION_TABLE
from tests.contract.ledger_process import ROOT, STEP, key_of, pay
from tests.contract.postgresql import PostgreSQLServer

VERSION_1 = ROOT / "tests" / "fixtures" / "ledgers" / "version-1.sql"
HEARTBEAT = 1795623565.7946649
OPEN = """
import sys
from distilabel_dagster.ledger.database import open_database
sys.stdin.readline()
open_database(sys.argv[1])
"""


def write_version_1(url: str) -> None:
    engine = create_engine(url if "://" in url else f"sqlite:///{url}", poolclass=NullPool)
    with engine.begin() as connection:
        for statement in VERSION_1.read_text(encoding="utf-8").split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)


def test_a_ledger_of_version_1_is_brought_up_to_date(ledger_url: str) -> None:
    write_version_1(ledger_url)
    engine = open_database(ledger_url)
    assert set(inspect(engine).get_table_names()) == METADATA.tables.keys()
    with read_transaction(engine) as connection:
        leases = connection.execute(select(LEASES_TABLE).order_by(LEASES_TABLE.c.key)).mappings().all()
        assert connection.execute(select(SCHEMA_VERSION_TABLE)).scalars().all() == [SCHEMA_VERSION]
    assert [(row["key"], row["pid"], row["heartbeat"]) for row in leases] == [
        ("generate_0_77ab", 5453, HEARTBEAT),
        ("load_0_1c9f", 5453, HEARTBEAT),
    ]
    with pytest.raises(StepInUseError, match="process 5453 on host `trainer-3`"):
        Leases(engine, clock=lambda: HEARTBEAT + 59).acquire(["load_0_1c9f"])
    with Leases(engine, clock=lambda: HEARTBEAT + 61).acquire(["load_0_1c9f"]) as held:
        held.check()
    with ResponseLedger(ledger_url, clock=lambda: HEARTBEAT + 61) as ledger:
        ledger.store([pay(1)])
        assert ledger.begin({STEP: [key_of(1)]}).found.keys() == {key_of(1)}


def test_many_bring_a_ledger_up_to_date_at_once(ledger_url: str) -> None:
    write_version_1(ledger_url)
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, ledger_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    with ThreadPoolExecutor(len(openers)) as pool:
        told = list(pool.map(lambda opener: opener.communicate("now\n")[1], openers))
    assert [(opener.returncode, text) for opener, text in zip(openers, told, strict=True)] == [(0, "")] * 3
    with read_transaction(open_database(ledger_url)) as connection:
        assert connection.execute(select(SCHEMA_VERSION_TABLE)).scalars().all() == [SCHEMA_VERSION]
        assert len(connection.execute(select(LEASES_TABLE)).all()) == 2


def test_many_open_a_new_ledger_at_once(ledger_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        for engine in pool.map(lambda _: open_database(ledger_url), range(6)):
            with read_transaction(engine) as connection:
                assert connection.execute(select(SCHEMA_VERSION_TABLE)).scalars().all() == [SCHEMA_VERSION]


def test_a_newer_version_is_refused(ledger_url: str) -> None:
    with exclusive_transaction(open_database(ledger_url)) as connection:
        connection.execute(update(SCHEMA_VERSION_TABLE).values(version=SCHEMA_VERSION + 1))
    with pytest.raises(CacheError, match=r"schema version 3.*knows version 2\. Upgrade"):
        ResponseLedger(ledger_url)


def test_a_step_has_one_writer(ledger_url: str) -> None:
    leases = Leases(ledger_url)
    with leases.acquire(["b", "a"]) as held:
        held.check()
        with pytest.raises(StepInUseError, match="this very process"):
            Leases(ledger_url).acquire(["a"])
    with pytest.raises(StepInUseError):
        held.check()
    leases.acquire(["a"]).release()


def test_an_exclusive_transaction_is_alone_and_waited_for(ledger_url: str) -> None:
    engine = open_database(ledger_url, busy_timeout_s=0.1)
    with exclusive_transaction(engine):
        with pytest.raises(CacheError, match="Another process has kept it"):
            exclusive_transaction(engine, is_durable=False).__enter__()
        with read_transaction(engine) as connection:
            assert connection.execute(select(SCHEMA_VERSION_TABLE)).scalar() == SCHEMA_VERSION
    with exclusive_transaction(engine):
        pass


def test_tables_that_are_gone_are_damage(ledger_url: str) -> None:
    ledger = ResponseLedger(ledger_url)
    with exclusive_transaction(ledger.engine) as connection:
        connection.exec_driver_sql("DROP TABLE responses")
    with pytest.raises(DamagedFileError):
        ledger.look_up([key_of(1)])
    with pytest.raises(DamagedFileError):
        ledger.store([pay(1)])
    ledger.close()


# --- PostgreSQL's own -----------------------------------------------------------------------------


@pytest.fixture
def postgresql_url(postgresql: PostgreSQLServer) -> str:
    return postgresql.create_database()


def test_a_server_that_was_restarted_is_connected_to_again(
    postgresql: PostgreSQLServer, postgresql_url: str
) -> None:
    with ResponseLedger(postgresql_url) as ledger:
        ledger.store([pay(1)])
        postgresql.stop()
        try:
            with pytest.raises(CacheError, match="Check that the disk or the server can be reached"):
                ledger.store([pay(2)])
        finally:
            postgresql.start()
        ledger.store([pay(2)])
        postgresql.stop()
        postgresql.start()
        ledger.store([pay(3)])  # nobody has met the dead connection before
        keys = {key_of(number) for number in (1, 2, 3)}
        assert ledger.find_keys(keys) == keys


def test_what_need_not_last_waits_for_no_disk(postgresql_url: str) -> None:
    engine = open_database(postgresql_url)
    for is_durable, expected in ((True, "on"), (False, "off")):
        with exclusive_transaction(engine, is_durable=is_durable) as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == expected


def test_the_password_is_in_no_error(postgresql_url: str) -> None:
    url = postgresql_url.replace("tests@", "nobody:s3cret@")
    with pytest.raises(CacheError, match='role "nobody" does not exist') as caught:
        open_database(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.__cause__)
