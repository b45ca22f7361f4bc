"""The damage table: what comes of each kind of damage to each kind of file."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.integration.damage.trial import Outcome

_LONGEST_FAULT = 1000


def print_table(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print a row for each kind of file, and what was wrong below it."""
    kinds = list(dict.fromkeys(each.damage for each in outcomes))
    table = Table(title="What comes of damage: outcomes of the next run, and counts of cases")
    table.add_column("file", no_wrap=True)
    for kind in kinds:
        table.add_column(kind, overflow="fold")
    for file in dict.fromkeys(each.file for each in outcomes):
        cells = [
            _tell(each for each in outcomes if (each.file, each.damage) == (file, kind)) for kind in kinds
        ]
        table.add_row(file, *cells)
    console.print(table)
    wrong = [each for each in outcomes if each.faults]
    for outcome in wrong:
        console.print(f"WRONG: {outcome.case} -> {outcome.result or '-'}", style="bold red", markup=False)
        for fault in outcome.faults:
            console.print(f"    {fault[:_LONGEST_FAULT]}", markup=False, soft_wrap=True)
    console.print(f"{len(outcomes):,} cases, {len(wrong):,} wrong", markup=False)


def _tell(outcomes: Iterable[Outcome]) -> str:
    counts = Counter("WRONG" if each.faults else each.result for each in outcomes)
    return "\n".join(f"{result} {count}" for result, count in counts.most_common())


def write_json(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write all outcomes, for programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(each) for each in outcomes], indent=1), encoding="utf-8")
