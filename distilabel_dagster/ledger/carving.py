"""Responses out of the bare pages of a SQLite file: what a damaged structure leads to no more is still there.

The format is SQLite's, see https://www.sqlite.org/fileformat2.html. Each row has a checksum of its own, so that nothing
is taken for a response which isn't one; where a row of an older release has none, its types decide.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import IO, Any, Final, NamedTuple

from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.ledger.calls import StoredResponse
from distilabel_dagster.ledger.response_encoding import COLUMNS, decode_row
from distilabel_dagster.ledger.wal import FRAME_HEADER_BYTES, WAL_HEADER_BYTES, is_page_size

_MAGIC: Final = b"SQLite format 3\0"
_FILE_HEADER_BYTES: Final = 100
_OWN_PAGE_BYTES: Final = 4096
TABLE_LEAF, _INDEX_LEAF, _INDEX_INNER = 13, 10, 2
_PAGE_KINDS: Final = (2, 5, 10, 13)
_FLOAT: Final = Struct(">d")
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_LONGEST_PAYLOAD_BYTES: Final = 256 * 2**20
_READS_PER_BYTE: Final = 4
"""How often each byte may be read as part of a long row; a chain of pages that goes round in circles ends there."""

_AMOUNTS: Final = frozenset(
    place for place, name in enumerate(COLUMNS) if name in ("cost_usd", "latency_s", "created_at")
)
_RESPONSE_AT: Final = COLUMNS.index("response")


class NotACell(Exception):  # noqa: N818  (it's caught a few lines on, whenever bytes are no row)
    """Bytes are no row, or it can't be read in the way that was tried."""


UNREADABLE: Final = (NotACell, IndexError, UnicodeDecodeError)
"""What is raised where bytes aren't what they're taken for."""


@dataclass(slots=True)
class Carved:
    """What was counted while responses were carved out.

    Attributes:
        pages: pages looked at.
        damaged: rows that look like a response's and aren't whole, those that are whole elsewhere included.
    """

    pages: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """A way to read rows that go on in other pages, where there are several.

    Attributes:
        usable_bytes: of a page; some builds of SQLite keep the last few for other things, as the header says.
        with_wal: whether a page in the WAL counts before the one in the file.
    """

    usable_bytes: int
    with_wal: bool


class Cell(NamedTuple):
    """A row as it lies in a page.

    Attributes:
        row_id: its number; 0 in an index.
        local: what of it is in the page itself.
        following: number of the page in which it goes on.
        rest: bytes that are there, and in those that come after; 0 where all is in the page itself.
    """

    row_id: int
    local: bytes
    following: int
    rest: int


class Pages(ABC):
    """Where rows go on that are longer than a page.

    Attributes:
        page_bytes: size of a page.
        ways: to read such rows, the likely ones first.
    """

    def __init__(self) -> None:
        self._left = 0
        self.page_bytes = _OWN_PAGE_BYTES
        self.ways: tuple[Way, ...] = ()

    @abstractmethod
    def read_page(self, number: int, way: Way) -> bytes:
        """Read a page; less than one, or nothing, where there's none with that number."""

    def read_chain(self, first: int, length: int, way: Way) -> bytes:
        """Read the rest of a row that goes on in pages of its own.

        Raises:
            NotACell: they don't lead that far.
        """
        gathered = bytearray()
        number = first
        while len(gathered) < length:
            self._left -= self.page_bytes
            if self._left < 0 or number < 1:
                raise NotACell
            page = self.read_page(number, way)
            if len(page) < self.page_bytes:
                raise NotACell
            number = int.from_bytes(page[:4], "big")
            gathered += page[4 : way.usable_bytes]
        return bytes(gathered[:length])

    def _prepare(self, header: bytes, size_bytes: int) -> None:
        """Find the ways that there are by a file's header, and how much may be read of what has a size."""
        kept = header[20] if len(header) > 20 else 0
        usable = {self.page_bytes - kept, self.page_bytes} if kept else {self.page_bytes}
        self.ways = tuple(Way(size, with_wal) for size in sorted(usable) for with_wal in (True, False))
        self._left = _READS_PER_BYTE * size_bytes


