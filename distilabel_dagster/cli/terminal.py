"""What the commands write to: a terminal, or plain text elsewhere."""

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_WIDE: Final = 100_000


def make_console(file: TextIO | None = None) -> Console:
    """Make the console of results: standard output, in lines of any length where that's no terminal."""
    console = Console(file=file or sys.stdout, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(file=file or sys.stdout, highlight=False, width=_WIDE)


@contextlib.contextmanager
def open_log_stream() -> Iterator[TextIO]:
    """Open standard error once more, so that the process's own stays whole when the reader goes away."""
    try:
        number = os.dup(sys.stderr.fileno())
    except (AttributeError, io.UnsupportedOperation, OSError, ValueError):
        yield sys.stderr
        return
    stream = os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="replace")
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):
            stream.close()


class LogConsole(Console):
    """A console that falls silent when nobody reads it any more, instead of ending the process."""

    def on_broken_pipe(self) -> None:
        """Go on without it."""
        self.quiet = True


def print_table(
    console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()
) -> None:
    """Print a table: with a rule below its titles on a terminal, plain columns elsewhere.

    Args:
        console: where to.
        titles: of the columns.
        rows: text of the cells.
        numbers: indices of the columns that are aligned to the right.
    """
    table = Table(
        box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold", show_edge=False
    )
    for index, title in enumerate(titles):
        is_number = index in numbers
        table.add_column(title, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        table.add_row(*(_escape(cell) for cell in row))
    console.print(table)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


def format_size(size_bytes: int) -> str:
    """Tell a size in the unit that fits: `812 B`, `3.4 MB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class _Level(dict[str, "_Level"]):
    """What is in a directory: name -> what is in that; a file holds nothing."""


def draw_tree(title: str, paths: Iterable[str]) -> list[str]:
    """Draw files as the command `tree` does: a title, then a line for each directory and file, sorted."""
    root = _Level()
    for path in paths:
        level = root
        for part in path.split("/"):
            level = level.setdefault(part, _Level())
    return [title, *_draw_level(root)]


def _draw_level(level: _Level) -> list[str]:
    lines = []
    for index, (name, below) in enumerate(sorted(level.items()), start=1):
        is_last = index == len(level)
        lines.append(f"{'└── ' if is_last else '├── '}{name}")
        lines += [f"{'    ' if is_last else '│   '}{line}" for line in _draw_level(below)]
    return lines
