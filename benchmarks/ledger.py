"""How fast the ledger keeps answers and finds them: SQLite on a local disk, 1 KB each, each batch durable.

`make bench` runs it.
"""

import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distilabel_dagster.ledger.calls import Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.responses import ResponseLedger

RESULTS = Path(__file__).parent / "results" / "ledger.json"
ROWS, BATCH, REPEATS = 100_000, 500, 3
STEP = StepInRun("partition", "ask_signature", "ask", "model", "http://127.0.0.1")
TEXT = "word " * 180


def measure(path: Path) -> dict[str, float]:
    """Fill a new ledger, and look all of it up."""
    keys = [hashlib.sha256(str(number).encode()).digest() for number in range(ROWS)]
    paid = [Paid(answer(key), STEP) for key in keys]
    with ResponseLedger(str(path)) as ledger:
        begun = time.perf_counter()
        for start in range(0, ROWS, BATCH):
            ledger.store(paid[start : start + BATCH])
        stored = time.perf_counter()
        found = ledger.look_up(keys)
        looked_up = time.perf_counter()
        assert len(found) == ROWS
        known = ledger.find_keys(keys)
        assert len(known) == ROWS
        ended = time.perf_counter()
    return {
        "inserts_per_s": ROWS / (stored - begun),
        "look_up_s": looked_up - stored,
        "find_keys_s": ended - looked_up,
    }


def answer(key: bytes) -> StoredResponse:
    response = {"choices": [{"message": {"content": TEXT}}]}
    return StoredResponse(
        key, response, "model", "http://127.0.0.1", "stop", 100, 200, 0.001, 0.5, 1, 0.0, "run"
    )


def main() -> int:
    runs = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as directory:
            runs.append(measure(Path(directory) / "ledger.sqlite"))
    found: dict[str, Any] = {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({**found, "rows": ROWS, "batch": BATCH, "repeats": REPEATS}, indent=2) + "\n"
    )
    table = Table(title=f"Ledger, SQLite, {ROWS:,} answers of 1 KB, {BATCH} a transaction")
    for title in ("inserts/s", "target", "look-up s", "target", "whether known s"):
        table.add_column(title, justify="right")
    table.add_row(
        f"{found['inserts_per_s']:,.0f}", "20,000", str(found["look_up_s"]), "1", str(found["find_keys_s"])
    )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
