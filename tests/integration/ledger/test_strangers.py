"""Ledgers that someone made to do harm: nothing of theirs is run, and nothing goes on for ever."""

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from distilabel_dagster.errors import CacheError, DamagedFileError
from distilabel_dagster.ledger import sqlite_file
from distilabel_dagster.ledger.database import open_database
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.ledger.rates import RateLimits
from distilabel_dagster.ledger.reading import look_up_usage
from distilabel_dagster.ledger.repair import check_ledger, repair_ledger
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.usage import average_usage, read_failed_attempts, read_usage
from tests.contract.ledger_process import STEP, answer, fail, key_of, keys_of, pay

PAGE = 4_096
FOR_EVER = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x > 0)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with a few answers, closed."""
    made = tmp_path / "ledger.sqlite"
    with ResponseLedger(str(made)) as ledger:
        ledger.store([pay(number) for number in range(3)], [fail(9)])
        RateLimits(ledger.engine).reserve("gpt", 1, 60, 0.0)
    return made


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def replace_table(path: Path, name: str, *statements: str) -> None:
    change(path, f"DROP TABLE {name}", *statements)


def changed_columns(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Make a table anew, with its declaration changed."""

    def make(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        assert old in sql
        replace_table(path, name, sql.replace(old, new))

    return make


STRANGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a trigger": (
        lambda path: change(
            path, "CREATE TRIGGER t AFTER INSERT ON responses BEGIN DELETE FROM responses; END"
        ),
        "it holds a trigger `t`",
    ),
    "a view": (lambda path: change(path, "CREATE VIEW v AS SELECT * FROM responses"), "it holds a view `v`"),
    "a view in a table's place": (
        lambda path: replace_table(
            path, "responses", f"CREATE VIEW responses AS {FOR_EVER} SELECT x AS key FROM n"
        ),
        "it holds a view `responses`",
    ),
    "a view that says the version": (
        lambda path: replace_table(
            path,
            "schema_version",
            f"CREATE VIEW schema_version AS {FOR_EVER} SELECT max(x) AS version FROM n",
        ),
        "it holds a view `schema_version`",
    ),
    "a virtual table": (
        lambda path: change(path, "CREATE VIRTUAL TABLE extra USING fts5(content)"),
        "it holds a table `extra",
    ),
    "another table": (lambda path: change(path, "CREATE TABLE extra (x)"), "it holds the table `extra`"),
    "an index with an expression": (
        lambda path: change(path, "CREATE INDEX extra ON responses (length(response))"),
        "it holds the index `extra`",
    ),
    "a generated column": (
        changed_columns("responses", "model TEXT NOT NULL", "model TEXT AS (hex(zeroblob(100000000)))"),
        "its table `responses` isn't as this package makes it: see the columns `model`",
    ),
    "a column of another type": (
        changed_columns("responses", "created_at FLOAT", "created_at TEXT"),
        "see the columns `created_at`",
    ),
    "a column less": (changed_columns("usage", "cost_usd FLOAT NOT NULL,", ""), "see the columns `cost_usd`"),
    "a column more": (
        changed_columns("leases", "pid INTEGER", "more TEXT, pid INTEGER"),
        "see the columns `more`",
    ),
    "no key": (
        lambda path: replace_table(
            path, "claims", "CREATE TABLE claims (key BLOB NOT NULL, owner TEXT NOT NULL)"
        ),
        "its table `claims` isn't as this package makes it: see the columns `key`",
    ),
    "a version that is text": (
        lambda path: replace_table(
            path,
            "schema_version",
            "CREATE TABLE schema_version (version TEXT)",
            "INSERT INTO schema_version VALUES ('3; DROP TABLE responses')",
        ),
        "its table `schema_version` holds '3; DROP TABLE",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_this_package_would_not_put_into_a_ledger_is_refused(path: Path, name: str) -> None:
    make, told = STRANGE[name]
    make(path)
    content = path.read_bytes()
    for act in (
        lambda: ResponseLedger(str(path)),
        lambda: Leases(str(path)),
        lambda: look_up_usage(str(path), ["generate_1f"]),
    ):
        with pytest.raises(DamagedFileError) as caught:
            act()
        assert told in str(caught.value)
        assert str(path) in str(caught.value)
    problems = check_ledger(str(path))
    assert len(problems) == 1
    assert told in problems[0].what
    assert path.read_bytes() == content
    assert repair_ledger(str(path)) is not None
    assert check_ledger(str(path)) == []


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    change(path, "PRAGMA encoding = 'UTF-16'", "CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
    with pytest.raises(DamagedFileError, match="its text is kept as UTF-16"):
        ResponseLedger(str(path))


ODD_ROWS = [
    "UPDATE responses SET response = 5",
    "UPDATE responses SET response = x'ff'",
    "UPDATE responses SET model = x'00ff'",
    "UPDATE responses SET model = CAST(x'ff41' AS TEXT)",
    "UPDATE responses SET input_tokens = 'many'",
    "UPDATE responses SET output_tokens = 1e300",
    "UPDATE responses SET latency_s = 'long'",
    "UPDATE responses SET attempts = x'03'",
    "UPDATE responses SET created_at = 'yesterday'",
    "UPDATE responses SET checksum = 'none'",
    "UPDATE responses SET checksum = -1",
    "UPDATE responses SET checksum = NULL, response = '[' || replace(hex(zeroblob(50000)), '0', '[')",
    "UPDATE responses SET checksum = NULL, response = 'null'",
    "UPDATE responses SET checksum = NULL, run_id = 7.5, model = x'41'",
]


@pytest.mark.parametrize("statement", ODD_ROWS)
def test_an_answer_of_other_types_is_asked_for_again(path: Path, statement: str) -> None:
    change(path, f"{statement} WHERE key = x'{key_of(1).hex()}'")
    assert [problem.key for problem in check_ledger(str(path))] == [key_of(1)]
    with ResponseLedger(str(path)) as ledger:
        begun = ledger.begin({STEP: keys_of(range(3))})
        assert begun.found == {key_of(0): answer(0), key_of(2): answer(2)}
        assert begun.claimed == begun.damaged == {key_of(1)}
        ledger.store([pay(1, "again")])
        assert ledger.begin({STEP: keys_of([1])}).found == {key_of(1): answer(1, "again")}
    assert check_ledger(str(path)) == []


ODD_LEASES = [
    "pid = 0",
    "pid = -1",
    "pid = 4294967296",
    "pid = 'me'",
    "heartbeat = 'now'",
    "heartbeat = 9e999",
    "since = 1e300",
    "since = -5.0",
    "uptime = 'long'",
    "host = x'00'",
    "token = 5.5, host = x'ff'",
    "process_start = x'00'",
]


@pytest.mark.parametrize("values", ODD_LEASES)
def test_a_lease_of_other_types_is_an_error_and_no_licence(path: Path, values: str) -> None:
    with Leases(str(path)).acquire(["a"]) as held:
        change(path, f"UPDATE leases SET {values}")
        with pytest.raises(DamagedFileError, match="who holds `a` can't be made out"):
            Leases(str(path)).acquire(["a"])
        with pytest.raises(DamagedFileError):
            held.check()
        assert any("who holds `a`" in problem.what for problem in check_ledger(str(path)))


ODD_COUNTERS = [
    "UPDATE usage SET calls = 'many'",
    "UPDATE usage SET calls = 9e999",
    "UPDATE usage SET cost_usd = x'00'",
    "UPDATE usage SET step = x'ff'",
    "UPDATE failures SET attempts = 'many'",
    "UPDATE failures SET kind = x'00'",
]


@pytest.mark.parametrize("statement", ODD_COUNTERS)
def test_counters_of_other_types_are_an_error(path: Path, statement: str) -> None:
    change(path, statement)
    with pytest.raises(DamagedFileError, match="counters"):
        look_up_usage(str(path), ["generate_1f"])
    with ResponseLedger(str(path)) as ledger:
        with pytest.raises(DamagedFileError, match="counters"):
            read_usage(ledger.engine)
        # Text counts as 0 to a database; what isn't a number to it is no average.
        try:
            average_usage(ledger.engine, STEP.endpoint, STEP.model)
        except CacheError as error:
            told = str(error)
        else:
            told = ""
        assert told == "" or "counters" in told
    assert any("counters" in problem.what for problem in check_ledger(str(path)))
    assert repair_ledger(str(path)) is not None
    assert check_ledger(str(path)) == []


def test_failed_attempts_and_rates_of_other_types(path: Path) -> None:
    change(path, "UPDATE failed_attempts SET message = x'00'", "UPDATE rate_limits SET free_at = 'never'")
    with ResponseLedger(str(path)) as ledger:
        with pytest.raises(DamagedFileError):
            read_failed_attempts(ledger.engine, STEP.partition, STEP.step_key)
        rates = RateLimits(ledger.engine)
        assert rates.reserve("gpt", 1, 60, 1_000.0) == 1_000.0
        assert rates.reserve("gpt", 1, 60, 1_000.0) == 1_001.0


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "setlimit"), reason="needs Python 3.11")
def test_a_value_beyond_all_measure_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(path, f"UPDATE responses SET response = hex(zeroblob(2000000)) WHERE key = x'{key_of(1).hex()}'")
    monkeypatch.setattr(sqlite_file, "_LONGEST_VALUE_BYTES", 1_000_000)
    with ResponseLedger(str(path)) as ledger, pytest.raises(DamagedFileError, match="too big"):
        ledger.begin({STEP: keys_of([1])})


