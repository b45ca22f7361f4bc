"""Answers in a WAL that SQLite doesn't see, since they come after a frame that isn't what was written.

A process that is killed leaves its WAL. Where a bit of it changes before the next one opens the ledger, SQLite reads it up to
there, and writes over the rest: what was committed there and paid for would be paid again. So before SQLite opens the file
the WAL is read once; where something is hidden in it, the WAL is copied, the answers are looked for in its pages, and those
that the ledger hasn't are put back as soon as it's open. The copy is there until they are: a kill in between loses none.

Only answers are brought back, and only those that have the checksum they were written with. What else the lost changes were
stays lost: claims and leases are of dead processes, the counters of what was used stay too low, failed attempts are gone.

Others may write to the ledger meanwhile, which can't be told cheaply. Then the WAL may change while it's read, and an answer
may be found that the ledger has, or will have in a moment: the one that is there stays, as always.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import Connection

from distilabel_dagster.base.directories import sync_directory
from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.errors import CacheError, DamagedFileError
from distilabel_dagster.ledger.calls import StoredResponse
from distilabel_dagster.ledger.carving import (
    TABLE_LEAF,
    UNREADABLE,
    Cell,
    Pages,
    Way,
    iter_cells,
    parse_record,
    read_cell,
    read_response,
)
from distilabel_dagster.ledger.response_encoding import COLUMNS, decode_row, encode_row
from distilabel_dagster.ledger.sqlite_file import any_text
from distilabel_dagster.ledger.wal import WalFrames, read_frames

COPY_SUFFIX: Final = ".hidden-wal"
"""Of the copy of a WAL, as long as the answers that are hidden in it aren't in the ledger."""

_logger = logging.getLogger("distilabel_dagster.ledger")
_FILE_HEADER_BYTES: Final = 100
_TABLE_LEAF_BYTE: Final = bytes([TABLE_LEAF])
_MOST_FROM_FILE_BYTES: Final = 64 * 2**20
"""Of long answers that go on in the file itself: those that were there before, in pages that others came to."""

_never_closed: Final[list[int]] = []
"""Descriptors of ledgers. A process that closes one loses all its locks on the file, SQLite's as well, which may have it
open for another thread; so they're left open, one for each WAL that was damaged."""

_INSERT: Final = f"INSERT INTO responses ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (key) DO NOTHING"  # noqa: S608 (names from the schema)
_SELECT: Final = (
    f"SELECT {', '.join((*COLUMNS[:-2], 'CAST(response AS BLOB)', 'checksum'))} FROM responses WHERE key = ?"  # noqa: S608 (names from the schema)
)
_REPLACE: Final = f"UPDATE responses SET {', '.join(f'{name} = ?' for name in COLUMNS[1:])} WHERE key = ?"  # noqa: S608 (names from the schema)


@dataclass(frozen=True, slots=True)
class HiddenAnswers:
    """What was found behind a damaged frame.

    Attributes:
        location: the ledger, as one tells a user.
        answers: whole ones; the ledger may have them.
        commits: transactions that SQLite doesn't see.
        copies: of WALs; not needed any more once the answers are in the ledger.
    """

    location: str
    answers: tuple[StoredResponse, ...]
    commits: int
    copies: tuple[Path, ...]

    def insert(self, connection: Connection) -> int:
        """Put those into the ledger that it hasn't, or has as damaged; give how many these were.

        Args:
            connection: to the database, in an exclusive transaction.
        """
        return sum(_insert(connection, encode_row(each), self.location) for each in self.answers)

    def finish(self, brought: int) -> None:
        """Tell what was brought back, and remove the copies, since that is in the ledger."""
        tell = _logger.warning if brought else _logger.info  # nothing lost is nothing that one has to know
        tell(
            "The ledger %s had a WAL with %s after a page that isn't what was written; %s brought back from there. What "
            "couldn't be read is asked for again. Counters of calls and failed attempts don't have what was counted there.",
            self.location,
            _count(self.commits, "commit"),
            f"{_count(brought, 'answer')} {'was' if brought == 1 else 'were'}",
        )
        for each in self.copies:
            with contextlib.suppress(OSError):
                reach("file.removing", str(each))
                each.unlink(missing_ok=True)
                reach("file.removed", str(each))

    def tell_failure(self, error: CacheError) -> None:
        """Tell that nothing was brought back, yet: the copies are there for the next time."""
        _logger.warning(
            "%s, after a page of its WAL that isn't what was written, couldn't be brought back to the ledger %s; that is "
            "tried again when it's opened the next time. %s",
            _count(len(self.answers), "answer"),
            self.location,
            error,
        )


def find_hidden_answers(path: Path) -> HiddenAnswers | None:
    """Look for answers in a ledger's WAL that SQLite won't see; None where nothing is hidden.

    To be called before SQLite opens the file. Reads the WAL once where all is well. Never raises: what can't be read is for
    SQLite to tell.

    Args:
        path: the ledger's file.
    """
    wal, copy = path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}{COPY_SUFFIX}")
    # A copy is of a process that was killed, or couldn't write to the ledger.
    sources = [copy] if os.path.isfile(copy) else []  # noqa: PTH113 (False where one may not look)
    if _read_hidden(wal) is not None:
        if sources or not _copy(wal, copy):
            sources.append(wal)
        elif _read_hidden(copy) is None:  # others were writing a moment ago
            _remove(copy)
        else:
            sources.append(copy)
    if not sources:
        return None
    copies = tuple(each for each in sources if each != wal)
    found, commits = _carve(sources, path)
    return HiddenAnswers(str(path), tuple(found.values()), commits, copies) if commits or copies else None


