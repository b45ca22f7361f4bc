"""The engines take turns: each run in a process and a cache of its own, and none twice."""

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Found, describe_singles
from benchmarks.measuring import OURS, Measured, build_command, measure_in_new_directory

LONG_S = 900.0
Tell = Callable[[list[Measured], list[Measured], list[float]], Found]


@dataclass(frozen=True)
class Work:
    """What one run does.

    Attributes:
        workload: of `benchmarks.workloads`.
        arguments: of the workload.
        again: arguments of a second run on the first one's cache, if there is one.
        is_job: whether it's `dagster job execute` on our side; the workload is `steps` then.
        timeout_s: after which a run is killed.
    """

    workload: str
    arguments: dict[str, Any]
    again: dict[str, Any] | None = None
    is_job: bool = False
    timeout_s: float = LONG_S

    def build_commands(self, python: str, engine: str) -> list[tuple[list[str], dict[str, str]]]:
        """The command lines, each with its variables."""
        runs = [self.arguments] + ([] if self.again is None else [self.again])
        if not self.is_job or engine == "peer":
            return [(build_command(python, self.workload, arguments), {}) for arguments in runs]
        dagster = str(Path(OURS).parent / "dagster")
        command = [dagster, "job", "execute", "-m", "benchmarks.startup_job", "-j", "startup_job"]
        return [(command, {"BENCHMARK_ARGUMENTS": json.dumps(arguments)}) for arguments in runs]


@dataclass
class Bench:
    """One session of measuring.

    Attributes:
        repeats: turns that each row takes, if it doesn't say otherwise.
        peer_python: the interpreter that has distilabel; None leaves the peer out.
        kept: all runs of it by work and engine, so that two rows that need the same share them.
    """

    repeats: int = 3
    peer_python: str | None = None
    kept: dict[tuple[str, str], list[list[Measured]]] = field(default_factory=dict)

    def run(self, work: Work, engine: str, turn: int) -> list[Measured]:
        """Give the runs of a turn: those that another row has had already, else new ones."""
        runs = self.kept.setdefault((repr(work), engine), [])
        if turn >= len(runs):
            python = OURS if engine == "ours" else self.peer_python
            assert python is not None
            if work.workload == "http":
                _read_server(work)  # what others have called before
            # A workload looks at its rows itself, a job doesn't.
            expected = work.arguments["rows"] if work.is_job and engine == "ours" else None
            commands = work.build_commands(python, engine)
            runs.append(measure_in_new_directory(commands, engine, work.timeout_s, expected))
            if work.workload == "http" and not runs[-1][-1].failure:
                runs[-1][-1].told.update(_read_server(work))
        return runs[turn]


@dataclass(frozen=True)
class SideBySide:
    """A row that's measured beside the peer, or beside the machine's own limit, or both.

    Attributes:
        work: what's run.
        tell: from runs of ours, of the peer, and what the limit took: the figures.
        limit: seconds that the machine's own limit takes; asked for in each turn.
        which: of the work's runs on one cache, the one that counts.
        repeats: other than usual.
        no_peer: why the peer isn't run.
        counts_timeouts: a peer that was killed for being late counts with the time it was given, which is less than what
            it would have needed.
        peer_work: what the peer runs, where that isn't the same.
    """

    work: Work
    tell: Tell
    limit: Callable[[], float] | None = None
    which: int = 0
    repeats: int | None = None
    no_peer: str = ""
    counts_timeouts: bool = False
    peer_work: Work | None = None

    def __call__(self, bench: Bench) -> Found:
        """Measure."""
        ours: list[Measured] = []
        peer: list[Measured] = []
        limit: list[float] = []
        failure = self.no_peer
        for turn in range(self.repeats or bench.repeats):
            ours.append(bench.run(self.work, "ours", turn)[self.which])
            if bench.peer_python is not None and not failure:  # what failed or hung once isn't asked again
                runs = bench.run(self.peer_work or self.work, "peer", turn)
                failure = runs[-1].failure if len(runs) <= self.which else runs[self.which].failure
                peer.append(runs[-1] if len(runs) <= self.which else runs[self.which])
            if self.limit is not None:
                limit.append(self.limit())
        ended = [run for run in peer if not run.failure or (run.is_timeout and self.counts_timeouts)]
        found = self.tell(ours, ended, limit)
        if failure:
            found["peer"] = failure
        found["runs"] = f"{len(ours)}, {len(peer)}" if peer and len(peer) != len(ours) else str(len(ours))
        found["singles"] = describe_singles(ours=ours, peer=peer) | ({"limit_s": limit} if limit else {})
        return found


def _read_server(work: Work) -> dict[str, float]:
    """The span of the calls since it was asked last, as the server saw them."""
    with urllib.request.urlopen(work.arguments["url"]) as response:
        told: dict[str, float] = json.load(response)
    return told
