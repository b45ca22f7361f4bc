"""All rows of the table of targets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.alone import (
    build_growth,
    build_kills,
    build_ledger,
    build_old_caches,
    build_replicas,
    measure_dagsters_share,
)
from benchmarks.figures import (
    Found,
    at_least,
    at_most,
    tell_disk,
    tell_http,
    tell_memory,
    tell_seconds,
    tell_span_s,
    tell_steps,
    tell_total,
)
from benchmarks.ledger import LEAST_INSERTS_PER_S, MOST_LOOK_UP_S
from benchmarks.measuring import run_module
from benchmarks.schedule import ideal_fan_out_s, ideal_span_s
from benchmarks.turns import Bench, SideBySide, Work

_TOO_LONG = "left out: 5 minutes a run"
_RESUME_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        title: what is done.
        target: the target in words.
        measure: gives the figures.
    """

    title: str
    target: str
    measure: Callable[[Bench], Found]


def run_limit(*arguments: Any) -> float:
    """Seconds of a bare loop."""
    return float(run_module("benchmarks.limits", *map(str, arguments))["span_s"])


def build_rows(url: str, scale: float = 1.0) -> list[Row]:
    """The table.

    Args:
        url: of the server that answers calls.
        scale: a fraction of the rows, to see whether everything works; the figures mean nothing then.
    """
    return [
        *_build_steps(scale),
        *_build_calls(url, scale),
        *_build_starts(),
        *_build_promises(scale),
    ]


def _scaled(number: int, scale: float) -> int:
    return max(1, round(number * scale))


def _steps(rows: int, batch: int, scale: float) -> dict[str, Any]:
    return {"rows": _scaled(rows, scale), "batch": batch}


def _tell_always(span_s: float) -> Callable[[], float]:
    return lambda: span_s


def _run_replicas(rows: int) -> Callable[[], float]:
    return lambda: float(run_module("benchmarks.limits", "burn", str(rows))["ratio"])


def _run_twice(scale: float) -> Work:
    """100k rows, and the same again: two rows of the table."""
    arguments = _steps(100_000, 1_000, scale)
    return Work("steps", arguments, again=arguments)


def _build_steps(scale: float) -> list[Row]:
    def limit(rows: int, batch: int) -> Callable[[], float]:
        return lambda: run_limit("steps", _scaled(rows, scale), batch)

    in_50s = Work("steps", _steps(10_000, 50, scale))
    in_1000s = _run_twice(scale)
    million = Work("steps", _steps(1_000_000, 1_000, scale))
    return [
        Row(
            "4 steps, 1k rows, batch 50",
            "",
            SideBySide(Work("steps", _steps(1_000, 50, scale)), tell_steps(), limit(1_000, 50)),
        ),
        Row(
            "4 steps, 10k rows, batch 50",
            "≥ 20x rows/s, ≤ 1/20 cpu",
            SideBySide(in_50s, tell_steps(20, 20), limit(10_000, 50)),
        ),
        Row("its bytes, files and volume written", "≤ 0.5x bytes", SideBySide(in_50s, tell_disk)),
        Row(
            "4 steps, 100k rows, batch 1000",
            "≥ 10x rows/s",
            SideBySide(in_1000s, tell_steps(10), limit(100_000, 1_000)),
        ),
        Row("its finished run again", "≤ 0.5 s + imports", SideBySide(in_1000s, tell_seconds(0.5), which=1)),
        Row(
            "4 steps, 100k rows, batch 50",
            "≤ 60 s",
            SideBySide(
                Work("steps", _steps(100_000, 50, scale)), tell_seconds(60, "span_s"), no_peer=_TOO_LONG
            ),
        ),
        Row(
            "4 steps, 1M rows, batch 1000",
            "≤ 600 MB",
            SideBySide(million, tell_memory, repeats=1, no_peer=_TOO_LONG),
        ),
        Row(
            "growth: 10k, 100k, 1M rows, batch 1000",
            "cpu a row ±20 %, ≤ 600 MB",
            build_growth(
                Work("steps", {"rows": 10, "batch": 1_000}),
                [(Work("steps", _steps(10_000, 1_000, scale)), 0), (in_1000s, 99), (million, 1)],
            ),
        ),
    ]


