"""The pipeline's log file."""

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.engine.events import RowsFailed, StepStarted
from distilabel_dagster.pipeline.run_log import RunLog

SIGNATURE = "a" * 40


def test_two_writers_of_one_log_lose_no_line() -> None:
    """Ops of one run may be processes of their own."""
    fs = CacheFileSystem("memory://run-log-two")
    first, second = RunLog(fs, SIGNATURE), RunLog(fs, SIGNATURE)
    for number in range(3):
        first.add(StepStarted(f"a{number}"))
        second.add(StepStarted(f"b{number}"))
        first.write()
        second.write()
    lines = fs.read_bytes(layout.log_file(SIGNATURE)).decode().splitlines()
    assert [line.split("`")[1] for line in lines] == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_traceback_stands_in_the_file_only() -> None:
    fs = CacheFileSystem("memory://run-log-trace")
    log = RunLog(fs, SIGNATURE)
    event = RowsFailed("judge", 3, 1, "ValueError: no", "Traceback\n  File x\nValueError: no\n")
    log.add(event)
    log.write()
    lines = fs.read_bytes(layout.log_file(SIGNATURE)).decode().splitlines()
    assert [line.strip() for line in lines[1:]] == ["Traceback", "File x", "ValueError: no"]
    assert "Traceback" not in str(event)
