"""The benchmarks' own arithmetic, on made-up runs, and one real run of the smallest size."""

import importlib.util
import json
import os
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import readme
from benchmarks.alone import build_growth, measure_dagsters_share, tell_kills
from benchmarks.compare import COLUMNS, give_note, list_cells, measure_row, print_table, write_results
from benchmarks.figures import (
    Found,
    at_least,
    at_most,
    give_margin,
    give_verdict,
    tell_disk,
    tell_http,
    tell_span_s,
    tell_steps,
    tell_total,
)
from benchmarks.measuring import Measured, count_rows, measure, run_module
from benchmarks.notes import NOTES
from benchmarks.plot import draw
from benchmarks.rows import Row, build_rows
from benchmarks.turns import Bench, SideBySide, Work
from benchmarks.workloads import BUILDERS
from distilabel_dagster.base.fault_points import POINTS

MACHINE: dict[str, Any] = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "1234567",
    "cores": 2,
    "cpu": "a CPU",
    "system": "a system",
    "python": "3.11",
    "pyarrow": "26",
    "dagster": "1.13",
    "distilabel": "1.5.3",
    "load_at_begin": [0.1, 0.2, 0.3],
    "load_at_end": [1.0, 1.1, 1.2],
    "scale": 1.0,
}
LATE = Measured(120.0, 0.0, 0.0, {}, 0, 0, failure="not done after 120 s", is_timeout=True)


def made_up(span_s: float = 1.0, cpu_s: float = 1.0, rows: int = 1_000, **more: Any) -> Measured:
    run = Measured(
        span_s + 1,
        cpu_s,
        100.0,
        {"rows": rows, "span_s": span_s, "run_s": span_s, "run_cpu_s": cpu_s},
        1_000,
        10,
        500,
    )
    return replace(run, **more)


class MadeUpBench(Bench):
    """Has runs by work instead of making them."""

    def __init__(self, runs: dict[str, Measured], **more: Any) -> None:
        super().__init__(**more)
        self.made_up = runs
        self.asked: list[str] = []

    def run(self, work: Work, engine: str, turn: int) -> list[Measured]:
        name = f"{engine} {work.arguments['rows']}{' job' * work.is_job}{' ' + str(work.arguments.get('adds', ''))}"
        self.asked.append(engine)
        return [self.made_up[name.strip()]]


def test_a_verdict_says_by_how_much_a_target_is_missed() -> None:
    assert give_verdict([]) == "-"
    assert give_verdict([at_most(1.15, 1.15), at_least(20, 20)]) == "yes"
    assert give_verdict([at_most(1.234, 1.15)]) == "NO, 1.23 of 1.15"
    assert give_verdict([at_most(1.15002, 1.15)]) == "NO, 1.15002 of 1.15"
    assert give_verdict([at_least(18.2, 20, "x"), at_least(30, 20, "x")]) == "NO, 18.2 of 20x"
    assert give_verdict([at_least(8_765.4, 10_000, "/s")]) == "NO, 8,765 of 10,000/s"
    assert give_verdict([at_most(2, 0, " rows lost")]) == "NO, 2 of 0 rows lost"


def test_a_margin_is_that_of_the_worst_figure() -> None:
    assert give_margin([at_least(40, 20), at_most(0.5, 0.25)]) == pytest.approx(0.5)
    assert give_margin([at_most(0, 0)]) is None
    assert give_margin([]) is None


def test_ratios_are_those_of_runs_that_followed_each_other() -> None:
    ours, peer = [made_up(1.0), made_up(2.0), made_up(4.0)], [made_up(30.0), made_up(50.0), made_up(80.0)]
    found = tell_steps(20)(ours, peer, [0.5, 0.5, 0.5])
    assert found["ratio"] == "25.0x rows/s (by span 25.0x, in all 16.2x), 1/1.0 cpu"
    assert found["ours"].startswith("500 rows/s")
    assert found["limit"] == "2,000 rows/s"
    assert give_verdict(found["goals"]) == "yes"
    assert give_verdict(tell_steps(20, 20)(ours, peer, [])["goals"]) == "NO, 1 of 20x less cpu"
    assert "goals" not in tell_steps(20)(ours, [], [])


def test_what_is_held_against_a_limit() -> None:
    assert give_verdict(tell_span_s(1.15)([made_up(1.3)], [], [1.0])["goals"]) == "NO, 1.3 of 1.15"
    assert give_verdict(tell_http([made_up(2.0)], [made_up(10.0)], [1.0])["goals"]) == "NO, 50 of 60 %"


def test_the_disk_tells_bytes_files_and_what_was_written() -> None:
    found = tell_disk([made_up()], [made_up(cache_bytes=4_000, files=20, written_bytes=5_000_000)], [])
    assert found["ratio"] == "0.25 bytes, 0.50 files, 0.000 written"
    assert found["peer"].endswith("in 20 files, 5 MB written")
    assert give_verdict(found["goals"]) == "yes"


