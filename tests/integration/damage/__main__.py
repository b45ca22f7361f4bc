"""Damage every kind of file in every way, print the table, and fail if anything went wrong:

    python -m tests.integration.damage [--json PATH] [--processes N] [--minutes M] [--only TEXT …] [--samples]

Cases come in an order in which those that stand for others are first; what there was no time for is told.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.integration.damage.sweep import try_all
from tests.integration.damage.table import print_table, write_json

_WIDTH = 220


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; give the exit code: 1 if any case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.damage")
    parser.add_argument("--json", type=Path, help="where to write all outcomes")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no case after so long")
    parser.add_argument(
        "--only", action="append", default=[], help="cases whose names have this in them; repeatable"
    )
    parser.add_argument("--samples", action="store_true", help="a few places of each kind only")
    options = parser.parse_args(arguments)
    outcomes, left = try_all(
        options.processes, only=options.only, samples=options.samples, minutes=options.minutes
    )
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    print_table(outcomes, console)
    if left:
        console.print(f"There was no time for {left:,} cases more; give more by --minutes.", markup=False)
    if options.json is not None:
        write_json(outcomes, options.json)
    return 1 if not outcomes or any(each.faults for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
