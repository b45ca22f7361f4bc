"""All rows of the table of targets, side by side with distilabel 1.5.3 and with the machine's own limits.

    python -m benchmarks.compare [--repeats N] [--only <part of a title>] [--without-peer]

The engines take turns, in processes and caches of their own; quoted are medians, and medians of the ratios of runs that
followed each other. It prints the table, and writes `results/compare.json`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measuring import OURS, ROOT, Measured, build_command, measure_in_new_directory
from benchmarks.peer import find_python
from benchmarks.schedule import ideal_fan_out_s, ideal_span_s

RESULTS = Path(__file__).parent / "results"
_LONG_S = 900.0


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        title: what is done.
        workload: of `benchmarks.workloads`.
        arguments: of the workload.
        target: the target in words.
        tell: from runs of ours, of the peer, and what the limit took: figures by name, one of them `met`.
        limit: seconds that the machine's own limit takes; asked for each repeat.
        times: runs on one cache; the last counts.
        repeats: fewer than usual.
        has_peer: whether the peer can do it at all.
    """

    title: str
    workload: str
    arguments: dict[str, Any]
    target: str
    tell: Callable[[list[Measured], list[Measured], list[float]], dict[str, Any]]
    limit: Callable[[], float] | None = None
    times: int = 1
    repeats: int | None = None
    has_peer: bool = True


def _median(runs: list[Measured], name: str) -> float:
    return statistics.median(run.value(name) for run in runs)


def _ratio(over: list[Measured], under: list[Measured], name: str) -> float:
    return statistics.median(
        one.value(name) / other.value(name) for one, other in zip(over, under, strict=True)
    )


def tell_steps(faster: float, less_cpu: float | None = None) -> Callable[..., dict[str, Any]]:
    """So many times the peer's rows a second; optionally a fraction of its CPU."""

    def tell(ours: list[Measured], peer: list[Measured], limit: list[float]) -> dict[str, Any]:
        rows = ours[0].told["rows"]
        found = {
            "ours": f"{rows / _median(ours, 'span_s'):,.0f} rows/s, {1000 * _median(ours, 'cpu_s') / rows:.2f} cpu-s/1k",
            "limit": f"{rows / statistics.median(limit):,.0f} rows/s" if limit else "",
        }
        if peer:
            ratio, cpu = _ratio(peer, ours, "span_s"), _ratio(peer, ours, "cpu_s")
            found["peer"] = (
                f"{rows / _median(peer, 'span_s'):,.0f} rows/s, {1000 * _median(peer, 'cpu_s') / rows:.2f}"
            )
            found["ratio"] = f"{ratio:.1f}x rows/s, 1/{cpu:.0f} cpu"
            found["met"] = ratio >= faster and (less_cpu is None or cpu >= less_cpu)
        return found

    return tell


def tell_span_s(most: float) -> Callable[..., dict[str, Any]]:
    """At most so many times the limit."""

    def tell(ours: list[Measured], peer: list[Measured], limit: list[float]) -> dict[str, Any]:
        ratio = statistics.median(run.value("span_s") / each for run, each in zip(ours, limit, strict=True))
        found = {
            "ours": f"{_median(ours, 'span_s'):.2f} s",
            "limit": f"{statistics.median(limit):.2f} s",
            "ratio": f"{ratio:.3f} of ideal",
            "met": ratio <= most,
        }
        if peer:
            theirs = statistics.median(
                run.value("span_s") / each for run, each in zip(peer, limit, strict=True)
            )
            found["peer"] = f"{_median(peer, 'span_s'):.1f} s, {theirs:.1f} of ideal"
        return found

    return tell


def tell_http(ours: list[Measured], peer: list[Measured], limit: list[float]) -> dict[str, Any]:
    """Calls a second, as a share of bare aiohttp's."""
    rows = ours[0].told["rows"]
    share = statistics.median(each / run.value("span_s") for run, each in zip(ours, limit, strict=True))
    found = {
        "ours": f"{rows / _median(ours, 'span_s'):,.0f} calls/s",
        "limit": f"{rows / statistics.median(limit):,.0f} calls/s",
        "ratio": f"{share:.0%} of aiohttp",
        "met": share >= 0.6,
    }
    if peer:
        found["peer"] = f"{rows / _median(peer, 'span_s'):,.0f} calls/s"
    return found