def test_a_peer_that_hangs_is_told_and_not_asked_again() -> None:
    bench = MadeUpBench({"ours 80": made_up(), "peer 80": LATE}, repeats=3, peer_python="python")
    work = Work("steps", {"rows": 80})
    found = SideBySide(work, tell_total, counts_timeouts=True)(bench)
    assert (found["peer"], found["runs"]) == ("not done after 120 s", "3, 1")
    assert found["ratio"] == "< 0.02 of the peer"
    assert bench.asked == ["ours", "peer", "ours", "ours"]
    assert "goals" not in SideBySide(work, tell_steps(20))(bench)


def test_a_peer_that_is_left_out_says_why() -> None:
    bench = MadeUpBench({"ours 80": made_up()}, repeats=1, peer_python="python")
    found = SideBySide(Work("steps", {"rows": 80}), tell_steps(20), no_peer="takes too long")(bench)
    assert (found["peer"], bench.asked) == ("takes too long", ["ours"])


def test_growth_is_told_without_the_start() -> None:
    runs = {
        "ours 10": made_up(cpu_s=2.0),
        "ours 1000": made_up(cpu_s=2.5),
        "ours 10000": made_up(cpu_s=7.5, peak_mb=700.0),
        "ours 100000": made_up(cpu_s=42.0),
    }
    works = [(Work("steps", {"rows": rows}), 1) for rows in (1_000, 10_000, 100_000)]
    found = build_growth(Work("steps", {"rows": 10}), works)(MadeUpBench(runs, repeats=1))
    assert found["ratio"] == "-20 % a row, at the most"
    assert found["ours"] == "500.0 / 550.0 / 400.0 cpu-ms/1k; 100 / 700 / 100 MB"
    assert give_verdict(found["goals"]) == "NO, 700 of 600 MB"


def test_dagsters_share_is_what_is_left_of_a_steps_cpu() -> None:
    cpu = {"ours 80 18": 3.0, "ours 80 0": 2.1, "ours 80 job 18": 6.6, "ours 80 job 0": 3.9}
    bench = MadeUpBench({name: made_up(cpu_s=each) for name, each in cpu.items()}, repeats=2)
    found = measure_dagsters_share(bench)
    assert found["goals"] == [at_most(pytest.approx(0.1), 0.1, " cpu-s")]


def test_kills_are_met_only_if_nothing_is_found() -> None:
    line = dict.fromkeys(("lost", "doubled", "wrong", "hung", "paid_twice"), 0)
    line |= {"histories": 6, "kills": 20, "calls_on_the_wire": 3}
    clean = tell_kills({"lines": [line, line], "points_unstruck": ["call.answered"]})
    assert clean["ours"].startswith(
        f"12 histories, 40 kills at {len(POINTS) - 1} of {len(POINTS)} moments, 6 calls"
    )
    assert give_verdict(clean["goals"]) == "yes"
    harmed = tell_kills({"lines": [line, {**line, "lost": 2}]})
    assert give_verdict(harmed["goals"]) == "NO, 2 of 0 rows lost"
    assert "2 rows lost" in harmed["ours"]


def test_a_run_of_a_work_is_shared_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def run(commands: Any, engine: str, timeout_s: float, expected_rows: int | None) -> list[Measured]:
        made.append(engine)
        return [made_up() for _ in commands]

    monkeypatch.setattr("benchmarks.turns.measure_in_new_directory", run)
    bench, work = Bench(peer_python="python"), Work("steps", {"rows": 1}, again={"rows": 1})
    assert len(bench.run(work, "ours", 0)) == 2
    assert bench.run(work, "ours", 0) is bench.run(Work("steps", {"rows": 1}, again={"rows": 1}), "ours", 0)
    bench.run(work, "ours", 1)
    bench.run(work, "peer", 0)
    assert made == ["ours", "ours", "peer"]


def test_the_table_has_each_title_once_and_only_known_workloads() -> None:
    rows = build_rows("http://127.0.0.1:1/v1")
    titles = [row.title for row in rows]
    assert len(titles) == len(set(titles))
    assert set(NOTES) <= set(titles)
    works = [row.measure.work for row in rows if isinstance(row.measure, SideBySide)]
    assert {work.workload for work in works} <= set(BUILDERS)


