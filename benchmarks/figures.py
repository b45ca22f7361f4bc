"""From runs to the figures of a row, and whether they meet its targets."""

import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypedDict

from benchmarks.measuring import Measured


class Goal(TypedDict):
    """A figure beside its target.

    Attributes:
        value: what was found.
        target: what it should be.
        is_least: whether the target is the least it should be, else it's the most.
        unit: of both.
    """

    value: float
    target: float
    is_least: bool
    unit: str


class Found(TypedDict, total=False):
    """A row of the table; without `goals` there's nothing to meet, or nothing was measured that tells."""

    title: str
    target: str
    ours: str
    peer: str
    limit: str
    ratio: str
    runs: str
    goals: list[Goal]
    singles: dict[str, Any]


def at_least(value: float, target: float, unit: str = "") -> Goal:
    """A figure that should be large."""
    return {"value": value, "target": target, "is_least": True, "unit": unit}


def at_most(value: float, target: float, unit: str = "") -> Goal:
    """A figure that should be small."""
    return {"value": value, "target": target, "is_least": False, "unit": unit}


def is_met(goal: Goal) -> bool:
    """Whether the figure is at least, or at most, the target."""
    value, target = goal["value"], goal["target"]
    return value >= target if goal["is_least"] else value <= target


def give_verdict(goals: list[Goal]) -> str:
    """`yes`, `NO` with what is missed by how much, or `-` where there's nothing to meet."""
    if not goals:
        return "-"
    missed = [_tell_missed(goal) for goal in goals if not is_met(goal)]
    return f"NO, {', '.join(missed)}" if missed else "yes"


def _tell_missed(goal: Goal) -> str:
    """`1.23 of 1.15`, with as many digits as tell the two apart."""
    target = f"{goal['target']:,g}"
    value, unit = goal["value"], goal["unit"]
    tries = [f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}" for digits in range(3, 9)]
    told = next((each for each in tries if each != target), tries[-1])
    return f"{told} of {target}{unit}"


def give_margin(goals: list[Goal]) -> float | None:
    """How many times better than its target the worst of the figures is; None where there's no ratio to tell."""
    margins = [
        goal["value"] / goal["target"] if goal["is_least"] else goal["target"] / goal["value"]
        for goal in goals
        if goal["value"] > 0 and goal["target"] > 0
    ]
    return min(margins, default=None)


def describe_singles(**runs: list[Measured]) -> dict[str, Any]:
    """All runs by engine or kind, for the file of results."""
    return {name: [asdict(run) for run in each] for name, each in runs.items() if each}


def median(runs: list[Measured], name: str) -> float:
    """Of one figure."""
    return statistics.median(run.value(name) for run in runs)


def median_ratio(over: list[Measured], under: list[Measured], name: str) -> float:
    """Of the runs that followed each other."""
    return statistics.median(
        one.value(name) / other.value(name) for one, other in zip(over, under, strict=False)
    )


def tell_steps(faster: float | None = None, less_cpu: float | None = None) -> Callable[..., Found]:
    """So many times the peer's rows a second, and a fraction of its CPU; None for no target.

    Counted is the whole run, from its call to the Distiset: what an engine has brought to the disk by its last batch isn't
    the same for all. Beside it stand the ratios of the span, and of the process from its start to its end.
    """

    def tell(ours: list[Measured], peer: list[Measured], limit: list[float]) -> Found:
        rows = ours[0].told["rows"]
        found: Found = {
            "ours": _describe_steps(ours, rows),
            "limit": f"{rows / statistics.median(limit):,.0f} rows/s" if limit else "",
        }
        if peer:
            ratio, cpu = median_ratio(peer, ours, "run_s"), median_ratio(peer, ours, "cpu_s")
            span, total = median_ratio(peer, ours, "span_s"), median_ratio(peer, ours, "total_s")
            found["peer"] = _describe_steps(peer, rows)
            found["ratio"] = (
                f"{ratio:.1f}x rows/s (by span {span:.1f}x, in all {total:.1f}x), 1/{cpu:.1f} cpu"
            )
            found["goals"] = [at_least(ratio, faster, "x")] if faster is not None else []
            if less_cpu is not None:
                found["goals"].append(at_least(cpu, less_cpu, "x less cpu"))
        return found

    return tell


def _describe_steps(runs: list[Measured], rows: int) -> str:
    cpu_ms = 1e6 * median(runs, "cpu_s") / rows
    return f"{rows / median(runs, 'run_s'):,.0f} rows/s, {cpu_ms:,.0f} cpu-ms/1k"


