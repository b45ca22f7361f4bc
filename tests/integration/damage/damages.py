"""What can befall a file."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Obstacle = Literal["permission", "io error"]
TRUNCATE_EVERY = 64
MOST_FLIPS = 32
SAMPLE = 4


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage.

    Attributes:
        kind: the kind of damage.
        place: where in the file, or how.
        harm: does it to a file.
        obstacle: what stands before the file while it's used: it's whole then, and can't be read.
        is_sample: whether it's one of the few places that stand for all of its kind.
    """

    kind: str
    place: str
    harm: Callable[[Path], None]
    obstacle: Obstacle | None = None
    is_sample: bool = True


def iter_damages(size: int, begin: int = 0) -> Iterator[Damage]:
    """All damages to a file of so many bytes, at every place; those behind `begin` only."""
    yield from _mark_sample(
        [_truncate(length) for length in range(begin or TRUNCATE_EVERY, size, TRUNCATE_EVERY)]
    )
    stride = max(1, (size - begin) // MOST_FLIPS)
    places = zip(range(begin, size, stride), itertools.cycle(range(8)))
    yield from _mark_sample([_flip(at, bit) for at, bit in places])
    middle = (begin + size) // 2
    yield _zero("all", begin, size)
    yield _zero("first half", begin, middle)
    yield _zero("second half", middle, size)
    if begin:
        yield Damage("deleted", "cut off", lambda path: os.truncate(path, begin))
    else:
        yield from _ITS_NAME


def _mark_sample(damages: list[Damage]) -> list[Damage]:
    """Choose some, the first and the last included."""
    count = min(SAMPLE, len(damages))
    chosen = {round(index * (len(damages) - 1) / max(1, count - 1)) for index in range(count)}
    return [
        Damage(each.kind, each.place, each.harm, is_sample=index in chosen)
        for index, each in enumerate(damages)
    ]


def _truncate(length: int) -> Damage:
    return Damage("truncated", f"to {length} bytes", lambda path: os.truncate(path, length))


def _flip(at: int, bit: int) -> Damage:
    def harm(path: Path) -> None:
        _change(path, at, 1, lambda old: bytes([old[0] ^ (1 << bit)]))

    return Damage("a bit flipped", f"bit {bit} of byte {at}", harm)


def _zero(place: str, first: int, last: int) -> Damage:
    def harm(path: Path) -> None:
        _change(path, first, last - first, lambda old: bytes(len(old)))

    return Damage("zeroed", place, harm)


def _change(path: Path, at: int, count: int, change: Callable[[bytes], bytes]) -> None:
    """Change bytes in place, under all names of the file."""
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(count)
        file.seek(at)
        file.write(change(old))


def _put_directory(path: Path, inside: str = "") -> None:
    path.unlink()
    path.mkdir()
    if inside:
        (path / inside).write_text("x")


def _put_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


_ITS_NAME = (
    Damage("deleted", "", lambda path: path.unlink()),
    Damage("an empty file", "", lambda path: os.truncate(path, 0)),
    Damage("a directory", "empty", _put_directory),
    Damage("a directory", "with a file in it", lambda path: _put_directory(path, "file")),
    Damage("unreadable", "permission", lambda _: None, "permission"),
    Damage("unreadable", "io error", lambda _: None, "io error"),
    Damage("a link or pipe", "a link to nowhere", _put_link),
    Damage("a link or pipe", "a pipe", _put_pipe),
)
"""What happens to a file's name rather than to its bytes."""