def test_a_row_that_fails_says_so_and_is_not_met(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(bench: Bench) -> Found:
        raise RuntimeError("it failed:\nthe last line")

    found = measure_row(Row("a title", "a target", fail), Bench())
    assert found["ours"] == "failed: the last line"
    assert list_cells(found)[-2] == "NO, failed"
    assert "a title" in capsys.readouterr().err


def test_notes_are_printed_below_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(NOTES, "a title", "the reason")
    print_table([{"title": "a title", "ours": "1 s", "goals": [at_most(1.0, 0.5, " s")]}])
    printed = capsys.readouterr().out
    assert "NO, 1 of 0.5 s" in printed
    assert printed.rstrip().endswith("a title: the reason")


def made_up_rows() -> list[Found]:
    return [
        {"title": "good", "target": "≥ 20x", "ours": "1 | 2", "runs": "3", "goals": [at_least(25, 20, "x")]},
        {"title": "bad", "target": "≤ 1.15", "ours": "3", "runs": "3", "goals": [at_most(1.23, 1.15)]},
        {"title": "none", "target": "", "ours": "4", "runs": "1"},
    ]


def test_the_readme_is_filled_from_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NOTES, "bad", "the reason")
    results = tmp_path / "results"
    write_results(results, MACHINE, made_up_rows())
    (results / "compare.svg").touch()
    ledger = {"rows": 1, "batch": 1, "inserts_per_s": 2, "look_up_s": 3, "find_keys_s": 4, "met": "yes"}
    (results / "ledger.json").write_text(json.dumps(ledger))
    old = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    filled = readme.fill(old, readme.describe(results))
    assert filled.startswith(f"before\n{readme.BEGIN}\n")
    assert filled.endswith(f"{readme.END}\nafter\n")
    assert "old" not in filled
    assert "2026-01-02, commit 1234567, 2 cores of a CPU" in filled
    assert "| good | 1 \\| 2 |" in filled
    assert "NO, 1.23 of 1.15" in filled
    assert "- **bad**: the reason" in filled
    assert "(results/compare.svg)" in filled
    assert "| 1 | 1 | 2 | 3 | 4 | yes |" in filled
    assert readme.fill(filled, readme.describe(results)) == filled
    with pytest.raises(ValueError, match="once each"):
        readme.fill("no markers", "")


def test_the_readme_there_is_has_its_place_for_results() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert "figures" in readme.fill(text, "figures")
    assert "```bash\nmake bench\n.venv/bin/python -m benchmarks.readme\n```" in text


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib isn't installed")
def test_the_plot_has_a_bar_for_each_row_with_a_target(tmp_path: Path) -> None:
    assert draw(made_up_rows(), tmp_path / "plot.svg")
    root = ET.parse(tmp_path / "plot.svg").getroot()
    assert root.tag.endswith("svg")
    text = (tmp_path / "plot.svg").read_text()
    assert text.count("#2b7a4b") == text.count("#b5372f") == 1
    assert not draw([made_up_rows()[2]], tmp_path / "none.svg")


def test_a_failure_of_ours_is_an_error_and_one_of_the_peer_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('it broke')"]
    assert measure(command, tmp_path, "peer", 60, may_fail=True).failure == "failed: it broke"
    with pytest.raises(RuntimeError, match="it broke"):
        measure(command, tmp_path, "ours", 60)
    late = measure([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, "peer", 0.2)
    assert late.is_timeout
    assert late.failure == "not done after 0 s"


def test_engines_keep_their_compiled_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = "import json, sys; print(json.dumps({'is_off': sys.dont_write_bytecode}))"
    assert measure([sys.executable, "-c", code], tmp_path, "ours", 60).told == {"is_off": False}


def test_a_row_of_a_hundred_rows_is_measured() -> None:
    row = Row("tiny", "≥ 20x", SideBySide(Work("steps", {"rows": 100, "batch": 50}), tell_steps(20)))
    found = measure_row(row, Bench(repeats=1))
    assert dict(zip(COLUMNS, list_cells(found), strict=True))["met"] == "-"
    (run,) = found["singles"]["ours"]
    assert run["told"]["rows"] == 100
    assert 0 < run["told"]["span_s"] < run["total_s"]
    assert run["cpu_s"] > 0
    assert run["peak_mb"] > 10
    assert run["files"] >= 8
    assert run["cache_bytes"] > 1_000
    assert run["written_bytes"] >= 0


def test_moments_of_all_processes_are_counted() -> None:
    work = Work("burn", {"rows": 20, "batch": 10, "replicas": 2})
    (run,) = Bench(repeats=1).run(work, "ours", 0)
    assert run.told["notes"] == 4, "two batches made in this process, two computed in others"


def test_a_row_that_is_not_met_says_why_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NOTES, "known", "the reason")
    missed: Found = {"title": "known", "goals": [at_most(2, 1)]}
    assert give_note(missed) == "the reason"
    assert give_note({**missed, "title": "unknown"}) == "why isn't known"
    assert give_note({"title": "unknown", "runs": "0"}) == "why isn't known"
    assert give_note({"title": "known", "goals": [at_most(1, 1)]}) == ""


def test_two_bare_processes_do_the_work_of_one() -> None:
    assert run_module("benchmarks.limits", "burn", "20")["ratio"] > 0


def test_the_rows_that_a_job_leaves_are_counted(tmp_path: Path) -> None:
    for number, rows in enumerate((7, 3)):
        leaf = tmp_path / str(number) / "data" / "keep"
        leaf.mkdir(parents=True)
        pq.write_table(pa.table({"n": range(rows)}), leaf / "00001.parquet")
        os.utime(leaf.parent, (number, number))
    assert count_rows(tmp_path) == 3
