"""What the machine can do without any engine: bare pyarrow and bare aiohttp.

python -m benchmarks.limits steps <rows> <batch>
python -m benchmarks.limits http <url> <calls>
python -m benchmarks.limits burn <rows>
"""

import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.schedule import CAP
from benchmarks.texts import make_text


def write_steps(rows: int, batch: int, directory: str) -> float:
    """Four steps as loops over lists of dicts, each batch of each step a Parquet file that's on the disk; seconds."""
    begun = time.perf_counter()
    for step in range(4):
        Path(directory, str(step)).mkdir()
    for start in range(0, rows, batch):
        found: list[dict[str, Any]] = [
            {"number": number, "text": make_text(number)} for number in range(start, min(start + batch, rows))
        ]
        for step in range(4):
            found = [{**row, f"made_{step}": row["number"] + 1} for row in found]
            path = Path(directory, str(step), f"{start:09}.parquet")
            with path.with_suffix(".tmp").open("wb") as file:
                pq.write_table(pa.Table.from_pylist(found), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            path.with_suffix(".tmp").rename(path)
    return time.perf_counter() - begun


async def call(url: str, calls: int) -> float:
    """Make calls with 64 in flight; seconds."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "word " * 50}]}
    left = iter(range(calls))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CAP)) as session:

        async def work() -> None:
            for _ in left:
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    json.loads(await response.read())["choices"]

        begun = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CAP)))
        return time.perf_counter() - begun


def burn(rows: int) -> None:
    """What the step `Burn` of `workloads` does with its rows."""
    for row in range(rows):
        total = 0
        for number in range(20_000):
            total += number * row % 7


def speed_up(rows: int) -> float:
    """How much faster two processes are with some rows than one is."""
    spans = []
    for count in (1, 2):
        processes = [multiprocessing.Process(target=burn, args=(rows // count,)) for _ in range(count)]
        begun = time.perf_counter()
        for each in processes:
            each.start()
        for each in processes:
            each.join()
        spans.append(time.perf_counter() - begun)
    return spans[0] / spans[1]


if __name__ == "__main__":
    if sys.argv[1] == "burn":
        print(json.dumps({"ratio": speed_up(int(sys.argv[2]))}))
    elif sys.argv[1] == "steps":
        with tempfile.TemporaryDirectory() as directory:
            print(json.dumps({"span_s": write_steps(int(sys.argv[2]), int(sys.argv[3]), directory)}))
    else:
        print(json.dumps({"span_s": asyncio.run(call(sys.argv[2], int(sys.argv[3])))}))
