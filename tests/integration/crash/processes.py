"""Process groups of runs: started, struck, and watched until the last of them has ended."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 120.0
"""A run that lasts longer hangs: undisturbed it takes some seconds, on a busy machine too."""
_LOOK_EVERY_S: Final = 0.01


@dataclass
class RunningGroup:
    """A run as a process group, whose output goes to files.

    Attributes:
        process: its main process.
        out: what it prints.
        err: its messages.
    """

    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path
    stacks: str = field(default="", init=False)

    @classmethod
    def start(
        cls, command: list[str], cwd: Path, environment: dict[str, str], output: Path
    ) -> "RunningGroup":
        out, err = output.with_suffix(".out"), output.with_suffix(".err")
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
        return cls(process, out, err)

    def signal(self, number: int, *, to_group: bool) -> None:
        """Send a signal; nothing happens to those that are gone."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if to_group else os.kill)(self.process.pid, number)

    def has_ended(self) -> bool:
        """Whether no process of the group lives, those included that the main process has left behind."""
        return self.process.poll() is not None and not find_members(self.process.pid)

    def wait(self, is_reached: Callable[[], bool], patience_s: float) -> bool:
        """Wait until something is so, or the group has ended, or the time is over; tell whether it's so."""
        deadline = time.monotonic() + patience_s
        while not is_reached():
            if self.has_ended() or time.monotonic() > deadline:
                return is_reached()
            time.sleep(_LOOK_EVERY_S)
        return True

    def finish(self) -> bool:
        """Wait for the end of all; what hangs tells where, and is killed. Tell whether it ended by itself."""
        if self.wait(self.has_ended, PATIENCE_S):
            return True
        self.signal(signal.SIGUSR1, to_group=True)
        time.sleep(2)
        self.signal(signal.SIGKILL, to_group=True)
        self.process.wait()
        self.wait(self.has_ended, PATIENCE_S)
        return False


def find_members(group: int) -> list[int]:
    """Give the living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, of_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended meanwhile
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(entry.name))
    return found
