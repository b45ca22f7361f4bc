"""One case of damage from beginning to end: what's read, what `cache verify` finds, and what a run makes of it."""

import contextlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import datasets
import pyarrow as pa

from distilabel_dagster import Distiset
from distilabel_dagster.cli.main import main
from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.engine.events import RunFinished
from distilabel_dagster.errors import DistilabelDagsterError, IncompleteRunError
from distilabel_dagster.orchestration.io_manager import CacheIOManager
from distilabel_dagster.orchestration.metadata import ENABLE_METADATA, STEP
from tests.integration.damage.cases import Case
from tests.integration.damage.obstacles import HungError, run_in_time, standing_before
from tests.integration.damage.pipelines import CALLS, LEAVES, build
from tests.integration.damage.sites import Original, Rows, Site

PATIENCE_S = 120.0
"""Far above what any case takes: who needs longer hangs."""


@dataclass(slots=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: its name.
        file: the kind of file.
        damage: the kind of damage.
        result: what the run made of it: "harmless", "rebuilt", "recomputed", "asked again" or "error: <class>".
        readings: reading -> "right", or the error's class.
        is_found: whether `cache verify` told of it.
        faults: what must never be; empty if all was well.
    """

    case: str
    file: str
    damage: str
    result: str = ""
    readings: dict[str, str] = field(default_factory=dict)
    is_found: bool = False
    faults: list[str] = field(default_factory=list)


def try_out(case: Case, original: Original, scratch: Path) -> Outcome:
    """Damage a copy of the cache, read it, run on it, repair another copy, and judge all of it."""
    outcome = Outcome(case.name, case.file, case.damage)
    trial = _Trial(case, original, outcome, scratch)
    try:
        run_in_time(trial.run_on_damage, PATIENCE_S)
        if case.is_sample:
            run_in_time(trial.run_on_repair, PATIENCE_S)
    except HungError as error:
        outcome.faults.append(f"HUNG: {error}")
    except Exception as error:  # noqa: BLE001  (whatever isn't expected is what's looked for)
        outcome.faults.append(f"{type(error).__name__}: {error}")
    shutil.rmtree(scratch, ignore_errors=True)
    return outcome


class _Trial:
    """A case, on two copies of the cache."""

    def __init__(self, case: Case, original: Original, outcome: Outcome, scratch: Path) -> None:
        self._case = case
        self._original = original
        self._outcome = outcome
        self._scratch = scratch
        self._names: set[Path] = set()

    def run_on_damage(self) -> None:
        """Read the damaged cache in every way, and run the pipeline on it."""
        with self._damaged("damaged") as (site, _):
            self._verify(site)
            self._read(site)
        with self._damaged("run") as (site, path):
            error = self._run(site, path)
        if error is None and self._is_unread(site):
            self._outcome.result = "not read"
        elif error is None:
            self._check_whole(site, "after the run")
        elif self._case.obstacle is not None:
            self._expect_rows(site, "the run, when the file could be read again")
        elif "Run the pipeline again" in str(error):
            self._expect_rows(site, "the run that the error asks for")

    def run_on_repair(self) -> None:
        """Repair the damaged cache, and run the pipeline then."""
        with self._damaged("repaired") as (site, _):
            code, _, told = self._verify_command(site, "--repair")
            if code != 0 and self._case.obstacle is None:
                self._fault(f"not all was repaired: {told}")
        if self._case.obstacle is None:
            before = _stat_tree(site.root)
            self._verify_command(site, "--repair")
            if changes := _changes(before, _stat_tree(site.root)):
                self._fault(f"a second repair changed {changes}")
        self._check_whole(site, "after the repair", complete=False)
        self._expect_rows(site, "the run after the repair")
        self._check_whole(site, "after the repair and a run")

    @contextlib.contextmanager
    def _damaged(self, name: str) -> Iterator[tuple[Site, Path]]:
        site = self._original.site.copy(self._scratch / name)
        path = self._case.find(site)
        harmed = [path] if self._case.also is None else [path, self._case.also(site)]
        self._names = {other for each in harmed for other in _names_of(each, site.root)}
        self._case.harm(site, path)
        with standing_before(self._case.obstacle, path, self._names):
            yield site, path

    def _verify(self, site: Site) -> None:
        before = _stat_tree(site.root)
        code, found, told = self._verify_command(site)
        if changes := _changes(before, _stat_tree(site.root)):
            self._fault(f"verify changed {changes}")
        if found is None:
            self._fault(f"verify ended with code {code}: {told}")
            return
        self._outcome.is_found = bool(found["findings"])

    def _read(self, site: Site) -> None:
        for name, read in self._readings(site).items():
            self._outcome.readings[name] = self._judge(name, read)
        for command in ("list", "show"):
            given = [site.signature] if command == "show" else []
            code, out, err = _command("cache", command, *given, "--cache-dir", str(site.root), "--json")
            if "Traceback" in err or "With --debug" in err or (code == 0 and not _is_json(out)):
                self._fault(f"cache {command}: {err}")
            elif code != 0:
                self._check_named(f"cache {command}", err)
            self._outcome.readings[f"cache {command}"] = "right" if code == 0 else "error"

    def _readings(self, site: Site) -> dict[str, Callable[[], dict[str, Rows]]]:
        manager = CacheIOManager(str(site.root))

        def read_distiset() -> dict[str, Rows]:
            distiset = create_distiset(site.pipeline / "data")
            return {leaf: distiset[leaf]["train"].to_list() for leaf in distiset}

        def load_leaf(leaf: str, kind: Any) -> dict[str, Rows]:
            loaded = manager.load_input(_ask(site, leaf, kind, {STEP: leaf}))
            return {leaf: loaded.to_pylist() if isinstance(loaded, pa.Table) else loaded.to_list()}

        def load_distiset() -> dict[str, Rows]:
            loaded = manager.load_input(_ask(site, "distiset", Distiset, {ENABLE_METADATA: False}))
            return {leaf: loaded[leaf]["train"].to_list() for leaf in loaded}

        found: dict[str, Callable[[], dict[str, Rows]]] = {"create_distiset": read_distiset}
        if not self._case.is_about_rows:
            return found
        for leaf in LEAVES:
            found[f"load {leaf}"] = lambda leaf=leaf: load_leaf(leaf, datasets.Dataset)
            found[f"load {leaf} as a table"] = lambda leaf=leaf: load_leaf(leaf, pa.Table)
        found["load distiset"] = load_distiset
        return found

    def _judge(self, name: str, read: Callable[[], dict[str, Rows]]) -> str:
        """Do a reading; give "right" or the error's class, and note what must not be."""
        try:
            rows = read()
        except DistilabelDagsterError as error:
            if self._case.state == "finished" or not isinstance(error, IncompleteRunError):
                self._check_named(name, f"{type(error).__name__}: {error}")
            return type(error).__name__
        except Exception as error:  # noqa: BLE001  (whatever isn't expected is what's looked for)
            self._fault(f"{name} raised {type(error).__name__}: {error}")
            return type(error).__name__
        is_partial = self._case.state != "finished" and name == "create_distiset"
        for leaf, got in rows.items():
            for row in got:
                row.pop("distilabel_metadata", None)  # which steps keep, and Distisets leave out
            expected = self._original.rows.get(leaf)
            if expected is None or (got != expected[: len(got)] if is_partial else got != expected):
                self._fault(f"WRONG ROWS of `{leaf}` by {name}: {len(got)}, the last {got[-1:]}")
        if not is_partial and "distiset" in name and rows.keys() != self._original.rows.keys():
            self._fault(f"WRONG LEAVES by {name}: {sorted(rows)}")
        return "right"

    def _check_named(self, name: str, told: str) -> None:
        if not any(_is_named(path, told) for path in self._names):
            self._fault(f"{name} doesn't name the file: {told}")

    def _run(self, site: Site, path: Path) -> Exception | None:
        """Run the pipeline; give the error that it ended with."""
        kept = _content(path)
        calls = sum(CALLS.values())
        with _events() as finished:
            try:
                rows = _run_pipeline(site)
            except DistilabelDagsterError as error:
                self._check_named("the run", f"{type(error).__name__}: {error}")
                self._outcome.result = f"error: {type(error).__name__}"
                return error
            except Exception as error:  # noqa: BLE001
                self._fault(f"the run raised {type(error).__name__}: {error}")
                self._outcome.result = f"error: {type(error).__name__}"
                return error
        self._expect(rows, "the run")
        asked = sum(CALLS.values()) - calls > self._original.calls_left
        computed = finished[-1].batches_computed > self._original.batches_left
        is_rewritten = self._case.file not in ("ledger", "lease") and _content(path) != kept
        self._outcome.result = (
            "asked again"
            if asked
            else "recomputed"
            if computed
            else "rebuilt"
            if is_rewritten
            else "harmless"
        )
        if not self._outcome.is_found and (asked or computed):
            self._fault("verify didn't find it")
        return None

    def _expect_rows(self, site: Site, when: str) -> None:
        self._expect(_run_pipeline(site), when)

    def _expect(self, rows: dict[str, Rows], when: str) -> None:
        if rows != self._original.rows:
            self._fault(f"WRONG ROWS by {when}")

    def _is_unread(self, site: Site) -> bool:
        """Whether the run ended well without the file, which is as it was; `cache verify` must have told of it."""
        is_left = self._outcome.result == "harmless" and self._verify_command(site, site.signature)[0] != 0
        return is_left and self._outcome.is_found

    def _check_whole(self, site: Site, when: str, *, complete: bool = True) -> None:
        # What a file was swapped with may be another pipeline's, which isn't run.
        code, _, told = self._verify_command(site, site.signature)
        if code != 0:
            self._fault(f"damage is left {when}: {told}")
        if complete and self._judge_whole(site) != self._original.rows:
            self._fault(f"WRONG ROWS by create_distiset {when}")

    def _judge_whole(self, site: Site) -> dict[str, Rows]:
        distiset = create_distiset(site.pipeline / "data")
        return {leaf: distiset[leaf]["train"].to_list() for leaf in distiset}

    def _verify_command(self, site: Site, *options: str) -> tuple[int, Any, str]:
        """Run `cache verify`; give its exit code, its JSON (None where it ended with an error), and what it told."""
        code, out, err = _command("cache", "verify", "--cache-dir", str(site.root), "--json", *options)
        found = json.loads(out) if _is_json(out) else None
        told = [each for each in found["findings"] if each["severity"] == "damage"] if found else err
        return code, found, str(told)

    def _fault(self, told: str) -> None:
        self._outcome.faults.append(told)


def _run_pipeline(site: Site) -> dict[str, Rows]:
    distiset = build(site.root).run()
    return {leaf: distiset[leaf]["train"].to_list() for leaf in distiset}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What of Dagster's InputContext an IO manager looks at; making a real one takes longer than all the rest."""

    asset_key: dg.AssetKey
    asset_partition_keys: list[str]
    dagster_type: Any
    upstream_output: Any
    has_asset_partitions: bool = True


def _ask(site: Site, asset: str, kind: Any, metadata: dict[str, Any]) -> Any:
    """What Dagster gives an IO manager that's to load a partition of an asset."""
    return _Asked(
        dg.AssetKey(["damaged", asset]),
        [site.signature],
        SimpleNamespace(typing_type=kind),
        SimpleNamespace(definition_metadata=metadata),
    )


def _command(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _events() -> Iterator[list[RunFinished]]:
    """The ends of the runs in the block."""
    found: list[RunFinished] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            event = getattr(record, "event", None)
            if isinstance(event, RunFinished):
                found.append(event)

    logger, listener = logging.getLogger("distilabel_dagster.pipeline"), Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _key(finding: dict[str, Any], site: Site) -> tuple[str, str]:
    return finding["path"].removeprefix(str(site.root)), finding["kind"]


def _names_of(path: Path, root: Path) -> list[Path]:
    """All names of a file below a directory."""
    inode = path.stat().st_ino
    return [each for each in root.rglob(path.name) if each.lstat().st_ino == inode]


def _is_named(path: Path, told: str) -> bool:
    """Whether a message names a file, or the directory that lacks it."""
    if str(path) in told or (not os.path.lexists(path) and str(path.parent) in told):
        return True
    return f"{path.parent}/" in told and path.name in told


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _stat_tree(root: Path) -> dict[str, tuple[int, ...]]:
    """What each file is and when it was written, but for the ledger: leases are taken there."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.name.startswith(("ledger.sqlite", "nowhere")):
            continue
        info = path.lstat()
        found[str(path)] = (info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns)
    return found


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
