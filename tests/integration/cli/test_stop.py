"""The installed command, stopped as a user and as an operating system stop it."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from distilabel_dagster.cli.signals import SignalWatch
from distilabel_dagster.distiset import create_distiset
from tests.integration.cli.conftest import STEPS_MODULE, Command, build_pipeline, read_runs, start

_RUN = ("pipeline", "run", "--config", "pipeline.yaml", "--trusted-module", STEPS_MODULE)
_PATIENCE_S = 90


@pytest.fixture
def env(workspace: Path, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "SEEN": str(tmp_path / "seen"), "BATCH_S": "0.3"}


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "distilabel_cache"


def wait_until_something_is_committed(process: subprocess.Popen[str], cache_dir: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not list(cache_dir.glob("steps_data/shout_*/?????.parquet")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_is_canceled_and_goes_on(
    env: dict[str, str],
    cache_dir: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    process = start(*_RUN, env=env)
    wait_until_something_is_committed(process, cache_dir)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 128 + number, err
    assert "Stop requested (" in err  # by the signal's name, unless Dagster was storing a result when it came
    assert "Step `shout`: stop received" in err
    assert "Traceback" not in err
    assert "Distiset" not in out
    (run,) = read_runs(cache_dir / ".dagster")
    assert run.status == dg.DagsterRunStatus.CANCELED

    monkeypatch.setenv("SEEN", env["SEEN"])
    code, _, err = command(*_RUN)
    assert code == 0, err
    assert "Load pipeline from cache; done: `load` (40 rows); left: `shout`" in err.splitlines()[0]
    assert [run.status for run in read_runs(cache_dir / ".dagster")] == [
        dg.DagsterRunStatus.CANCELED,
        dg.DagsterRunStatus.SUCCESS,
    ]
    rows = create_distiset(cache_dir / build_pipeline().signature)["shout"]["train"]
    assert rows["loud"] == [f"T{i}!" for i in range(40)]
    assert Counter(Path(env["SEEN"]).read_text().split()) == Counter(f"t{i}" for i in range(40))


def test_terminal_has_a_bar_per_step_while_it_runs(env: dict[str, str]) -> None:
    shown = "".join(read_terminal(*_RUN, env={**env, "BATCH_S": "0.1", "TERM": "xterm", "COLUMNS": "100"}))
    assert "\x1b[?25l" in shown  # the cursor is hidden while bars move, and comes back
    assert "\x1b[?25h" in shown
    bars = [line for line in shown.splitlines() if "━" in line and "shout" in line]
    assert any("rows/s" in line and " 40 rows" not in line for line in bars), bars[-3:]
    assert " 40 rows" in bars[-1]
    assert "Start pipeline: 2 steps" in shown
    assert "RUN_START" not in shown
    assert shown.index("Distiset({") > shown.rindex("━")


def read_terminal(*arguments: str, env: dict[str, str]) -> Iterator[str]:
    """Run the installed command on a terminal of its own, and give what that shows."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("distilabel-dagster")), *arguments]
    with subprocess.Popen(
        command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        with closing(os.fdopen(ours, "rb", buffering=0)) as terminal:
            try:
                while content := terminal.read(65536):
                    yield content.decode("utf-8", "replace")
            except OSError:  # how Linux says that nobody is at the other end any more
                pass
        assert process.wait(_PATIENCE_S) == 0


def test_watch_notes_the_first_signal_whoever_handles_it() -> None:
    came = threading.Event()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with SignalWatch(came.set) as watch:
        signal.signal(signal.SIGTERM, lambda *_: None)  # as the engine does, and Dagster
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.raise_signal(signal.SIGTERM)
        assert came.wait(_PATIENCE_S)
        signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, before[1])
    assert watch.number == signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert signal.set_wakeup_fd(-1) == -1
