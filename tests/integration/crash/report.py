"""The table of a batch of histories, for people and as JSON."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distilabel_dagster.base.fault_points import POINTS
from tests.integration.crash.findings import KINDS
from tests.integration.crash.history import Outcome

_TITLES = {
    "lost": "rows lost",
    "doubled": "rows doubled",
    "wrong": "wrong",
    "hung": "hung",
    "paid_twice": "calls paid twice",
}


def sum_up(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Give a line for each pipeline and store: histories, kills, and what was found of each kind."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for outcome in outcomes:
        key = (outcome.plan.pipeline, outcome.plan.store)
        zeros: dict[str, Any] = dict.fromkeys(("histories", "kills", "calls_on_the_wire", *KINDS), 0)
        line = lines.setdefault(key, {"pipeline": key[0], "store": key[1], **zeros})
        line["histories"] += 1
        line["kills"] += outcome.kills
        line["calls_on_the_wire"] += outcome.calls_on_the_wire
        for finding in outcome.findings:
            line[finding.kind] += finding.count
    return [lines[key] for key in sorted(lines)]


def find_unreached(outcomes: list[Outcome]) -> tuple[list[str], list[str]]:
    """Give the points that no run has passed, and those at which none was struck."""
    reached = {point for outcome in outcomes for point in outcome.reached}
    struck: Counter[str] = sum((outcome.struck for outcome in outcomes), Counter())
    return [each for each in POINTS if each not in reached], [each for each in POINTS if each not in struck]


def is_clean(outcomes: list[Outcome]) -> bool:
    """Tell whether no history has shown anything."""
    return not any(outcome.findings for outcome in outcomes)


def show(outcomes: list[Outcome], console: Console) -> None:
    """Print the table, the points that weren't reached, and each finding with what runs it again."""
    table = Table(title="Histories of kills")
    for name in ("pipeline", "store"):
        table.add_column(name)
    for name in ("histories", "kills", *_TITLES.values(), "calls on the wire"):
        table.add_column(name, justify="right")
    lines = sum_up(outcomes)
    columns = ("histories", "kills", *_TITLES, "calls_on_the_wire")
    for line in lines:
        table.add_row(line["pipeline"], line["store"], *(str(line[name]) for name in columns))
    table.add_section()
    table.add_row("all", "", *(str(sum(line[name] for line in lines)) for name in columns))
    console.print(table)
    unreached, unstruck = find_unreached(outcomes)
    console.print(f"Points never reached: {', '.join(unreached) or 'none'}")
    console.print(f"Points at which no run was struck: {', '.join(unstruck) or 'none'}")
    for outcome in outcomes:
        for finding in outcome.findings:
            console.print(
                f"python -m tests.integration.crash {outcome.plan}: {finding}", markup=False, soft_wrap=True
            )


def write_json(outcomes: list[Outcome], path: Path) -> None:
    """Write the table, the points and the findings."""
    unreached, unstruck = find_unreached(outcomes)
    told = {
        "lines": sum_up(outcomes),
        "points_unreached": unreached,
        "points_unstruck": unstruck,
        "findings": [
            {"history": str(outcome.plan), "kind": finding.kind, "what": finding.what, "count": finding.count}
            for outcome in outcomes
            for finding in outcome.findings
        ],
    }
    path.write_text(json.dumps(told, indent=2) + "\n")
