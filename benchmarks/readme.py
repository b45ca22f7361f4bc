"""Puts the figures of `results/` between the two markers of README.md: `python -m benchmarks.readme`."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.compare import COLUMNS, RESULTS, give_note

README = Path(__file__).parent / "README.md"
_TABLES = (
    (
        "calls.json",
        "Three chained tasks, by models and batch sizes:",
        ["latencies", "models", "batch_size", "ideal_s", "span_s", "ratio", "best_ratio", "target", "met"],
    ),
    ("ledger.json", "The ledger:", ["rows", "batch", "inserts_per_s", "look_up_s", "find_keys_s", "met"]),
)
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def describe(results: Path) -> str:
    """The figures as Markdown: the machine, the table and its notes, the plot, the calls and the ledger."""
    told = _read(results / "compare.json")
    parts = [_describe_machine(told["machine"]), _make_table(COLUMNS, told["rows"])]
    notes = [f"- **{row['title']}**: {note}" for row in told["rows"] if (note := give_note(row))]
    parts += ["\n".join(notes)] if notes else []
    if (results / "compare.svg").exists():
        parts.append(f"![How far each row is from its target]({results.name}/compare.svg)")
    for name, words, columns in _TABLES:
        if (results / name).exists():
            told_there = _read(results / name)
            rows = told_there if isinstance(told_there, list) else [told_there]
            headings = {column: column.replace("_", " ") for column in columns}
            parts += [words, _make_table(headings, rows)]
    return "\n\n".join(parts)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _describe_machine(machine: dict[str, Any]) -> str:
    peer = f"distilabel {machine['distilabel']}" if machine["distilabel"] else "without distilabel"
    loads = [" ".join(map(str, machine[name] or [])) for name in ("load_at_begin", "load_at_end")]
    scale = (
        "" if machine["scale"] == 1 else f" With {machine['scale']:g} of the rows: the figures mean nothing."
    )
    return (
        f"{machine['date'][:10]}, commit {machine['commit'] or 'unknown'}, {machine['cores']} cores of {machine['cpu']}, {machine['system']}, "
        f"Python {machine['python']}, pyarrow {machine['pyarrow']}, Dagster {machine['dagster']}, {peer}. "
        f"Load averages {loads[0]} at the beginning, {loads[1]} at the end.{scale}"
    )


def _make_table(columns: dict[str, str], rows: list[dict[str, Any]]) -> str:
    lines = [[*columns.values()], ["---"] * len(columns)]
    lines += [[_tell(row.get(name, "")).replace("|", "\\|") for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _tell(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, float) and value >= 1_000 else str(value)


def fill(text: str, content: str) -> str:
    """Put the content between the markers.

    Raises:
        ValueError: they aren't there, once each and in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"README.md needs the lines '{BEGIN}' and '{END}', once each")
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def main() -> int:
    if not (RESULTS / "compare.json").exists():
        print("There are no figures yet: run `make bench` first.", file=sys.stderr)
        return 1
    README.write_text(fill(README.read_text(encoding="utf-8"), describe(RESULTS)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