def tell_seconds(most: float, name: str = "run_s") -> Callable[..., dict[str, Any]]:
    """At most so many seconds."""

    def tell(ours: list[Measured], peer: list[Measured], _: list[float]) -> dict[str, Any]:
        found = {
            "ours": f"{_median(ours, name):.2f} s ({_median(ours, 'total_s'):.2f} s in all)",
            "met": _median(ours, name) <= most,
        }
        if peer:
            found["peer"] = f"{_median(peer, name):.2f} s ({_median(peer, 'total_s'):.2f} s in all)"
            found["ratio"] = f"{_ratio(ours, peer, name):.2f} of the peer"
        return found

    return tell


def tell_bytes(ours: list[Measured], peer: list[Measured], _: list[float]) -> dict[str, Any]:
    """At most half of the peer's bytes."""
    found: dict[str, Any] = {"ours": f"{ours[0].cache_bytes / 1e6:.1f} MB in {ours[0].files} files"}
    if peer:
        ratio = ours[0].cache_bytes / peer[0].cache_bytes
        found |= {
            "peer": f"{peer[0].cache_bytes / 1e6:.1f} MB in {peer[0].files} files",
            "ratio": f"{ratio:.2f} of the peer",
            "met": ratio <= 0.5,
        }
    return found


def tell_total(ours: list[Measured], peer: list[Measured], _: list[float]) -> dict[str, Any]:
    """At most half of the peer's time from nothing to the end."""
    found: dict[str, Any] = {"ours": f"{_median(ours, 'total_s'):.2f} s, {_median(ours, 'cpu_s'):.1f} cpu-s"}
    if peer:
        ratio = _ratio(ours, peer, "total_s")
        found |= {
            "peer": f"{_median(peer, 'total_s'):.2f} s, {_median(peer, 'cpu_s'):.1f} cpu-s",
            "ratio": f"{ratio:.2f} of the peer",
            "met": ratio <= 0.5,
        }
    return found


def tell_memory(ours: list[Measured], peer: list[Measured], limit: list[float]) -> dict[str, Any]:
    """Peak memory of the one process."""
    told = tell_steps(0)(ours, peer, limit)
    return {**told, "ratio": f"{_median(ours, 'peak_mb'):.0f} MB", "met": _median(ours, "peak_mb") <= 600}


def run_limit(*arguments: str) -> float:
    """Seconds of a bare loop."""
    command = [OURS, "-m", "benchmarks.limits", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["span_s"])