def _build_calls(url: str, scale: float) -> list[Row]:
    chain = _steps(1_000, 50, scale)
    rows = []
    for kind, most in (("constant", 1.15), ("lognormal", 1.05)):
        chain_s = ideal_span_s(kind, 50, rows=chain["rows"])
        fan_out_s = ideal_fan_out_s(kind, rows=chain["rows"])
        for title, workload, ideal_s in (
            ("3 chained tasks", "chain", chain_s),
            ("fan-out to 3 tasks", "fan_out", fan_out_s),
        ):
            work = Work(workload, {**chain, "kind": kind})
            measure = SideBySide(work, tell_span_s(most), limit=_tell_always(ideal_s))
            rows.append(Row(f"{title}, {kind}", f"≤ {most} of ideal", measure))
    # It has as many calls in flight as a batch has rows, so this is where it has most of them.
    large = Work("chain", {**_steps(1_000, 500, scale), "kind": "constant"})
    rows.append(
        Row(
            "the same chain, constant, distilabel at batch 500",
            "",
            SideBySide(
                Work("chain", {**chain, "kind": "constant"}),
                tell_span_s(None),
                limit=_tell_always(ideal_span_s("constant", 50, rows=chain["rows"])),
                peer_work=large,
            ),
        )
    )
    calls = _scaled(2_000, scale)
    work = Work("http", {"rows": calls, "batch": 50, "url": url})
    return [
        *rows,
        Row(
            "2,000 calls by HTTP, 50 ms",
            "≥ 60 % of aiohttp",
            SideBySide(work, tell_http, lambda: run_limit("http", url, calls)),
        ),
    ]


def _build_starts() -> list[Row]:
    small = {"rows": 80, "batch": 50, "adds": 1}
    resumed = Work(
        "steps",
        small,
        again={**small, "columns": ["number", "text"]},
        is_job=True,
        timeout_s=_RESUME_TIMEOUT_S,
    )
    return [
        Row(
            "start, 3 steps, 80 rows",
            "≤ half the total",
            SideBySide(Work("steps", small, is_job=True), tell_total, counts_timeouts=True),
        ),
        Row(
            "resume, 3 steps, 80 rows, the last one changed",
            "≤ half the total",
            SideBySide(resumed, tell_total, which=1, counts_timeouts=True),
        ),
        Row("Dagster's share: a job of 20 steps less one of 2", "≤ 0.1 cpu-s a step", measure_dagsters_share),
    ]


def _build_promises(scale: float) -> list[Row]:
    answers = _scaled(100_000, scale)
    return [
        Row(
            "CPU-heavy step, 2 replicas beside 1",
            "≥ 1.8x faster",
            build_replicas(_scaled(20_000, scale), _run_replicas(_scaled(4_000, scale))),
        ),
        Row(
            "small run in an old cache beside a new one",
            "≤ 1.1x",
            build_old_caches(_scaled(300, scale), _scaled(200_000, scale)),
        ),
        Row("kill -9, and run again", "all end, 0 lost or doubled", build_kills(_scaled(24, scale))),
        Row(
            "ledger: keeping answers",
            f"≥ {LEAST_INSERTS_PER_S:,} inserts/s",
            build_ledger(
                answers,
                "inserts_per_s",
                lambda value: at_least(value, LEAST_INSERTS_PER_S, " inserts/s"),
                "{:,.0f} inserts/s, durable",
            ),
        ),
        Row(
            "ledger: 100k answers found by key",
            f"≤ {MOST_LOOK_UP_S:g} s",
            build_ledger(
                answers, "look_up_s", lambda value: at_most(value, MOST_LOOK_UP_S, " s"), "{:.2f} s"
            ),
        ),
    ]