def tell_span_s(most: float | None) -> Callable[..., Found]:
    """At most so many times the limit; None for no target."""

    def tell(ours: list[Measured], peer: list[Measured], limit: list[float]) -> Found:
        ratio = statistics.median(run.value("span_s") / each for run, each in zip(ours, limit, strict=True))
        found: Found = {
            "ours": f"{median(ours, 'span_s'):.2f} s ({median(ours, 'total_s'):.1f} s in all)",
            "limit": f"{statistics.median(limit):.2f} s",
            "ratio": f"{ratio:.3f} of ideal",
            "goals": [] if most is None else [at_most(ratio, most)],
        }
        if peer:
            theirs = statistics.median(
                run.value("span_s") / each for run, each in zip(peer, limit, strict=False)
            )
            found["peer"] = (
                f"{median(peer, 'span_s'):.2f} s, {theirs:.1f} of ideal ({median(peer, 'total_s'):.1f} s in all)"
            )
        return found

    return tell


def tell_http(ours: list[Measured], peer: list[Measured], limit: list[float]) -> Found:
    """Calls a second, as a share of bare aiohttp's."""
    rows = ours[0].told["rows"]
    share = statistics.median(each / run.value("span_s") for run, each in zip(ours, limit, strict=True))
    found: Found = {
        "ours": f"{rows / median(ours, 'span_s'):,.0f} calls/s",
        "limit": f"{rows / statistics.median(limit):,.0f} calls/s",
        "ratio": f"{share:.0%} of aiohttp",
        "goals": [at_least(100 * share, 60, " %")],
    }
    if peer:
        theirs = statistics.median(each / run.value("span_s") for run, each in zip(peer, limit, strict=False))
        found["peer"] = f"{rows / median(peer, 'span_s'):,.0f} calls/s, {theirs:.0%} of aiohttp"
    return found


def tell_seconds(most: float, name: str = "run_s") -> Callable[..., Found]:
    """At most so many seconds."""

    def tell(ours: list[Measured], peer: list[Measured], _: list[float]) -> Found:
        found: Found = {
            "ours": f"{median(ours, name):.2f} s ({median(ours, 'total_s'):.2f} s in all)",
            "goals": [at_most(median(ours, name), most, " s")],
        }
        if peer:
            found["peer"] = f"{median(peer, name):.2f} s ({median(peer, 'total_s'):.2f} s in all)"
            found["ratio"] = f"{median_ratio(ours, peer, name):.2f} of the peer"
        return found

    return tell


def tell_disk(ours: list[Measured], peer: list[Measured], _: list[float]) -> Found:
    """At most half of the peer's bytes in the cache; files and what was written beside it."""
    found: Found = {"ours": _describe_disk(ours)}
    if peer:
        ratios = [median_ratio(ours, peer, name) for name in ("cache_bytes", "files", "written_bytes")]
        found["peer"] = _describe_disk(peer)
        found["ratio"] = "{:.2f} bytes, {:.2f} files, {:.3f} written".format(*ratios)
        found["goals"] = [at_most(ratios[0], 0.5, " of the bytes")]
    return found


def _describe_disk(runs: list[Measured]) -> str:
    size, files, written = (median(runs, name) for name in ("cache_bytes", "files", "written_bytes"))
    return f"{size / 1e6:.1f} MB in {files:,.0f} files, {written / 1e6:,.0f} MB written"


def tell_total(ours: list[Measured], peer: list[Measured], _: list[float]) -> Found:
    """At most half of the peer's time from nothing to the end; one that never ended took longer than it was given."""
    found: Found = {"ours": f"{median(ours, 'total_s'):.2f} s, {median(ours, 'cpu_s'):.1f} cpu-s"}
    if peer:
        ratio = median_ratio(ours, peer, "total_s")
        bound = "< " if any(run.is_timeout for run in peer) else ""
        found["peer"] = f"{median(peer, 'total_s'):.2f} s, {median(peer, 'cpu_s'):.1f} cpu-s"
        found["ratio"] = f"{bound}{ratio:.2f} of the peer"
        found["goals"] = [at_most(ratio, 0.5)]
    return found


def tell_memory(ours: list[Measured], peer: list[Measured], limit: list[float]) -> Found:
    """Peak memory of the one process."""
    found = tell_steps(0)(ours, peer, limit)
    peak = median(ours, "peak_mb")
    return {**found, "ratio": f"{peak:.0f} MB", "goals": [at_most(peak, 600, " MB")]}