def _carve(sources: list[Path], path: Path) -> tuple[dict[bytes, StoredResponse], int]:
    """Give the hidden answers of some WALs, and how many transactions they're from."""
    found: dict[bytes, StoredResponse] = {}
    seen: list[WalFrames] = []
    for each in sources:
        frames = _read_hidden(each)
        if frames is None or frames in seen:  # a copy, and the WAL itself that is still as it was
            continue
        seen.append(frames)
        with contextlib.suppress(OSError), _WalPages(each, path, frames) as pages:
            for answer in pages.iter_answers(str(path)):
                # Of two that are whole the later one took the place of the other, which was damaged by then.
                if answer.key not in found or answer.created_at >= found[answer.key].created_at:
                    found[answer.key] = answer
    return found, sum(frames.count_hidden() for frames in seen)


class _WalPages(Pages):
    """The pages that a ledger had at a commit; a context manager.

    Args:
        wal: the WAL, or a copy.
        path: the ledger's file, for pages that aren't in it.
        frames: of the WAL.
    """

    def __init__(self, wal: Path, path: Path, frames: WalFrames) -> None:
        super().__init__()
        self.page_bytes = frames.page_bytes
        self._wal_path = wal
        self._committed = frames.list_committed()
        self._last_seen = frames.find_last_seen()
        self._damaged_at = frames.locate_page(frames.whole)
        self._versions: dict[int, list[tuple[int, int]]] = {}
        for frame in self._committed:
            self._versions.setdefault(frame.page, []).append((frame.commit, frame.offset))
        self._commit = 0
        self._file = _open_for_good(path)
        header = _read_at(self._file, 0, _FILE_HEADER_BYTES)
        self._prepare(header, wal.stat().st_size + _MOST_FROM_FILE_BYTES)

    def __enter__(self) -> "_WalPages":
        self._wal: IO[bytes] = self._wal_path.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self._wal.close()

    def iter_answers(self, location: str) -> Iterator[StoredResponse]:
        """Give the whole answers in the pages of hidden transactions; each once, as long as it stays as it is."""
        known: set[Cell] = set()
        for frame in self._committed:
            if frame.commit > self._last_seen:
                self._commit = frame.commit
                page = self._read_frame(frame.offset)
                # What goes on from other pages looks like anything; only of the damaged one nothing is believed.
                is_leaf = page[:1] == _TABLE_LEAF_BYTE or frame.offset == self._damaged_at
                if is_leaf and len(page) == self.page_bytes:
                    for at in iter_cells(page, 0, TABLE_LEAF):
                        yield from self._read_answer(page, at, location, known)

    def _read_answer(self, page: bytes, at: int, location: str, known: set[Cell]) -> Iterator[StoredResponse]:
        for way in self.ways:
            try:
                cell = read_cell(page, at, TABLE_LEAF, way)
                if cell in known:
                    return
                rest = self.read_chain(cell.following, cell.rest, way) if cell.rest else b""
                record = parse_record(cell.local + rest)
            except UNREADABLE:
                continue
            # Those of before schema 3 have no checksum, so that nobody can say whether they're whole.
            if len(record) == len(COLUMNS) and isinstance(record[-1], int):
                answer = read_response(record, location)
                if answer is not None:
                    known.add(cell)
                    yield answer
                    return

    def read_page(self, number: int, way: Way) -> bytes:
        """Read a page as it was at the commit, or as the file has it."""
        if way.with_wal:
            for commit, offset in reversed(self._versions.get(number, ())):
                if commit <= self._commit:
                    return self._read_frame(offset)
        return _read_at(self._file, (number - 1) * self.page_bytes, self.page_bytes)

    def _read_frame(self, offset: int) -> bytes:
        self._wal.seek(offset)
        return self._wal.read(self.page_bytes)


def _read_hidden(path: Path) -> WalFrames | None:
    """Read the frames of a WAL; None where nothing is hidden, or it can't be read."""
    if not os.path.isfile(path):  # noqa: PTH113 (False where one may not look)
        return None
    try:
        with path.open("rb") as file:
            frames = read_frames(file)
    except OSError:
        return None
    return frames if frames is not None and frames.count_hidden() else None


def _copy(wal: Path, copy: Path) -> bool:
    """Copy a WAL, to the disk; tell whether that was possible."""
    try:
        # Nobody may read in it who may not read the WAL.
        with (
            wal.open("rb") as source,
            open(copy, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as target,
        ):
            reach("file.opened", str(copy))
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        shutil.copymode(wal, copy)
        sync_directory(str(copy.parent))
        reach("file.done", str(copy))
    except FileExistsError:  # another process does the same at the moment
        return False
    except OSError:
        _remove(copy)
        return False
    return True


def _remove(copy: Path) -> None:
    with contextlib.suppress(OSError):
        copy.unlink(missing_ok=True)


def _open_for_good(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    _never_closed.append(descriptor)
    return descriptor


def _read_at(descriptor: int | None, offset: int, length: int) -> bytes:
    if descriptor is None:
        return b""
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, length)


def _insert(connection: Connection, row: tuple[Any, ...], location: str) -> bool:
    """Put an answer into the ledger, unless there's a whole one under its key; tell whether it was put there."""
    if connection.exec_driver_sql(_INSERT, row).rowcount:
        return True
    with any_text(connection):
        found = [tuple(each) for each in connection.exec_driver_sql(_SELECT, row[:1])]
    # Where the index leads to another's row, that is for `check_index` to tell.
    if [each[0] for each in found] != [row[0]] or _is_whole(found[0], location):
        return False
    connection.exec_driver_sql(_REPLACE, (*row[1:], row[0]))
    return True


def _is_whole(row: tuple[Any, ...], location: str) -> bool:
    try:
        decode_row(row, location)
    except DamagedFileError:
        return False
    return True


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