class PageFile(Pages):
    """The pages of a SQLite file and of its WAL; a context manager.

    Not for a file that this process has open otherwise: closing it ends SQLite's locks.

    Args:
        path: the file; the WAL is beside it, if there's one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._open = ExitStack()
        self._file: IO[bytes] | None = None
        self._wal: IO[bytes] | None = None
        self._latest: dict[int, int] = {}

    def __enter__(self) -> "PageFile":
        self._file = self._open_if_there(self._path)
        self._wal = self._open_if_there(self._path.with_name(f"{self._path.name}-wal"))
        self._measure()
        for number, offset in self._iter_frames():
            self._latest[number] = offset
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def iter_pages(self) -> Iterator[tuple[int, bytes]]:
        """Give each page with its number, those of the WAL after those of the file; a page may come several times."""
        for number in range(1, _size(self._file) // self.page_bytes + 1):
            yield number, _read_at(self._file, (number - 1) * self.page_bytes, self.page_bytes)
        for number, offset in self._iter_frames():
            yield number, _read_at(self._wal, offset, self.page_bytes)

    def read_page(self, number: int, way: Way) -> bytes:
        """Read a page, in its latest version in the WAL or as the file has it."""
        if way.with_wal and number in self._latest:
            return _read_at(self._wal, self._latest[number], self.page_bytes)
        return _read_at(self._file, (number - 1) * self.page_bytes, self.page_bytes)

    def _open_if_there(self, path: Path) -> IO[bytes] | None:
        return self._open.enter_context(path.open("rb")) if path.is_file() else None

    def _measure(self) -> None:
        header = _read_at(self._file, 0, _FILE_HEADER_BYTES)
        in_wal = int.from_bytes(_read_at(self._wal, 8, 4), "big")
        in_file = int.from_bytes(header[16:18], "big") if header.startswith(_MAGIC) else 0
        sizes = (65_536 if in_file == 1 else in_file, in_wal, _OWN_PAGE_BYTES)
        self.page_bytes = next(size for size in sizes if is_page_size(size))
        self._prepare(header, sum(_size(file) for file in (self._file, self._wal)))

    def _iter_frames(self) -> Iterator[tuple[int, int]]:
        step = FRAME_HEADER_BYTES + self.page_bytes
        for start in range(WAL_HEADER_BYTES, _size(self._wal) - step + 1, step):
            number = int.from_bytes(_read_at(self._wal, start, 4), "big")
            yield number, start + FRAME_HEADER_BYTES


def carve_responses(path: Path, location: str, carved: Carved) -> Iterator[StoredResponse]:
    """Give each whole response in a SQLite file and its WAL, some several times.

    Args:
        path: the file.
        location: what errors call it.
        carved: counts.
    """
    orphans: dict[int, list[list[Any]]] = {}
    with PageFile(path) as pages:
        for number, page in pages.iter_pages():
            carved.pages += 1
            for row_id, record in _iter_records(pages, number, page, TABLE_LEAF):
                found = read_response(record, location)
                if found is not None:
                    yield found
                elif _looks_like_response(record):
                    carved.damaged += 1
                    orphans.setdefault(row_id, []).append(record)
        if orphans:
            yield from _carve_by_index(pages, orphans, location)


def _carve_by_index(
    pages: PageFile, orphans: dict[int, list[list[Any]]], location: str
) -> Iterator[StoredResponse]:
    """Try rows under the keys that the index has for them: it may be the row's key alone that is damaged."""
    for number, page in pages.iter_pages():
        for kind in (_INDEX_LEAF, _INDEX_INNER):
            for _, entry in _iter_records(pages, number, page, kind):
                if len(entry) == 2 and isinstance(entry[0], bytes) and entry[1] in orphans:
                    for record in orphans[entry[1]]:
                        found = read_response([entry[0], *record[1:]], location)
                        if found is not None:
                            yield found


def _iter_records(pages: PageFile, number: int, page: bytes, kind: int) -> Iterator[tuple[int, list[Any]]]:
    """Give the rows of one page, if it's of a kind, each with its number (0 in an index)."""
    if len(page) == pages.page_bytes:
        for at in iter_cells(page, _FILE_HEADER_BYTES if number == 1 else 0, kind):
            yield from _read_record(pages, page, at, kind)


