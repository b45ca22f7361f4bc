"""Rows of the table in which distilabel has no part: promises of ours that are measured against ourselves."""

import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Found, Goal, at_least, at_most, describe_singles, median
from benchmarks.measuring import OURS, ROOT, Measured, build_command, measure, run_module
from benchmarks.turns import LONG_S, Bench, Work
from distilabel_dagster.base.fault_points import POINTS

_MORE_TURNS = 5
"""For what is over in seconds, and told by a difference or by a ratio that's close to 1."""


def measure_dagsters_share(bench: Bench) -> Found:
    """CPU that a step costs more in Dagster: that of 20 steps less that of 2, less the same without Dagster."""
    small, large = 2, 20
    works = {
        (is_job, steps): Work(
            "steps", {"rows": 80, "batch": 50, "adds": steps - 2} | _columns(steps), is_job=is_job
        )
        for steps in (small, large)
        for is_job in (True, False)
    }
    shares = []
    for turn in range(bench.repeats):
        cpu = {each: bench.run(work, "ours", turn)[0].cpu_s for each, work in works.items()}
        in_dagster, alone = (cpu[is_job, large] - cpu[is_job, small] for is_job in (True, False))
        shares.append((in_dagster - alone) / (large - small))
    runs = {
        each: [bench.run(work, "ours", turn)[0] for turn in range(bench.repeats)]
        for each, work in works.items()
    }
    in_job, in_run = (median(runs[is_job, large], "cpu_s") for is_job in (True, False))
    share = statistics.median(shares)
    return {
        "ours": f"{1000 * share:.0f} cpu-ms a step; 20 steps {in_job:.1f} cpu-s, without Dagster {in_run:.1f}",
        "goals": [at_most(share, 0.1, " cpu-s")],
        "runs": str(bench.repeats),
        "singles": describe_singles(
            **{f"{'job' if is_job else 'run'}_{steps}": found for (is_job, steps), found in runs.items()}
        ),
    }


def _columns(steps: int) -> dict[str, Any]:
    return {"columns": ["number", "text"]} if steps == 2 else {}


def build_replicas(rows: int, run_bare: Callable[[], float]) -> Callable[[Bench], Found]:
    """The span of a step that computes, with one process and with two in turn.

    Args:
        rows: how many there are.
        run_bare: gives how much faster two bare processes do such work than one.
    """

    def measure_replicas(bench: Bench) -> Found:
        one, two = (Work("burn", {"rows": rows, "batch": 50, "replicas": replicas}) for replicas in (1, 2))
        runs, bare = [], []
        for turn in range(bench.repeats):
            runs.append((bench.run(one, "ours", turn)[0], bench.run(two, "ours", turn)[0]))
            bare.append(run_bare())
        ratio = statistics.median(alone.value("span_s") / both.value("span_s") for alone, both in runs)
        ones, twos = ([pair[index] for pair in runs] for index in (0, 1))
        return {
            "ours": f"1: {median(ones, 'span_s'):.2f} s, 2: {median(twos, 'span_s'):.2f} s",
            "limit": f"{statistics.median(bare):.2f}x",
            "ratio": f"{ratio:.2f}x",
            "goals": [at_least(ratio, 1.8, "x")],
            "runs": str(len(runs)),
            "singles": describe_singles(one=ones, two=twos) | {"bare": bare},
        }

    return measure_replicas


def build_growth(nothing: Work, works: list[tuple[Work, int]]) -> Callable[[Bench], Found]:
    """CPU of `Pipeline.run` a row as the rows grow, without what a run of next to none takes.

    Args:
        nothing: a run with next to no rows.
        works: the runs, smallest first, each with the turns that other rows of the table give it; 0 takes more.
    """

    def measure_growth(bench: Bench) -> Found:
        def take(work: Work, turns: int) -> list[Measured]:
            return [
                bench.run(work, "ours", turn)[0] for turn in range(turns or max(bench.repeats, _MORE_TURNS))
            ]

        start = take(nothing, 0)
        runs = [take(work, min(turns, bench.repeats)) for work, turns in works]
        base = median(start, "run_cpu_s")
        per_1k = [
            1000 * (median(each, "run_cpu_s") - base) / work.arguments["rows"]
            for each, (work, _) in zip(runs, works, strict=True)
        ]
        peaks = [median(each, "peak_mb") for each in runs]
        found: Found = {
            "ours": f"{' / '.join(f'{1000 * each:.1f}' for each in per_1k)} cpu-ms/1k; "
            f"{' / '.join(f'{each:.0f}' for each in peaks)} MB",
            "goals": [at_most(max(peaks), 600, " MB")],
            "runs": ", ".join(str(len(each)) for each in runs),
            "singles": describe_singles(
                nothing=start,
                **{
                    f"rows_{work.arguments['rows']}": each
                    for each, (work, _) in zip(runs, works, strict=True)
                },
            ),
        }
        if per_1k[0] > 0:
            off = max((each / per_1k[0] - 1 for each in per_1k[1:]), key=abs)
            found["ratio"] = f"{100 * off:+.0f} % a row, at the most"
            found["goals"].insert(0, at_most(abs(100 * off), 20, " %"))
        else:
            found["ratio"] = "too few rows to tell"
        return found

    return measure_growth


