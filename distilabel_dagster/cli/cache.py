"""`cache list` and `cache show`: what the cache holds. They only read, and stand damaged files."""

import datetime as dt
import difflib
import json
from dataclasses import dataclass
from typing import Any, Final

import click
from rich.console import Console

from distilabel_dagster.base.environment import default_cache_dir
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem, FileInfo
from distilabel_dagster.cache.inventory import PipelineEntry, describe_pipeline
from distilabel_dagster.cli.calls import describe, print_usages, read_usages
from distilabel_dagster.cli.options import cache_dir_option, debug_option, json_option, ledger_url_option
from distilabel_dagster.cli.terminal import draw_tree, format_size, make_console, print_table
from distilabel_dagster.errors import CacheError, UnknownPartitionError
from distilabel_dagster.ledger.usage import Usage, add_up

_SHOWN_DIGITS: Final = 12
_FEWEST_DIGITS: Final = 6
_NEAR: Final = 0.6
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a pipeline: those of its directory, and those of each step (shared with other pipelines)."""

    own: list[FileInfo]
    steps: dict[str, list[FileInfo]]

    def every(self) -> list[FileInfo]:
        """All of them; a leaf's parts in `data/` are hard links to the step's, and count once."""
        own = [file for file in self.own if f"/{layout.DATA_DIR}/" not in file.path]
        return [*own, *(file for files in self.steps.values() for file in files)]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.every())

    @property
    def written_at(self) -> float:
        return max((file.modified_at for file in self.every()), default=0.0)


@click.group("cache")
def cache_group() -> None:
    """Look at what the cache holds, and for damage."""


@cache_group.command("list")
@cache_dir_option
@json_option
@debug_option
def list_cache(cache_dir: str | None, as_json: bool) -> None:
    """List the pipelines of the cache, the last written first.

    The size of a step that several pipelines share is counted for each of them.
    """
    fs = CacheFileSystem(cache_dir or default_cache_dir())
    entries = [describe_pipeline(fs, signature) for signature in list_signatures(fs)]
    found = sorted(
        ((entry, _find_files(fs, entry)) for entry in entries), key=lambda each: -each[1].written_at
    )
    console = make_console()
    if as_json:
        _print_json(console, [_describe(entry, files) for entry, files in found])
    elif not found:
        console.print(f"No pipelines in {fs.url}.", markup=False)
    else:
        rows = [
            (
                entry.signature[:_SHOWN_DIGITS],
                entry.name or "(unreadable)",
                f"{_count_leaf_rows(entry):,}",
                _tell_state(entry),
                format_size(files.size_bytes),
                _tell_time(files.written_at),
            )
            for entry, files in found
        ]
        titles = ("signature", "pipeline", "rows", "state", "size", "last written")
        print_table(console, titles, rows, numbers=(2, 4))


@cache_group.command("show")
@click.argument("signature")
@cache_dir_option
@ledger_url_option
@json_option
@debug_option
def show_cache(signature: str, cache_dir: str | None, ledger_url: str | None, as_json: bool) -> None:
    """Show one pipeline of the cache. The first digits of its SIGNATURE are enough, at least 6 of them.

    Where its steps have called models, it says what the calls came to in all runs. Those of a step that several
    pipelines share are counted for each of them.
    """
    fs = CacheFileSystem(cache_dir or default_cache_dir())
    entry = describe_pipeline(fs, find_signature(fs, signature))
    files = _find_files(fs, entry)
    usages, problem = _find_usages(fs, entry, ledger_url)
    console = make_console()
    if as_json:
        content = _describe(entry, files)
        for step in content["steps"]:
            if step["name"] in usages:
                step["usage"] = describe(usages[step["name"]])
        if usages:
            content["usage"] = describe(add_up(usages.values()))
        _print_json(console, {**content, "usage_problem": problem} if problem else content)
        return
    console.print(entry.name or "(unreadable)", style="bold", markup=False)
    for told in filter(None, (entry.problem, *(step.problem for step in entry.steps))):
        console.print(told, style="yellow", markup=False)
    console.print(f"signature     {entry.signature}", markup=False)
    console.print(f"state         {_tell_state(entry)}, {_count_leaf_rows(entry):,} rows", markup=False)
    console.print(f"size          {format_size(files.size_bytes)}", markup=False)
    console.print(f"last written  {_tell_time(files.written_at)}", markup=False)
    console.print()
    _print_steps(console, entry, files)
    console.print()
    if usages:
        print_usages(console, usages)
        console.print()
    if problem:
        console.print(problem, style="yellow", markup=False)
        console.print()
    root = fs.full_path(entry.signature)
    paths = [file.path.removeprefix(f"{entry.signature}/") for file in files.own]
    for line in draw_tree(root, paths):
        console.print(line, markup=False)


def _find_usages(
    fs: CacheFileSystem, entry: PipelineEntry, ledger_url: str | None
) -> tuple[dict[str, Usage], str | None]:
    """What the calls of each step came to, and what hinders to say; the rows are there in any case."""
    try:
        return read_usages(fs, entry, ledger_url), None
    except CacheError as error:
        return {}, str(error)


def _print_steps(console: Console, entry: PipelineEntry, files: _Files) -> None:
    rows = [
        (
            step.name,
            step.signature[:_SHOWN_DIGITS],
            f"{step.rows:,}",
            f"{step.batches:,}",
            f"{step.failed_rows:,}",
            "unreadable" if step.problem else "complete" if step.is_complete else "not complete",
            f"{len(files.steps[step.name]):,}",
            format_size(sum(file.size_bytes for file in files.steps[step.name])),
        )
        for step in entry.steps
    ]
    titles = ("step", "signature", "rows", "batches", "failed", "state", "files", "size")
    print_table(console, titles, rows, numbers=(2, 3, 4, 6, 7))


def list_signatures(fs: CacheFileSystem) -> list[str]:
    """Name the pipelines that the cache holds."""
    return [name for name in fs.list_names("") if layout.is_pipeline_dir(name)]


def find_signature(fs: CacheFileSystem, given: str) -> str:
    """Give the one signature that begins with the digits given.

    Raises:
        UnknownPartitionError: none does, or several do.
    """
    digits, known = given.lower(), list_signatures(fs)
    found = [signature for signature in known if signature.startswith(digits)]
    if len(found) == 1 and len(digits) >= _FEWEST_DIGITS:
        return found[0]
    if len(digits) < _FEWEST_DIGITS:
        raise UnknownPartitionError(
            f"`{given}` is too short: give at least the first {_FEWEST_DIGITS} digits of a signature. "
            "`distilabel-dagster cache list` shows them.",
            partition_key=given,
        )
    if found:
        raise UnknownPartitionError(
            f"`{given}` is the beginning of several signatures: {_name(found)}. Give more digits.",
            partition_key=given,
        )
    near = difflib.get_close_matches(digits, {each[: len(digits)] for each in known}, n=3, cutoff=_NEAR)
    meant = [each for each in known if each[: len(digits)] in near]
    hint = f"Did you mean {_name(meant, ' or ')}?" if meant else f"It holds: {_name(known) or 'no pipeline'}."
    raise UnknownPartitionError(
        f"The cache {fs.url} holds no pipeline whose signature begins with `{given}`. {hint} Another cache is named by "
        "`--cache-dir` or DISTILABEL_CACHE_DIR.",
        partition_key=given,
    )


def _name(signatures: list[str], separator: str = ", ") -> str:
    told = separator.join(f"`{each[:_SHOWN_DIGITS]}`" for each in signatures[:_MOST_NAMED])
    left = len(signatures) - _MOST_NAMED
    return told + (f" and {left} more" if left > 0 else "")


def _find_files(fs: CacheFileSystem, entry: PipelineEntry) -> _Files:
    steps = {step.name: fs.list_files(layout.step_dir(step.name, step.signature)) for step in entry.steps}
    return _Files(fs.list_files(entry.signature), steps)


def _count_leaf_rows(entry: PipelineEntry) -> int:
    return sum(step.rows for step in entry.steps if step.name in entry.leaf_steps)


def _tell_state(entry: PipelineEntry) -> str:
    if entry.problem or any(step.problem for step in entry.steps):
        return "unreadable"
    done = sum(step.is_complete for step in entry.steps)
    failed = sum(step.failed_rows for step in entry.steps)
    told = "complete" if entry.is_complete else f"{done}/{len(entry.steps)} steps"
    return f"{told}, {failed} failed" if failed else told


def _tell_time(seconds: float) -> str:
    if not seconds:
        return "-"
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M")


def _describe(entry: PipelineEntry, files: _Files) -> dict[str, Any]:
    written = dt.datetime.fromtimestamp(files.written_at, dt.timezone.utc)
    return {
        "signature": entry.signature,
        "pipeline": entry.name,
        "is_complete": entry.is_complete,
        "problem": entry.problem,
        "rows": _count_leaf_rows(entry),
        "size_bytes": files.size_bytes,
        "last_written": written.isoformat(timespec="seconds") if files.written_at else None,
        "leaf_steps": list(entry.leaf_steps),
        "steps": [
            {
                "name": step.name,
                "signature": step.signature,
                "rows": step.rows,
                "batches": step.batches,
                "failed_rows": step.failed_rows,
                "is_complete": step.is_complete,
                "problem": step.problem,
                "files": [file.path for file in files.steps[step.name]],
                "size_bytes": sum(file.size_bytes for file in files.steps[step.name]),
            }
            for step in entry.steps
        ],
    }


def _print_json(console: Console, content: Any) -> None:
    console.out(json.dumps(content, indent=2, ensure_ascii=False), highlight=False)