def test_nothing_can_be_attached(path: Path, tmp_path: Path) -> None:
    with open_database(str(path)).connect() as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        with pytest.raises(sqlite3.Error, match=r"too many attached|not authorized"):
            driver.execute("ATTACH ? AS other", (str(tmp_path / "other.sqlite"),))
        assert driver.execute("PRAGMA trusted_schema").fetchone() == (0,)
    assert not (tmp_path / "other.sqlite").exists()


def test_a_tree_that_leads_to_the_same_pages_again_and_again_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand million ways lead to one page of answers."""
    monkeypatch.setattr(sqlite_file, "_MOST_STEPS", 1_000_000)
    with ResponseLedger(str(path)) as ledger:
        ledger.store([pay(number) for number in range(3, 200)])
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'responses'").fetchone()
    content = bytearray(path.read_bytes())
    first = struct.unpack_from(">I", content, (root - 1) * PAGE + 8)[0]
    pages = len(content) // PAGE
    for level in range(5):
        following = pages + level + 2 if level < 4 else first
        content += build_inner_page(following, 100)
    content[(root - 1) * PAGE : root * PAGE] = build_inner_page(pages + 1, 100)
    struct.pack_into(">I", content, 28, len(content) // PAGE)
    path.write_bytes(content)
    problems = check_ledger(str(path))
    assert any("2nd reference" in problem.what for problem in problems)
    assert any("interrupted" in problem.what for problem in problems)
    report = repair_ledger(str(path))
    assert report is not None
    assert report.responses == 200


def build_inner_page(child: int, count: int) -> bytes:
    """Make an inner page of a table that leads to another one, over and over."""
    cells = [struct.pack(">IB", child, number + 1) for number in range(count)]
    start = PAGE - 5 * count
    header = struct.pack(">BHHHBI", 5, 0, count, start, 0, child)
    pointers = struct.pack(f">{count}H", *range(start, PAGE, 5))
    return (header + pointers).ljust(start, b"\0") + b"".join(cells)
