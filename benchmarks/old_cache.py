"""A cache directory that has seen much: partitions of other pipelines, and a ledger with other calls' answers.

python -m benchmarks.old_cache <directory> <partitions> <answers>
"""

import hashlib
import json
import logging
import os
import sys
import time
from pathlib import Path


def fill(directory: Path, partitions: int, answers: int) -> None:
    """Run one small pipeline with so many values of a field, and keep so many answers."""
    os.environ["BENCHMARK_DIRECTORY"] = str(directory)
    from benchmarks.ledger import BATCH, STEP, answer
    from benchmarks.workloads import build_steps
    from distilabel_dagster.ledger.calls import Paid
    from distilabel_dagster.ledger.responses import ResponseLedger
    from distilabel_dagster.pipeline import Pipeline

    cache = directory / "cache"
    for number in range(partitions):
        with Pipeline("other", cache_dir=str(cache)) as pipeline:
            build_steps(rows=10, batch=10, adds=1, added=number)
        pipeline.run()
    keys = [hashlib.sha256(f"other {number}".encode()).digest() for number in range(answers)]
    with ResponseLedger(str(cache / "ledger.sqlite")) as ledger:
        for start in range(0, answers, BATCH):
            ledger.store([Paid(answer(key), STEP) for key in keys[start : start + BATCH]])


def main() -> None:
    logging.disable(logging.WARNING)
    directory, begun = Path(sys.argv[1]), time.perf_counter()
    fill(directory, int(sys.argv[2]), int(sys.argv[3]))
    found = sum((path / "pipeline.yaml").exists() for path in (directory / "cache").iterdir())
    print(json.dumps({"partitions": found, "seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main()
