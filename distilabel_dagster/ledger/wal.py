"""The WAL of a SQLite file: whether all that was committed to it can still be reached.

SQLite reads a WAL up to the first frame whose checksum is wrong, and takes that for its end: a process that was killed
leaves it so. One wrong bit in the middle hides what comes after it in the same way, and SQLite says nothing.
"""

import os
from pathlib import Path
from struct import unpack
from typing import IO, Final

WAL_MAGIC: Final = (0x377F0682, 0x377F0683)
WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_LEAST_PAGE_BYTES, _MOST_PAGE_BYTES = 512, 65_536


def count_hidden_commits(path: Path) -> int:
    """Count the transactions in a WAL that come after a frame which isn't what was written; 0 where there's no WAL.

    After a loss of power there may be some that nobody was promised to find again.

    Args:
        path: the WAL.

    Raises:
        OSError: it can't be read.
    """
    if not os.path.isfile(path):  # noqa: PTH113 (a plain string, as SQLite takes it)
        return 0
    with path.open("rb") as file:
        header = file.read(WAL_HEADER_BYTES)
        page_bytes = int.from_bytes(header[8:12], "big")
        if len(header) < WAL_HEADER_BYTES:
            return 0
        if not is_page_size(page_bytes):
            page_bytes = 4_096
        return _count(file, header, page_bytes)


def _count(file: IO[bytes], header: bytes, page_bytes: int) -> int:
    order = ">" if header[3] & 1 else "<"
    sums = _add(order, header[:24], (0, 0))
    is_whole = int.from_bytes(header[:4], "big") in WAL_MAGIC and sums == unpack(">II", header[24:32])
    salts = header[16:24] if is_whole else b""
    hidden = 0
    while len(frame := file.read(FRAME_HEADER_BYTES + page_bytes)) == FRAME_HEADER_BYTES + page_bytes:
        salts = salts or frame[8:16]
        if frame[8:16] != salts:  # of before the WAL was begun anew, where all of this one has gone by
            is_whole = False
            continue
        if is_whole:
            sums = _add(order, frame[FRAME_HEADER_BYTES:], _add(order, frame[:8], sums))
            is_whole = sums == unpack(">II", frame[16:24])
        if not is_whole and any(frame[4:8]):
            hidden += 1
    return hidden


def _add(order: str, content: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """Add to the checksum, as SQLite does it."""
    first, second = sums
    words = iter(unpack(f"{order}{len(content) // 4}I", content))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def is_page_size(size: int) -> bool:
    """Tell whether a number can be the size of a SQLite file's pages."""
    return _LEAST_PAGE_BYTES <= size <= _MOST_PAGE_BYTES and size & (size - 1) == 0
