"""All rows of the table of targets, side by side with distilabel 1.5.3 and with the machine's own limits.

    python -m benchmarks.compare [--repeats N] [--only <part of a title>] [--without-peer] [--scale F] [--results DIR]

The engines take turns, in processes and caches of their own; quoted are medians, and medians of the ratios of runs that
followed each other. It prints the table, and writes `compare.json` after each row and `compare.svg` at the end. With
`--only`, `--without-peer` or `--scale` it writes them only where `--results` says so: they aren't the whole table.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Found, give_verdict
from benchmarks.machine import describe_machine, read_load
from benchmarks.measuring import OURS, ROOT
from benchmarks.notes import NOTES
from benchmarks.peer import find_python
from benchmarks.plot import draw
from benchmarks.rows import Row, build_rows
from benchmarks.turns import Bench

RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "title": "work",
    "ours": "ours",
    "peer": "distilabel 1.5.3",
    "limit": "yardstick",
    "ratio": "ratio",
    "target": "target",
    "met": "met",
    "runs": "runs",
}


def measure_row(row: Row, bench: Bench) -> Found:
    """Measure it; a row that can't be measured says why, and the others go on."""
    try:
        found = row.measure(bench)
    except RuntimeError as error:
        print(f"{row.title}: {error}", file=sys.stderr, flush=True)
        found = {"ours": f"failed: {str(error).strip().rpartition(chr(10))[2][:120]}", "runs": "0"}
    return {**found, "title": row.title, "target": row.target}


def list_cells(found: Found) -> list[str]:
    """The cells of a row, in the order of the columns."""
    cells = {
        **found,
        "met": "NO, failed" if found.get("runs") == "0" else give_verdict(found.get("goals", [])),
    }
    return [str(cells.get(name, "")) for name in COLUMNS]


def give_note(found: Found) -> str:
    """Say why a row isn't met; nothing where it is."""
    if not list_cells(found)[list(COLUMNS).index("met")].startswith("NO"):
        return ""
    return NOTES.get(found["title"], "why isn't known")


def print_table(rows: list[Found]) -> None:
    """Print all rows, and below them why some aren't met."""
    table = Table(title="distilabel_dagster beside distilabel 1.5.3, and a yardstick")
    for heading in COLUMNS.values():
        table.add_column(heading)
    for found in rows:
        table.add_row(*list_cells(found))
    console = Console(width=200)
    console.print(table)
    for found in rows:
        if note := give_note(found):
            console.print(f"{found['title']}: {note}", markup=False, highlight=False)


def write_results(directory: Path, machine: dict[str, Any], rows: list[Found]) -> None:
    """Write what there is; an interrupted bench keeps it."""
    directory.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine, "rows": [{**row, "met": list_cells(row)[-2]} for row in rows]}
    path = directory / "compare.json"
    path.with_suffix(".tmp").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    path.with_suffix(".tmp").replace(path)


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Run the server of calls; give its URL."""
    server = subprocess.Popen(
        [OURS, "-m", "benchmarks.server"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    finally:
        server.communicate()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns of each row")
    parser.add_argument("--only", default="", help="rows with this in their titles")
    parser.add_argument("--without-peer", action="store_true", help="leave distilabel out")
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the rows, to try it out")
    parser.add_argument("--results", type=Path, help="where the figures are written")
    options = parser.parse_args()
    is_whole = not options.only and not options.without_peer and options.scale == 1.0
    directory: Path | None = options.results or (RESULTS if is_whole else None)
    bench = Bench(options.repeats, None if options.without_peer else find_python())
    machine = describe_machine(bench.peer_python) | {"repeats": options.repeats, "scale": options.scale}
    rows: list[Found] = []
    begun = time.monotonic()
    try:
        with serve() as url:
            for row in build_rows(url, options.scale):
                if options.only not in row.title:
                    continue
                print(f"[{time.monotonic() - begun:5.0f} s] {row.title} …", file=sys.stderr, flush=True)
                rows.append(measure_row(row, bench))
                machine |= {"load_at_end": read_load(), "took_s": round(time.monotonic() - begun)}
                if directory is not None:
                    write_results(directory, machine, rows)
    finally:
        print_table(rows)
        if directory is not None and rows:
            draw(rows, directory / "compare.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
