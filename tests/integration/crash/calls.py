"""What a history has asked of the server against what its ledger held after each of its runs."""

import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.crash.findings import Finding
from tests.integration.crash.model import Model
from tests.llm_server import Call, LLMServer

_ANSWER = re.compile(r"call-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class LedgerImage:
    """What a ledger holds.

    Attributes:
        answers: id of an answer -> how many calls it's kept for.
        counted: calls that its usage counts.
        problem: what is wrong with the file.
    """

    answers: Counter[str] = field(default_factory=Counter)
    counted: int = 0
    problem: str = ""


def find_ledger(directory: Path) -> Path | None:
    """Give the ledger of a history, wherever it is below its directory."""
    found = sorted(directory.rglob("*.sqlite"))
    return next(
        (path for path in found if path.name == "ledger.sqlite" or path.parent.name == "ledgers"), None
    )


def read_ledger(path: Path | None) -> LedgerImage:
    """Read a copy of a ledger with bare SQLite, so that the next run finds the file as the last has left it."""
    if path is None:
        return LedgerImage()
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "ledger.sqlite"
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                copy.with_name(copy.name + suffix).write_bytes(source.read_bytes())
        with closing(sqlite3.connect(copy)) as connection:
            return _read(connection)


def _read(connection: sqlite3.Connection) -> LedgerImage:
    verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if verdict != "ok":
        return LedgerImage(problem=f"the ledger's integrity check says: {verdict}")
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "responses" not in tables:
        return LedgerImage()
    answers: Counter[str] = Counter()
    for (response,) in connection.execute("SELECT response FROM responses"):
        answers.update(set(_ANSWER.findall(response)))
    counted = connection.execute("SELECT coalesce(sum(calls), 0) FROM usage").fetchone()[0]
    problem = (
        "" if counted == answers.total() else f"{answers.total()} answers are kept, {counted} are counted"
    )
    return LedgerImage(answers, counted, problem)


@dataclass
class CallBook:
    """The calls of one history, run by run.

    Args:
        server: the history's own.
        model: what must be asked.
    """

    server: LLMServer
    model: Model
    lost: int = 0
    _seen: int = 0
    _kept: Counter[str] = field(default_factory=Counter)

    def close_run(self, ledger: LedgerImage, when: str, *, may_lose: int) -> Iterator[Finding]:
        """Check the calls of the run that has ended.

        Args:
            ledger: what is kept now.
            when: which run it was, for messages.
            may_lose: calls whose answers may be lost, since they were on the wire.
        """
        self.server.wait_until_idle()
        calls = self.server.calls()
        texts = {call.answer_id: call.text for call in calls}
        made = Counter(call.text for call in calls[self._seen :])
        self._seen = len(calls)
        yield from self._check_unknown(calls, ledger, when)
        if ledger.problem:
            yield Finding("wrong", f"{when}: {ledger.problem}")
        if again := made + self._kept - self.model.asked:
            yield Finding("paid_twice", f"{when}: asked again what was kept: {dict(again)}", again.total())
        kept = Counter({texts.get(answer, answer): count for answer, count in ledger.answers.items()})
        if gone := self._kept - kept:
            yield Finding("paid_twice", f"{when}: the ledger has lost {dict(gone)}", gone.total())
        lost = made + self._kept - kept
        self._kept = kept
        self.lost += lost.total()
        if lost.total() > may_lose:
            yield Finding(
                "paid_twice",
                f"{when}: {lost.total()} answers weren't kept, {may_lose} may be on the wire: {dict(lost)}",
                lost.total() - may_lose,
            )

    def _check_unknown(self, calls: list[Call], ledger: LedgerImage, when: str) -> Iterator[Finding]:
        if strange := {call.text for call in calls} - self.model.asked.keys():
            yield Finding("wrong", f"{when}: nobody was to ask {sorted(strange)[:5]}")
        if strange := ledger.answers.keys() - {call.answer_id for call in calls}:
            yield Finding(
                "wrong", f"{when}: the ledger has answers that the server didn't give: {sorted(strange)[:5]}"
            )

    def close_history(self) -> Iterator[Finding]:
        """Check that all was asked, and as often as there are rows that ask it."""
        if missing := self.model.asked - self._kept:
            yield Finding("wrong", f"at the end: the ledger lacks {dict(missing)}", missing.total())
