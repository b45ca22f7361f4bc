"""Looks through a ledger for damage: its structure, and each answer against its checksum."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine

from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.database import find_version, parse_url, read_transaction
from distilabel_dagster.ledger.database_errors import build_error, classify_errno, describe_url, find_file
from distilabel_dagster.ledger.findings import Problem
from distilabel_dagster.ledger.lease_rows import read_all_leases
from distilabel_dagster.ledger.reading import open_for_reading
from distilabel_dagster.ledger.response_encoding import decode_rows
from distilabel_dagster.ledger.response_rows import scan_rows
from distilabel_dagster.ledger.schema import FIRST_WITH_CALLS, SCHEMA_VERSION
from distilabel_dagster.ledger.usage import read_usage
from distilabel_dagster.ledger.wal import count_hidden_commits

MOST_TOLD: Final = 100
"""Problems of one sort that are told one by one."""

_TRIES: Final = 3


def check_ledger(url: str) -> list[Problem]:
    """Look through a ledger, without a change to it; empty where all is well, or where there's none yet.

    What killed processes left (leases, claims) is no problem, nor is an answer without a checksum, of before schema 3.
    Reads all of it: a minute or so for a million answers.

    Args:
        url: as for `open_database`.

    Raises:
        CacheError: the URL is none, or its driver isn't installed.
    """
    parsed = parse_url(url)
    location = describe_url(parsed)
    path = find_file(parsed) if parsed.get_backend_name() == "sqlite" else None
    problems: list[Problem] = []
    for _ in range(_TRIES):
        before = stamp(path)
        problems = list(_iter_problems(url, location, is_file=path is not None))
        # Who finds nobody at work reads the file as one that nobody changes; someone may have begun to.
        if not problems or path is None or before == stamp(path):
            break
    return problems


def to_problem(error: CacheError, location: str) -> Problem:
    """Make a problem of an error of the ledger's."""
    told = vars(error)
    return Problem(location, told["what"], told["remedy"])


def _iter_problems(url: str, location: str, *, is_file: bool) -> Iterator[Problem]:
    try:
        with open_for_reading(url) as engine:
            if engine is None:
                return
            version = _read(engine, find_version)
            if version is None:
                return
            checks: list[Callable[[Engine], Iterator[Problem]]] = (
                [_check_structure, _check_wal] if is_file else []
            )
            if version >= FIRST_WITH_CALLS:
                has_checksum = version == SCHEMA_VERSION
                checks += [
                    lambda engine: _check_responses(engine, has_checksum=has_checksum),
                    _check_counters,
                ]
            if version == SCHEMA_VERSION:
                checks.append(_check_leases)
            for check in checks:
                try:
                    yield from check(engine)
                except CacheError as error:
                    yield to_problem(error, location)
    except CacheError as error:
        if "what" not in vars(error):
            raise
        yield to_problem(error, location)


def _read(engine: Engine, function: Callable[[Connection], Any]) -> Any:
    with read_transaction(engine) as connection:
        return function(connection)


def _check_structure(engine: Engine) -> Iterator[Problem]:
    with read_transaction(engine) as connection:
        told = connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_TOLD})").scalars().all()
    for line in told:
        if line != "ok":
            yield _damaged(engine, f"doesn't hang together: {' '.join(str(line).split())[:500]}")


def _check_wal(engine: Engine) -> Iterator[Problem]:
    path = find_file(engine.url)
    try:
        hidden = count_hidden_commits(path.with_name(f"{path.name}-wal"))
    except OSError as error:
        location = describe_url(engine.url)
        raise build_error(classify_errno(error), location, "read", error.strerror or "") from error
    if hidden:
        yield _damaged(
            engine,
            f"has a WAL in which {hidden:,} {'changes come' if hidden > 1 else 'change comes'} after a page that isn't "
            "what was written, so that they're lost to it",
        )


def _check_leases(engine: Engine) -> Iterator[Problem]:
    _read(engine, read_all_leases)
    return iter(())


def _check_counters(engine: Engine) -> Iterator[Problem]:
    read_usage(engine)
    return iter(())


def _check_responses(engine: Engine, *, has_checksum: bool) -> Iterator[Problem]:
    count = 0
    with read_transaction(engine) as connection:
        rows = scan_rows(connection, has_checksum=has_checksum)
        while chunk := list(islice(rows, 1_000)):
            for key, error in decode_rows(chunk, describe_url(engine.url))[1].items():
                count += 1
                if count <= MOST_TOLD:
                    problem = to_problem(error, describe_url(engine.url))
                    yield Problem(problem.location, problem.what, problem.remedy, key)
    if count > MOST_TOLD:
        yield _damaged(engine, f"holds {count - MOST_TOLD:,} more answers that aren't what was written")


def _damaged(engine: Engine, what: str) -> Problem:
    return Problem(describe_url(engine.url), what, _REMEDY)


_REMEDY: Final = "Run `distilabel-dagster cache verify --repair`, which keeps every answer that can be read; or put back a copy of it."


def stamp(path: Path | None) -> tuple[Any, ...]:
    """Tell one state of a SQLite file, and of what stands beside it, from another."""
    found: list[tuple[int, int, int] | None] = []
    for each in () if path is None else (path, path.with_name(f"{path.name}-wal")):
        try:
            told = each.stat()
        except OSError:
            found.append(None)
        else:
            found.append((told.st_ino, told.st_size, told.st_mtime_ns))
    return tuple(found)
