"""The WAL of a SQLite file: whether all that was committed to it can still be reached.

SQLite reads a WAL up to the first frame whose checksum is wrong, and takes that for its end: a process that was killed
leaves it so. One wrong bit in the middle hides what comes after it in the same way, and SQLite says nothing.

The checksum of a frame goes on from the one before, in Fibonacci's steps (`_make_factors`). Each frame also says what it
has come to, so that all frames can be summed at once, each from what the one before says of itself: the first that doesn't
fit is where SQLite stops.
"""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import iter_unpack
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

WAL_MAGIC: Final = (0x377F0682, 0x377F0683)
WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_OWN_PAGE_BYTES: Final = 4_096
_LEAST_PAGE_BYTES, _MOST_PAGE_BYTES = 512, 65_536
_READ_BYTES: Final = 2 * 2**20
"""At a time; what a processor keeps near itself."""

_FRAME_HEADER: Final = ">II8s8x"
_SUMS_AT: Final = 16
"""Where a frame says what the checksum has come to, itself included."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One of the pages in a WAL.

    Attributes:
        page: number of the page.
        offset: where in the WAL it begins, behind the frame's header.
        commit: number of the frame that ends its transaction.
    """

    page: int
    offset: int
    commit: int


@dataclass(frozen=True, slots=True)
class WalFrames:
    """The frames of a WAL, in the state in which it was read; one that is only half there is none.

    Attributes:
        page_bytes: size of a page.
        whole: how many frames there are before the first that isn't what was written, or is left from before the WAL was
            begun anew: what SQLite looks at.
        headers: of all frames, as they are in the file.
        salts: what frames of this WAL have in their header, and those from before don't.
    """

    page_bytes: int
    whole: int
    headers: bytes
    salts: bytes

    def count_hidden(self) -> int:
        """Count the transactions that SQLite doesn't see."""
        return sum(size > 0 for _, _, size in self._iter_current(self.whole))

    def list_committed(self) -> list[Frame]:
        """List the frames of all transactions, in order, those that SQLite doesn't see included."""
        frames: list[Frame] = []
        pending: list[tuple[int, int]] = []
        for place, page, size in self._iter_current(0):
            pending.append((page, self.locate_page(place)))
            if size:
                frames += [Frame(*each, commit=place) for each in pending]
                pending.clear()
        return frames

    def locate_page(self, frame: int) -> int:
        """Give the place in the WAL where the page of a frame begins."""
        return WAL_HEADER_BYTES + frame * (FRAME_HEADER_BYTES + self.page_bytes) + FRAME_HEADER_BYTES

    def find_last_seen(self) -> int:
        """Give the number of the last frame that SQLite reads, which ends a transaction; -1 where there's none."""
        sizes = [size for _, size, _ in iter_unpack(_FRAME_HEADER, self.headers[: self._at(self.whole)])]
        return max((place for place, size in enumerate(sizes) if size), default=-1)

    def _iter_current(self, first: int) -> Iterator[tuple[int, int, int]]:
        """Give number, page, and where it ends a transaction the file's size after it, of the frames of this WAL.

        It was written from the beginning on: what comes before one of its frames is of it too, whatever its salts are.
        """
        told = list(iter_unpack(_FRAME_HEADER, self.headers[self._at(first) :]))
        while told and told[-1][2] != self.salts:
            told.pop()
        for place, (page, size, _) in enumerate(told, start=first):
            yield place, page, size

    def _at(self, frame: int) -> int:
        return frame * FRAME_HEADER_BYTES


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
        frames = read_frames(file)
    return 0 if frames is None else frames.count_hidden()


