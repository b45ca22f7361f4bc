"""Makes a whole ledger of what can be read of a damaged one."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, Float, Integer, LargeBinary, Table, insert, select

from distilabel_dagster.base.directories import sync_directory
from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.errors import CacheDirectoryError, CacheError, DamagedFileError, StepInUseError
from distilabel_dagster.ledger.calls import StoredResponse
from distilabel_dagster.ledger.carving import Carved, carve_responses
from distilabel_dagster.ledger.checking import check_ledger, stamp
from distilabel_dagster.ledger.database import (
    exclusive_transaction,
    insert_missing,
    open_database,
    parse_url,
    read_transaction,
)
from distilabel_dagster.ledger.database_errors import build_error, classify_errno, describe_url, find_file
from distilabel_dagster.ledger.findings import Problem, RepairReport
from distilabel_dagster.ledger.lease_rows import read_sound_leases
from distilabel_dagster.ledger.leases import EXPIRE_AFTER_S, read_moment
from distilabel_dagster.ledger.reading import count_responses, open_for_reading
from distilabel_dagster.ledger.response_encoding import encode_row
from distilabel_dagster.ledger.schema import (
    FAILED_ATTEMPTS_TABLE,
    FAILURES_TABLE,
    RATE_LIMITS_TABLE,
    RESPONSES_TABLE,
    SCHEMA_VERSION,
    USAGE_TABLE,
    build_newer_error,
    read_version,
)
from distilabel_dagster.ledger.sqlite_file import REPAIRED_SUFFIX, any_text, check_kinds, list_beside

__all__ = ["Problem", "RepairReport", "check_ledger", "repair_ledger"]

SET_ASIDE_SUFFIX: Final = ".set-aside"
"""The same as the cache's, of which a ledger knows nothing."""

_REPAIRING_SUFFIX: Final = ".repairing"
_OTHERS: Final = (USAGE_TABLE, FAILURES_TABLE, FAILED_ATTEMPTS_TABLE, RATE_LIMITS_TABLE)
_CHUNK: Final = 1_000
_TRIES: Final = 3


def repair_ledger(url: str) -> RepairReport | None:
    """Make a damaged ledger whole: what can be read of it goes to a new file, which takes its place.

    Answers are looked for in each page of the file and of its WAL, so that a broken structure loses none that is
    whole. Leases and claims are left behind. The old file, with those of SQLite beside it, is set aside, never deleted.
    A crash at any moment loses nothing: as long as the new file isn't in its place no run uses either, and the next
    repair goes on, or begins again. Needs as much space as the ledger takes, once more.

    Args:
        url: as for `open_database`.

    Returns:
        What was done; None where nothing had to be.

    Raises:
        StepInUseError: a live process uses the ledger, as far as that can be read. Its attributes are those of the
            process.
        CacheFullError: there's no space for the new file; all is as it was.
        CacheError: it's a server's, a newer release made it, or it can't be read at all; all is as it was.
    """
    parsed = parse_url(url)
    location = describe_url(parsed)
    if parsed.get_backend_name() != "sqlite":
        raise CacheError(
            f"The ledger {location} is a server's database, which can't be repaired from here. Use the server's own tools "
            "(`pg_amcheck`, a backup).",
            path=location,
        )
    path = find_file(parsed)
    try:
        if path.with_name(path.name + REPAIRED_SUFFIX).exists():
            return _put_in_place(path, None, ())
        if not check_ledger(url):
            return None
        moved = _clear_way(path)
        if moved and not check_ledger(url):
            return RepairReport(str(path), count_responses(url), 0, (), moved)
        _check_repairable(url, path)
        report = _repair(url, path)
        return replace(report, set_aside=moved + report.set_aside)
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        raise build_error(classify_errno(error), location, "repaired", error.strerror or "") from error


def _clear_way(path: Path) -> tuple[str, ...]:
    """Set aside what is beside the file and isn't one, in the place of SQLite's: without it the file may be whole."""
    obstacles = [each for each in list_beside(path) if os.path.lexists(each) and not each.is_file()]
    return tuple(map(str, _set_aside(path, obstacles)))


def _check_repairable(url: str, path: Path) -> None:
    """Make sure that a ledger may be repaired, as far as it can be read.

    Raises:
        StepInUseError: a live process uses it.
        CacheError: a newer release made it.
    """
    with (
        contextlib.suppress(DamagedFileError, CacheDirectoryError),
        open_for_reading(url) as engine,
    ):
        if engine is None:
            return
        with read_transaction(engine) as connection:
            check_kinds(connection)
            version = read_version(connection)
            if version is not None and version > SCHEMA_VERSION:
                raise build_newer_error(connection, version)
            leases = read_sound_leases(connection, has_uptime=version == SCHEMA_VERSION)
        moment = read_moment()
        for lease in leases:
            if not lease.is_free(moment, EXPIRE_AFTER_S):
                raise StepInUseError(
                    f"The ledger {path} can't be repaired while {lease.describe_holder()} uses it. Wait until that "
                    "process has ended, or stop it, and repair again.",
                    key=lease.key,
                    host=lease.holder.host_name,
                    pid=lease.holder.pid,
                    since=lease.since_utc,
                    path=str(path),
                )


