"""How fast the ledger keeps answers and finds them: SQLite on a local disk, 1 KB each, each batch durable.

    python -m benchmarks.ledger [--once <answers>]

`make bench` runs it; `--once` measures once, with so many answers, and prints JSON alone.
"""

import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import at_least, at_most, give_verdict
from distilabel_dagster.ledger.calls import Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.responses import ResponseLedger

RESULTS = Path(__file__).parent / "results" / "ledger.json"
ROWS, BATCH, REPEATS = 100_000, 500, 3
LEAST_INSERTS_PER_S, MOST_LOOK_UP_S = 10_000, 1.0
STEP = StepInRun("partition", "ask_signature", "ask", "model", "http://127.0.0.1")
TEXT = "word " * 180


def measure(path: Path, rows: int = ROWS) -> dict[str, float]:
    """Fill a new ledger, and look all of it up."""
    keys = [hashlib.sha256(str(number).encode()).digest() for number in range(rows)]
    paid = [Paid(answer(key), STEP) for key in keys]
    with ResponseLedger(str(path)) as ledger:
        begun = time.perf_counter()
        for start in range(0, rows, BATCH):
            ledger.store(paid[start : start + BATCH])
        stored = time.perf_counter()
        found = ledger.look_up(keys)
        looked_up = time.perf_counter()
        assert len(found) == rows
        known = ledger.find_keys(keys)
        assert len(known) == rows
        ended = time.perf_counter()
    return {
        "inserts_per_s": rows / (stored - begun),
        "look_up_s": looked_up - stored,
        "find_keys_s": ended - looked_up,
    }


def answer(key: bytes) -> StoredResponse:
    response = {"choices": [{"message": {"content": TEXT}}]}
    return StoredResponse(
        key, response, "model", "http://127.0.0.1", "stop", 100, 200, 0.001, 0.5, 1, 0.0, "run"
    )


def measure_once(rows: int = ROWS) -> dict[str, float]:
    """In a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        return measure(Path(directory) / "ledger.sqlite", rows)


def main() -> int:
    if sys.argv[1:2] == ["--once"]:
        print(json.dumps(measure_once(int(sys.argv[2]))))
        return 0
    runs = [measure_once() for _ in range(REPEATS)]
    found = {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}
    goals = [
        at_least(found["inserts_per_s"], LEAST_INSERTS_PER_S, " inserts/s"),
        at_most(found["look_up_s"], MOST_LOOK_UP_S, " s"),
    ]
    told = {**found, "rows": ROWS, "batch": BATCH, "repeats": REPEATS, "met": give_verdict(goals)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**told, "singles": runs}, indent=2) + "\n")
    table = Table(title=f"Ledger, SQLite, {ROWS:,} answers of 1 KB, {BATCH} a transaction")
    for title in ("inserts/s", "target", "look-up s", "target", "whether known s"):
        table.add_column(title, justify="right")
    table.add_column("met")
    table.add_row(
        f"{found['inserts_per_s']:,.0f}",
        f"{LEAST_INSERTS_PER_S:,}",
        str(found["look_up_s"]),
        f"{MOST_LOOK_UP_S:g}",
        str(found["find_keys_s"]),
        str(told["met"]),
    )
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