def build_old_caches(partitions: int, answers: int) -> Callable[[Bench], Found]:
    """A small run in a new cache directory, and in one with other pipelines' partitions and answers, in turn."""

    def measure_old_caches(bench: Bench) -> Found:
        old = Path(tempfile.mkdtemp(prefix="benchmark-old-"))
        try:
            made = run_module("benchmarks.old_cache", str(old), str(partitions), str(answers))
            if made["partitions"] != partitions:
                raise RuntimeError(f"{made['partitions']} partitions were made, {partitions} were wanted")
            turns = max(bench.repeats, _MORE_TURNS)
            runs = [(_run_small(turn, None), _run_small(turn, old)) for turn in range(turns)]
        finally:
            shutil.rmtree(old, ignore_errors=True)
        ratio = statistics.median(in_old.value("run_s") / in_new.value("run_s") for in_new, in_old in runs)
        news, olds = ([pair[index] for pair in runs] for index in (0, 1))
        return {
            "ours": f"new {median(news, 'run_s'):.2f} s, old {median(olds, 'run_s'):.2f} s",
            "ratio": f"{ratio:.3f}x",
            "goals": [at_most(ratio, 1.1, "x")],
            "runs": str(turns),
            "singles": describe_singles(new=news, old=olds),
        }

    return measure_old_caches


def _run_small(turn: int, old: Path | None) -> Measured:
    """Three tasks, 80 rows, whose calls take no time, and which no run before has asked for."""
    directory = old or Path(tempfile.mkdtemp(prefix="benchmark-"))
    arguments = {"rows": 80, "batch": 50, "kind": "instant", "words": f"turn {turn}"}
    try:
        return measure(build_command(OURS, "chain", arguments), directory, "ours", LONG_S)
    finally:
        (directory / "span").unlink(missing_ok=True)
        if old is None:
            shutil.rmtree(directory, ignore_errors=True)


def build_kills(histories: int) -> Callable[[Bench], Found]:
    """Runs that are killed at random moments and run again: what was lost, doubled, wrong, hung or paid twice."""

    def measure_kills(_: Bench) -> Found:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "kills.json"
            command = [OURS, "-m", "tests.integration.crash", "--histories", str(histories), "--workers", "4"]
            done = subprocess.run(
                [*command, "--json", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
            )
            if not path.exists():  # its exit code also tells of moments that so few histories haven't met
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            told = json.loads(path.read_text())
        return tell_kills(told)

    return measure_kills


def tell_kills(told: dict[str, Any]) -> Found:
    """From what `tests.integration.crash` has found."""
    kinds = {
        "lost": "rows lost",
        "doubled": "rows doubled",
        "wrong": "wrong",
        "hung": "hung",
        "paid_twice": "calls paid twice",
    }
    sums = {
        name: sum(line[name] for line in told["lines"])
        for name in ("histories", "kills", "calls_on_the_wire", *kinds)
    }
    found = {name: sums[name] for name in kinds if sums[name]}
    struck = len(POINTS) - len(told.get("points_unstruck", []))
    return {
        "ours": f"{sums['histories']} histories, {sums['kills']} kills at {struck} of {len(POINTS)} moments, "
        f"{sums['calls_on_the_wire']} calls lost on the wire; {', '.join(f'{count} {kinds[name]}' for name, count in found.items()) or 'nothing lost, doubled, wrong, hung or paid twice'}",
        "goals": [at_most(sums[name], 0, f" {what}") for name, what in kinds.items()],
        "runs": str(sums["histories"]),
        "singles": told,
    }


def build_ledger(
    answers: int, name: str, goal: Callable[[float], Goal], words: str
) -> Callable[[Bench], Found]:
    """One figure of the ledger: `inserts_per_s`, or `look_up_s`."""

    def measure_ledger(bench: Bench) -> Found:
        work = Work("ledger", {"rows": answers})
        runs = bench.kept.setdefault((repr(work), "ours"), [])
        while len(runs) < bench.repeats:
            told = run_module("benchmarks.ledger", "--once", str(answers))
            runs.append([Measured(0.0, 0.0, 0.0, told, 0, 0)])
        value = statistics.median(run.value(name) for (run,) in runs)
        return {
            "ours": words.format(value),
            "goals": [goal(value)],
            "runs": str(len(runs)),
            "singles": {"ours": [asdict(run) for (run,) in runs]},
        }

    return measure_ledger