def _repair(url: str, path: Path) -> RepairReport:
    for _ in range(_TRIES):
        before = stamp(path)
        new = path.with_name(path.name + _REPAIRING_SUFFIX)
        _remove(new)
        try:
            lost, cut = _salvage(url, path, new)
            if path.is_file():
                shutil.copymode(path, new)
            _sync(new)
        except BaseException:
            _remove(new)
            raise
        if before == stamp(path):
            new.rename(path.with_name(path.name + REPAIRED_SUFFIX))
            sync_directory(str(path.parent))
            return _put_in_place(path, lost, cut)
        _remove(new)
    raise build_error("locked", str(path), "repaired", "others write to it")


def _salvage(url: str, path: Path, new: Path) -> tuple[int | None, tuple[str, ...]]:
    """Fill a new ledger with what can be read; tell how many answers are lost, and of which tables others are."""
    engine = open_database(str(new), keeps_connections=True)
    try:
        _insert_responses(engine, carve_responses(path, str(path), Carved()))
        kept = count_responses(str(new))
        cut = tuple(table.name for table in _OTHERS if not _copy(url, path, engine, table))
    finally:
        engine.dispose()  # the last one out brings all of the WAL to the file
    try:
        lost: int | None = max(0, count_responses(url) - kept)
    except CacheError:
        lost = None
    return lost, cut


def _insert_responses(engine: Engine, responses: Iterator[StoredResponse]) -> None:
    while chunk := [encode_row(each) for each in islice(responses, _CHUNK)]:
        with exclusive_transaction(engine, is_durable=False) as connection:
            insert_missing(connection, RESPONSES_TABLE, chunk)


def _copy(url: str, path: Path, engine: Engine, table: Table) -> bool:
    """Copy the rows of a table as far as they can be read; tell whether that's all."""
    if not path.is_file():
        return True
    is_whole = True
    rows = _iter_rows(url, table)
    is_over = False
    while not is_over:
        chunk: list[dict[str, Any]] = []
        try:
            chunk.extend(islice(rows, _CHUNK))
        except (DamagedFileError, CacheDirectoryError):
            is_whole = False
        is_over = len(chunk) < _CHUNK
        sound = [row for row in chunk if _is_sound(table, row)]
        is_whole = is_whole and len(sound) == len(chunk)
        if sound:
            with exclusive_transaction(engine, is_durable=False) as connection:
                connection.execute(insert(table).prefix_with("OR IGNORE"), sound)
    return is_whole


def _iter_rows(url: str, table: Table) -> Iterator[dict[str, Any]]:
    with open_for_reading(url) as engine:
        if engine is None:
            return
        with read_transaction(engine) as connection, any_text(connection):
            for row in connection.execute(select(table)).mappings():
                yield dict(row)


def _is_sound(table: Table, row: dict[str, Any]) -> bool:
    """Tell whether a row holds values of the types of its columns."""
    for column in table.columns:
        value = row[column.name]
        if value is None:
            if not column.nullable:
                return False
        elif isinstance(column.type, LargeBinary):
            if not isinstance(value, bytes):
                return False
        elif isinstance(column.type, Float):
            if not isinstance(value, int | float):
                return False
        elif not isinstance(value, int if isinstance(column.type, Integer) else str):
            return False
    return True


def _put_in_place(path: Path, lost: int | None, cut: tuple[str, ...]) -> RepairReport:
    """Set the old files aside and give the new one its name; goes on where it was interrupted."""
    repaired = path.with_name(path.name + REPAIRED_SUFFIX)
    targets = _set_aside(path, [each for each in (*list_beside(path), path) if os.path.lexists(each)])
    repaired.rename(path)
    reach("file.renamed", str(path))
    sync_directory(str(path.parent))
    reach("file.done", str(path))
    return RepairReport(str(path), count_responses(str(path)), lost, cut, tuple(map(str, targets)))


def _set_aside(path: Path, sources: list[Path]) -> list[Path]:
    """Rename files of a ledger, so that those of SQLite's still go with the file that they belong to."""
    targets: list[Path] = []
    for number in itertools.count():
        base = path.with_name(path.name + SET_ASIDE_SUFFIX + (f"-{number}" if number else ""))
        targets = [base.with_name(base.name + each.name[len(path.name) :]) for each in sources]
        if not any(os.path.lexists(each) for each in (base, *targets)):
            break
    for source, target in zip(sources, targets, strict=True):
        reach("file.setting_aside", str(source))
        source.rename(target)
        reach("file.set_aside", str(source))
    sync_directory(str(path.parent))
    return targets


def _remove(path: Path) -> None:
    """Remove a file that a repair was making, which nobody has used."""
    for each in (path, *list_beside(path)):
        each.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    reach("file.synced", str(path))
