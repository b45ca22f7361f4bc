"""A history from its first run to its last, and what it has shown."""

import contextlib
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.integration.crash.cache_image import CacheImage, UnreadableError, without_nones
from tests.integration.crash.calls import CallBook, find_ledger, read_ledger
from tests.integration.crash.checks import check_committed, check_finished, committed_keys, is_current
from tests.integration.crash.driver import Driver, RunEnd
from tests.integration.crash.faults import Blow
from tests.integration.crash.findings import Finding, compare_rows
from tests.integration.crash.model import Model, hand_out, model_of
from tests.integration.crash.plans import Disturbance, Plan
from tests.integration.crash.shapes import CAP
from tests.integration.crash.stores import CachePlace, LocalPlace, S3Place
from tests.llm_server import LLMServer

_LATENCY_S: Final = 0.04
_TAIL: Final = 3000
_LIBRARIES: Final = ("sqlalchemy.exc.", "sqlite3.", "pyarrow.lib.", "botocore.", "aiohttp.", "s3fs.")


@dataclass
class Outcome:
    """What became of a history.

    Attributes:
        plan: what was planned.
        kills: disturbances that came before the end of their run.
        findings: what isn't as promised.
        reached: points that its runs have passed.
        struck: points at which one was struck.
        calls_on_the_wire: answers that were paid for and lost with a process.
        duration_s: how long it took.
        log: what its runs said, for those that have findings.
    """

    plan: Plan
    kills: int = 0
    findings: list[Finding] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    struck: Counter[str] = field(default_factory=Counter)
    calls_on_the_wire: int = 0
    duration_s: float = 0.0
    log: str = ""


def run_history(plan: Plan, s3_endpoint: str = "", *, keep_in: Path | None = None) -> Outcome:
    """Run a history in a directory of its own, which is gone afterwards.

    Args:
        plan: the history.
        s3_endpoint: the server for a cache in S3.
        keep_in: where the directory is copied to if there are findings.
    """
    begun_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        with _serving(plan, directory) as server:
            history = _History(plan, directory, _place(plan, directory, s3_endpoint), server)
            try:
                history.go()
            finally:
                history.driver.close()
        outcome = history.outcome
        if outcome.findings and keep_in is not None:
            target = keep_in / f"{plan.pipeline}-{plan.store}-{plan.seed}"
            shutil.copytree(directory, target, dirs_exist_ok=True)
    outcome.duration_s = time.monotonic() - begun_at
    return outcome


def _place(plan: Plan, directory: Path, s3_endpoint: str) -> CachePlace:
    if plan.store == "local":
        return LocalPlace(directory / "cache")
    return S3Place(s3_endpoint, directory.name)


@contextlib.contextmanager
def _serving(plan: Plan, directory: Path) -> Iterator[LLMServer | None]:
    if not plan.shape.asks:
        yield None
        return
    (directory / "server").mkdir()
    with LLMServer(directory / "server", answer="upper", latency_s=_LATENCY_S) as server:
        yield server


