"""What befalls a process at a fault point, and what's noted of the points that it reaches; told by the environment.

`CRASH_DIR` is a directory of one history, `CRASH_RUN` the number of the run in it. `CRASH_AT` is a `Blow` as JSON. It
falls on the process that is the first of the run's to reach its point the n-th time, and only once in a run. Points are
counted in each process by itself.
"""

import dataclasses
import errno
import faulthandler
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilabel_dagster.base import fault_points

Act = Literal["kill", "kill_group", "terminate", "interrupt", "no_space", "io_error", "time_out"]


@dataclass(frozen=True, slots=True)
class Blow:
    """What happens at a point.

    Attributes:
        point: one of `fault_points.POINTS`.
        count: the how many-th time, from 1.
        act: what happens then.
        about: only times at which this stands in what the point is about count.
    """

    point: str
    count: int
    act: Act
    about: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a process of a run notes what it does."""

    directory: Path
    run: int

    @property
    def fired(self) -> Path:
        """There when the blow has fallen; says on which process, and about what."""
        return self.directory / f"fired-{self.run}.txt"

    @property
    def points(self) -> Path:
        """The points that were reached, each once for each process."""
        return self.directory / f"points-{self.run}.txt"

    def notes(self, step: str) -> Path:
        """A line for each row that a step was given: run, process, key."""
        return self.directory / f"notes-{step}.txt"


def read_environment() -> Environment | None:
    """Give where notes go; None outside the crash suite."""
    if "CRASH_DIR" not in os.environ:
        return None
    return Environment(Path(os.environ["CRASH_DIR"]), int(os.environ["CRASH_RUN"]))


def append(path: Path, text: str) -> None:
    """Add to a file at once, so that lines of several processes don't mix and none is lost with its process."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


class Hook:
    """Called at each fault point of this process."""

    def __init__(self, environment: Environment, blow: Blow | None) -> None:
        self._environment = environment
        self._blow = blow
        self._count = 0
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, point: str, about: str) -> None:
        with self._lock:
            if point not in self._seen:
                self._seen.add(point)
                append(self._environment.points, f"{point}\n")
            blow = self._blow
            if blow is None or point != blow.point or blow.about not in about:
                return
            self._count += 1
            if self._count != blow.count or not self._is_first(about):
                return
        _ACTS[blow.act](about)

    def _is_first(self, about: str) -> bool:
        try:
            with self._environment.fired.open("x") as file:
                file.write(f"{os.getpid()} {about}")
        except FileExistsError:
            return False
        return True


def _kill(_about: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_group(_about: str) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _terminate(_about: str) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(_about: str) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _fail(number: int) -> Callable[[str], None]:
    def fail(about: str) -> None:
        raise OSError(number, os.strerror(number), about)

    return fail


_ACTS: dict[str, Callable[[str], None]] = {
    "kill": _kill,
    "kill_group": _kill_group,
    "terminate": _terminate,
    "interrupt": _interrupt,
    "no_space": _fail(errno.ENOSPC),
    "io_error": _fail(errno.EIO),
    "time_out": _fail(errno.ETIMEDOUT),
}


def install() -> None:
    """Prepare this process, if it's one of the crash suite: the hook, and stacks on SIGUSR1."""
    environment = read_environment()
    if environment is None:
        return
    faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)
    told = json.loads(os.environ.get("CRASH_AT", "null"))
    fault_points.install(Hook(environment, Blow(**told) if told else None))


def describe(blow: Blow | None) -> str:
    """Give a blow as `CRASH_AT` takes it."""
    return json.dumps(dataclasses.asdict(blow) if blow is not None else None)
