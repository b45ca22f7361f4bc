"""The kinds of files of a cache, where one of each is, and what it's swapped with."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilabel_dagster.ledger.database import open_database
from tests.integration.damage.sites import Site, State

Find = Callable[[Site], Path]


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file.

    Attributes:
        file: its name in the table.
        find: where it is.
        others: what it's swapped with.
        is_footer: only the footer of the part is harmed.
        is_second_name: a copy of the part takes the place of its second name first.
        only: the kinds of damage that matter, where others do the same as to another kind of file, or nothing.
    """

    file: str
    find: Find
    others: tuple[Find, ...] = ()
    is_footer: bool = False
    is_second_name: bool = False
    only: tuple[str, ...] = ()

    def begin(self, path: Path) -> int:
        """The first byte that's harmed."""
        return footer_start(path) if self.is_footer else 0


def targets_of(state: State) -> list[Target]:
    """The kinds of files in a cache of that state; no marker stands beside a step that isn't complete."""
    marked = "ask" if state == "finished" else "load"
    return [
        Target(
            "part",
            lambda site: site.step("ask") / "00002.parquet",
            (
                lambda site: site.step("measure") / "00002.parquet",
                lambda site: site.other_step("ask") / "00002.parquet",
                lambda site: site.step("ask") / "00001.parquet",
            ),
        ),
        Target(
            "part of a leaf",
            lambda site: site.step("shout") / "00002.parquet",
            (
                lambda site: site.step("joined") / "00002.parquet",
                lambda site: site.other_step("shout") / "00002.parquet",
            ),
        ),
        Target(
            "part as shown",
            lambda site: site.pipeline / "data" / "shout" / "00002.parquet",
            (
                lambda site: site.pipeline / "data" / "joined" / "00002.parquet",
                lambda site: site.other_pipeline / "data" / "shout" / "00002.parquet",
            ),
            is_second_name=True,
        ),
        Target(
            "last part as shown",
            lambda site: max((site.pipeline / "data" / "joined").glob("*.parquet")),
            only=("deleted",),
        ),
        Target(
            "footer",
            lambda site: site.step("joined") / "00001.parquet",
            (lambda site: site.step("ask") / "00001.parquet",),
            is_footer=True,
        ),
        Target(
            "marker",
            lambda site: site.step(marked) / "complete.json",
            (
                lambda site: site.step("measure") / "complete.json",
                lambda site: site.other_step(marked) / "complete.json",
            ),
        ),
        Target(
            "batch_manager.json",
            lambda site: site.pipeline / "batch_manager.json",
            (lambda site: site.other_pipeline / "batch_manager.json",),
        ),
        Target(
            "step JSON",
            lambda site: site.pipeline / "batch_manager_steps" / "ask.json",
            (
                lambda site: site.pipeline / "batch_manager_steps" / "joined.json",
                lambda site: site.other_pipeline / "batch_manager_steps" / "ask.json",
            ),
        ),
        Target(
            "pipeline.yaml",
            lambda site: site.pipeline / "pipeline.yaml",
            (lambda site: site.other_pipeline / "pipeline.yaml",),
        ),
        Target(
            "pipeline.log",
            lambda site: site.pipeline / "pipeline.log",
            only=("deleted", "a directory", "unreadable", "a link or pipe"),
        ),
        Target("ledger", lambda site: site.ledger, (_another_ledger,)),
    ]


def _another_ledger(site: Site) -> Path:
    """A ledger of another cache, in which nothing was asked."""
    path = site.root / "elsewhere" / "ledger.sqlite"
    if not path.exists():
        open_database(str(path)).dispose()
    return path


def footer_start(path: Path) -> int:
    """Where a part's footer begins."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(size - 8)
        return size - 8 - int.from_bytes(file.read(4), "little")


def make_own_file(path: Path) -> None:
    """Put a copy in the place of one of a file's names."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def swap(target: Target, first: Path, second: Path) -> None:
    """Have two files change places, or two parts their footers."""
    if not target.is_footer:
        aside = first.with_name("aside")
        first.rename(aside)
        second.rename(first)
        aside.rename(second)
        return
    contents = [path.read_bytes() for path in (first, second)]
    starts = [footer_start(path) for path in (first, second)]
    footers = [content[start:] for content, start in zip(contents, starts, strict=True)]
    for path, content, start, footer in zip(
        (first, second), contents, starts, reversed(footers), strict=True
    ):
        with path.open("r+b") as file:
            file.write(content[:start] + footer)
            file.truncate()


def write_leases(site: Site, broken: dict[str, Any]) -> None:
    """Leave leases on all steps as a process on another host would have that was killed long ago.

    Args:
        site: the cache.
        broken: column -> a value that it can't have.
    """
    whole = {
        "token": "t",
        "host": "elsewhere",
        "pid": 4,
        "process_start": "1",
        "since": 1.0,
        "heartbeat": 2.0,
    }
    with closing(sqlite3.connect(site.ledger)) as database, database:
        for number, (name, signature) in enumerate(site.steps.items()):
            row = {"key": f"steps_data/{name}_{signature}", **whole, "uptime": 3.0, **broken}
            if isinstance(row["key"], str) and "key" in broken:
                row["key"] = f"{row['key']}{number}"
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            database.execute(f"INSERT OR REPLACE INTO leases ({names}) VALUES ({marks})", list(row.values()))