class _History:
    """The runs of a history in turn, each looked at when it has ended."""

    def __init__(self, plan: Plan, directory: Path, place: CachePlace, server: LLMServer | None) -> None:
        self.driver = Driver(plan, directory, place, server.url if server else "")
        self.outcome = Outcome(plan)
        self._plan = plan
        self._directory = directory
        self._place = place
        self._model: Model = model_of(plan.pipeline)
        self._book = CallBook(server, self._model) if server else None
        self._committed: list[tuple[int, dict[str, set[str]]]] = []
        self._is_damaged = False
        self._is_over = False

    def go(self) -> None:
        """Run until the last run has ended, or one hangs; what was planned for when all is done is left out."""
        causes: list[Disturbance | None] = [*self._plan.disturbances, None]
        for number, disturbance in enumerate(causes):
            if disturbance is not None and self._is_over:
                continue
            if disturbance is None:
                self._place.age_temporary_files()
            end = self.driver.run(number, disturbance)
            self._take_in(number, disturbance, end)
            if end.is_hung:
                self._find(Finding("hung", f"run {number} didn't end:\n{end.err[-2 * _TAIL :]}"))
                return
            image = CacheImage(self._place.read_files())
            if not self._is_damaged:
                self._find(*check_committed(image, self._model, f"after run {number}"))
                self._note_committed(number, image, end)
            self._check_calls(number, disturbance, end)
            self._is_over = end.returncode == 0 and number >= self._plan.heals_at
            if disturbance is None:
                self._check_end(image, end)
            elif disturbance.harms is not None:
                self._harm(disturbance.harms)
        self._check_notes()

    def _harm(self, chosen: int) -> None:
        """Harm a part: what its step has committed, and those behind it, is computed again from now on."""
        step = self.driver.harm_part(chosen)
        if step is not None:
            self._is_damaged = True
            for _, keys in self._committed:
                for name in self._plan.shape.find_descendants(step):
                    keys[name] = set()

    def _find(self, *findings: Finding) -> None:
        self.outcome.findings += findings

    def _take_in(self, number: int, disturbance: Disturbance | None, end: RunEnd) -> None:
        notes = self.driver.note_file(number)
        if notes.points.exists():
            self.outcome.reached |= set(notes.points.read_text().split())
        cause = f"{disturbance}" if disturbance is not None else "undisturbed"
        told = f"--- run {number}: {cause}, struck: {end.was_struck}, ended with {end.returncode}\n"
        self.outcome.log += f"{told}{end.err[-_TAIL:]}\n"
        if disturbance is None:
            return
        if end.was_struck:
            self.outcome.kills += 1
            if isinstance(disturbance.cause, Blow):
                self.outcome.struck[disturbance.cause.point] += 1
        elif end.returncode != 0:
            self._find(
                Finding("wrong", f"run {number} failed unstruck, with {end.returncode}: {end.err[-_TAIL:]}")
            )
        last = end.err.rstrip().rpartition("\n")[2]
        if last.startswith(_LIBRARIES):
            self._find(Finding("wrong", f"run {number} ended with a library's error: {last}"))

    def _note_committed(self, number: int, image: CacheImage, end: RunEnd) -> None:
        try:
            keys = committed_keys(image, self._model)
        except UnreadableError:
            return  # told by the checks
        self._committed.append((number, keys))
        if not is_current(image, self._model):  # what failed is computed again, and all that was made of it
            for name in self._plan.shape.find_descendants("shaky"):
                keys[name] = set()
        elif end.was_stopped_cleanly:
            self._check_begun(number, keys)

    def _check_begun(self, number: int, keys: dict[str, set[str]]) -> None:
        """What a clean stop found begun is committed."""
        for step, given in self._read_notes().items():
            lost = {key for run, key in given if run == number} - keys[step]
            if lost:
                told = f"run {number} was stopped cleanly, and {step} has begun {sorted(lost)[:10]} in vain"
                self._find(Finding("wrong", told, len(lost)))

    def _read_notes(self) -> dict[str, list[tuple[int, str]]]:
        """Step -> the run and the key of each row that it was given."""
        found: dict[str, list[tuple[int, str]]] = {}
        for step in self._model.made:
            path = self.driver.note_file(0).notes(step)
            lines = path.read_text().splitlines() if path.exists() else []
            parts = [line.split(" ") for line in lines]
            found[step] = [(int(run), key) for run, _, key in parts]
        return found

    def _check_notes(self) -> None:
        """What a run had committed isn't computed by any later one."""
        notes = self._read_notes()
        for number, keys in self._committed:
            for step, given in notes.items():
                again = {key for run, key in given if run > number and key in keys[step]}
                if again:
                    told = f"{step} computed again what run {number} had committed: {sorted(again)[:10]}"
                    self._find(Finding("wrong", told, len(again)))

    def _check_calls(self, number: int, disturbance: Disturbance | None, end: RunEnd) -> None:
        ledger = read_ledger(find_ledger(self._directory))
        if self._book is None:
            if ledger.problem:
                self._find(Finding("wrong", f"after run {number}: {ledger.problem}"))
            return
        may_lose = 0 if disturbance is None or end.was_stopped_cleanly else CAP
        self._find(*self._book.close_run(ledger, f"run {number}", may_lose=may_lose))
        self.outcome.calls_on_the_wire = self._book.lost

    def _check_end(self, image: CacheImage, end: RunEnd) -> None:
        if end.returncode != 0:
            self._find(Finding("wrong", f"the last run failed with {end.returncode}:\n{end.err[-_TAIL:]}"))
            return
        self._find(*check_finished(image, self._model, is_damaged=self._is_damaged))
        if self._is_damaged:
            self._find(*check_committed(image, self._model, "at the end"))
        if self._book is not None:
            self._find(*self._book.close_history())
        if end.out.rstrip().endswith("}"):
            self._check_handed_out(json.loads(end.out.rstrip().rpartition("\n")[2]))

    def _check_handed_out(self, distiset: dict[str, list[dict[str, Any]]]) -> None:
        if distiset.keys() != set(self._model.shape.leaves):
            self._find(Finding("wrong", f"the Distiset has the configs {sorted(distiset)}"))
        for leaf, rows in distiset.items():
            expected = [hand_out(row) for row in self._model.made[leaf]]
            self._find(*compare_rows(f"the Distiset's {leaf}", [*map(without_nones, rows)], expected))