def read_frames(file: IO[bytes]) -> WalFrames | None:
    """Read a WAL from beginning to end, each byte once; None where there's no frame in it.

    Args:
        file: the WAL, at its beginning. Others may write to it: what comes after its end of now isn't read.

    Raises:
        OSError: it can't be read.
    """
    left = os.fstat(file.fileno()).st_size - WAL_HEADER_BYTES
    header = file.read(WAL_HEADER_BYTES).ljust(WAL_HEADER_BYTES, b"\0")
    page_bytes = int.from_bytes(header[8:12], "big")
    if not is_page_size(page_bytes):
        page_bytes = _OWN_PAGE_BYTES
    step = FRAME_HEADER_BYTES + page_bytes
    if left < step:
        return None
    order = ">" if header[3] & 1 else "<"
    is_whole = int.from_bytes(header[:4], "big") in WAL_MAGIC
    is_whole = is_whole and sum_words(order, header[:24]) == header[24:32]
    salts, sums, whole = header[16:24], header[24:32], 0
    headers = bytearray()
    while left >= step:
        content = file.read(min(max(1, _READ_BYTES // step), left // step) * step)
        left -= len(content) or left
        content = content[: len(content) // step * step]
        if not content:
            break
        found = _view(content, step)
        told = found[:, :FRAME_HEADER_BYTES].tobytes()
        if is_whole:
            count = _count_whole(order, found, salts, sums)
            whole += count
            is_whole = count == len(found)
        elif not headers:
            salts = told[8:16]  # the header's are as little to be believed as the rest of it
        sums = told[-8:]
        headers += told
    return WalFrames(page_bytes, whole, bytes(headers), salts) if headers else None


def sum_words(order: str, content: bytes, sums: bytes = bytes(8)) -> bytes:
    """Go on with SQLite's checksum.

    Args:
        order: of the bytes in a word, as `struct` says it.
        content: words, an even number of them.
        sums: the checksum so far, as it stands in a WAL.
    """
    import numpy as np

    words = np.frombuffer(content, f"{order}u4").astype(np.uint32)[np.newaxis]
    before = np.frombuffer(sums, ">u4").astype(np.uint32)[np.newaxis]
    factors, carried = _make_factors(words.shape[1])
    return bytes((words @ factors + before @ carried).astype(">u4").tobytes())


def _count_whole(order: str, frames: "np.ndarray[Any, Any]", salts: bytes, sums: bytes) -> int:
    """Count the frames, a row of bytes each, that go on from a checksum and have the salts, up to the first that doesn't."""
    import numpy as np

    words = frames.view(f"{order}u4")
    if not words.dtype.isnative:
        words = words.astype(np.uint32)
    stored = np.vstack(
        [np.frombuffer(sums, ">u4"), frames[:, _SUMS_AT:FRAME_HEADER_BYTES].copy().view(">u4")]
    ).astype(np.uint32)
    first_of_page = FRAME_HEADER_BYTES // 4
    factors, carried = _make_factors(2 + words.shape[1] - first_of_page)
    found = words[:, :2] @ factors[:2] + words[:, first_of_page:] @ factors[2:] + stored[:-1] @ carried
    fits = (found == stored[1:]).all(axis=1) & (frames[:, 8:16] == np.frombuffer(salts, np.uint8)).all(axis=1)
    return len(fits) if fits.all() else int(fits.argmin())


def _view(content: bytes, step: int) -> "np.ndarray[Any, Any]":
    # Not a requirement of its own: `datasets`, which is one, can't be without it. Takes 0.1 s to import, and most ledgers
    # are opened without a WAL.
    import numpy as np

    return np.frombuffer(content, np.uint8).reshape(-1, step)


@functools.lru_cache(maxsize=4)
def _make_factors(count: int) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Give what each of some words counts in the two sums, and what each of the two sums before them does.

    SQLite adds words in pairs: `first += even + second; second += odd + first`. A step later each sum therefore counts as
    often as the two before it together: it's Fibonacci's numbers, of which the last word is worth 0 and 1.
    """
    import numpy as np

    numbers = [0, 1]
    while len(numbers) < count + 2:
        numbers.append((numbers[-1] + numbers[-2]) & 0xFFFFFFFF)
    fibonacci = np.array(numbers, np.uint32)
    factors = np.stack([fibonacci[:count][::-1], fibonacci[1 : count + 1][::-1]], axis=1)
    carried = np.array(
        [[numbers[count - 1], numbers[count]], [numbers[count], numbers[count + 1]]], np.uint32
    )
    return np.ascontiguousarray(factors), carried


def is_page_size(size: int) -> bool:
    """Tell whether a number can be the size of a SQLite file's pages."""
    return _LEAST_PAGE_BYTES <= size <= _MOST_PAGE_BYTES and size & (size - 1) == 0