def build_rows(url: str) -> list[Row]:
    """The table."""
    chain = {"rows": 1_000, "batch": 50}
    rows = [
        Row(
            "4 steps, 1k rows, batch 50",
            "steps",
            {"rows": 1_000, "batch": 50},
            "≥ 20x rows/s",
            tell_steps(20),
        ),
        Row(
            "4 steps, 10k rows, batch 50",
            "steps",
            {"rows": 10_000, "batch": 50},
            "≥ 20x rows/s, ≤ 1/20 cpu",
            tell_steps(20, 20),
            limit=lambda: run_limit("steps", "10000", "50"),
        ),
        Row(
            "its bytes on disk",
            "steps",
            {"rows": 10_000, "batch": 50},
            "≤ 0.5x",
            tell_bytes,
            repeats=1,
        ),
        Row(
            "4 steps, 100k rows, batch 1000",
            "steps",
            {"rows": 100_000, "batch": 1_000},
            "≥ 10x rows/s",
            tell_steps(10),
            limit=lambda: run_limit("steps", "100000", "1000"),
        ),
        Row(
            "4 steps, 100k rows, batch 50",
            "steps",
            {"rows": 100_000, "batch": 50},
            "≤ 60 s",
            tell_seconds(60, "span_s"),
            has_peer=False,
        ),
        Row(
            "4 steps, 1M rows, batch 1000",
            "steps",
            {"rows": 1_000_000, "batch": 1_000},
            "≤ 600 MB",
            tell_memory,
            has_peer=False,
            repeats=1,
        ),
    ]
    for kind, most in (("constant", 1.15), ("lognormal", 1.05)):
        rows += [
            Row(
                f"3 chained tasks, {kind}",
                "chain",
                {**chain, "kind": kind},
                f"≤ {most} of ideal",
                tell_span_s(most),
                limit=lambda kind=kind: ideal_span_s(kind, 50),  # type: ignore[misc]
            ),
            Row(
                f"fan-out to 3 tasks, {kind}",
                "fan_out",
                {**chain, "kind": kind},
                f"≤ {most} of ideal",
                tell_span_s(most),
                limit=lambda kind=kind: ideal_fan_out_s(kind),  # type: ignore[misc]
            ),
        ]
    return [
        *rows,
        Row(
            "2,000 calls by HTTP, 50 ms",
            "http",
            {"rows": 2_000, "batch": 50, "url": url},
            "≥ 60 % of aiohttp",
            tell_http,
            limit=lambda: run_limit("http", url, "2000"),
        ),
        Row(
            "finished, run again, 100k rows",
            "steps",
            {"rows": 100_000, "batch": 1_000},
            "≤ 0.5 s",
            tell_seconds(0.5),
            times=2,
        ),
        Row("start, 3 steps, 80 rows", "startup", {"rows": 80, "batch": 50}, "≤ half the total", tell_total),
        Row(
            "CPU-heavy step, 1 process",
            "burn",
            {"rows": 8_000, "batch": 50, "replicas": 1},
            "",
            tell_seconds(1e9, "span_s"),
            has_peer=False,
        ),
        Row(
            "CPU-heavy step, 2 replicas",
            "burn",
            {"rows": 8_000, "batch": 50, "replicas": 2},
            "1.8x faster",
            tell_seconds(1e9, "span_s"),
            has_peer=False,
        ),
    ]


def measure_row(row: Row, repeats: int, peer_python: str | None) -> dict[str, Any]:
    """Let the engines take turns."""
    ours, peer, limit = [], [], []
    for _ in range(row.repeats or repeats):
        ours.append(_measure(row, OURS, "ours"))
        if row.has_peer and peer_python is not None:
            peer.append(_measure(row, peer_python, "peer"))
        if row.limit is not None:
            limit.append(row.limit())
    is_late = any(run.is_timeout for run in peer)
    told = row.tell(ours, [] if is_late else peer, limit)
    if is_late:
        told["peer"] = f"not done after {_LONG_S:.0f} s"
    return {"title": row.title, "target": row.target, **told, "runs": len(ours)}


def _measure(row: Row, python: str, engine: str) -> Measured:
    workload = row.workload
    command = build_command(python, "steps" if workload == "startup" else workload, row.arguments)
    if workload == "startup" and engine == "ours":
        dagster = str(Path(OURS).parent / "dagster")
        command = [dagster, "job", "execute", "-m", "benchmarks.startup_job", "-j", "startup_job"]
    measured = measure_in_new_directory(command, engine, _LONG_S, times=row.times)[-1]
    if workload == "http" and not measured.is_timeout:
        with urllib.request.urlopen(row.arguments["url"]) as response:  # the server's own view of the calls
            measured.told.update(json.load(response))
    return measured


def print_table(results: list[dict[str, Any]]) -> None:
    """Print all rows."""
    table = Table(title="distilabel_dagster beside distilabel 1.5.3, and the machine's limit")
    for name in ("title", "ours", "peer", "limit", "ratio", "target"):
        table.add_column({"title": "work", "peer": "distilabel 1.5.3"}.get(name, name))
    table.add_column("met")
    for each in results:
        met = {True: "yes", False: "NO", None: "-"}[each.get("met")]
        table.add_row(
            *(str(each.get(name, "")) for name in ("title", "ours", "peer", "limit", "ratio", "target")), met
        )
    Console(width=160).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--without-peer", action="store_true")
    options = parser.parse_args()
    peer_python = None if options.without_peer else find_python()
    server = subprocess.Popen(
        [OURS, "-m", "benchmarks.server"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        results = []
        for row in build_rows(url):
            if options.only in row.title:
                print(f"{row.title} …", file=sys.stderr, flush=True)
                results.append(measure_row(row, options.repeats, peer_python))
    finally:
        server.communicate()
    print_table(results)
    if not options.only:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "compare.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