def iter_cells(page: bytes, start: int, kind: int) -> Iterator[int]:
    """Give the places of rows in a page, if it's of a kind.

    A page that says of itself what no page can be is taken for one of a table.
    """
    if page[start] != kind and (kind != TABLE_LEAF or page[start] in _PAGE_KINDS):
        return
    is_inner = kind == _INDEX_INNER
    # How many there are isn't asked: that may be damaged, and the first of the cells is where their places end.
    place, end = start + (12 if is_inner else 8), len(page)
    while place + 2 <= end:
        cell = int.from_bytes(page[place : place + 2], "big")
        place += 2
        if cell >= place:
            end = min(end, cell)
            yield cell + (4 if is_inner else 0)


def _read_record(pages: PageFile, page: bytes, at: int, kind: int) -> Iterator[tuple[int, list[Any]]]:
    """Give what a cell is, in each way in which it can be read."""
    for way in pages.ways:
        try:
            cell = read_cell(page, at, kind, way)
            rest = pages.read_chain(cell.following, cell.rest, way) if cell.rest else b""
            record = parse_record(cell.local + rest)
        except UNREADABLE:
            continue
        yield cell.row_id, record
        if not cell.rest:
            return


def read_cell(page: bytes, at: int, kind: int, way: Way) -> Cell:
    """Read a row as far as it's in a page.

    Raises:
        NotACell: there's none. Or IndexError.
    """
    length, at = _read_varint(page, at)
    row_id = 0
    if kind == TABLE_LEAF:
        row_id, at = _read_varint(page, at)
    usable = way.usable_bytes
    most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if length > _LONGEST_PAYLOAD_BYTES:
        raise NotACell
    if length <= most:
        if at + length > len(page):
            raise NotACell
        return Cell(row_id, page[at : at + length], 0, 0)
    least = (usable - 12) * 32 // 255 - 23
    local = least + (length - least) % (usable - 4)
    if local > most:
        local = least
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    return Cell(row_id, page[at : at + local], following, length - local)


def parse_record(payload: bytes) -> list[Any]:
    """Read the values of a row; the response, which may be text that is none, as bytes.

    Raises:
        NotACell: it's none. Or another of `UNREADABLE`.
    """
    header_bytes, at = _read_varint(payload, 0)
    kinds = []
    while at < header_bytes:
        kind, at = _read_varint(payload, at)
        kinds.append(kind)
        if len(kinds) > len(COLUMNS):
            raise NotACell
    values: list[Any] = []
    at = header_bytes
    for place, kind in enumerate(kinds):
        size = _INTEGER_BYTES.get(kind, 8 if kind == 7 else max(0, kind - 12) // 2)
        content = payload[at : at + size]
        if len(content) < size:
            raise NotACell
        at += size
        values.append(_read_value(kind, content, as_text=place != _RESPONSE_AT))
    return values


def _read_value(kind: int, content: bytes, *, as_text: bool) -> Any:
    if kind == 0:
        return None
    if kind in _INTEGER_BYTES:
        return int.from_bytes(content, "big", signed=True)
    if kind == 7:
        return _FLOAT.unpack(content)[0]
    if kind in (8, 9):
        return kind - 8
    if kind < 12:
        raise NotACell
    return content.decode() if kind % 2 and as_text else content


def read_response(record: list[Any], location: str) -> StoredResponse | None:
    """Make a response of the values of a row; None where it isn't one, or not a whole one."""
    if not _looks_like_response(record):
        return None
    padded = [*record, None][: len(COLUMNS)]
    # Whole numbers are kept as such, whatever the column's type.
    row = tuple(
        float(value) if place in _AMOUNTS and isinstance(value, int) else value
        for place, value in enumerate(padded)
    )
    try:
        return decode_row(row, location)
    except DamagedFileError:
        return None


def _looks_like_response(record: list[Any]) -> bool:
    return len(COLUMNS) - 1 <= len(record) <= len(COLUMNS) and isinstance(record[_RESPONSE_AT], bytes)


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(at, at + 8):
        byte = content[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    return value << 8 | content[at + 8], at + 9


def _size(file: IO[bytes] | None) -> int:
    return 0 if file is None else file.seek(0, 2)


def _read_at(file: IO[bytes] | None, offset: int, length: int) -> bytes:
    if file is None:
        return b""
    file.seek(offset)
    return file.read(length)
