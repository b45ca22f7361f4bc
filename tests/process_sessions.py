"""The processes of a session, as Linux lists them: what a process that was started in one has left behind."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A living process: its number, its parent's, and its command line."""

    pid: int
    parent: int
    command: str

    @property
    def is_tracker(self) -> bool:
        """Whether it's the helper in which multiprocessing counts semaphores."""
        return "resource_tracker" in self.command


def list_session(session: int) -> list[Process]:
    """Give the living processes of a session, in the order of their numbers."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ends while it's looked at
            state, parent, _, of_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of_session) == session and state not in "ZX":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(Process(int(entry.name), int(parent), command))
    return sorted(found, key=lambda each: each.pid)


def wait_for_empty_session(session: int, patience_s: float) -> float:
    """Wait until a session has no process any more; give the seconds that took."""
    begun = time.monotonic()
    while left := list_session(session):
        assert time.monotonic() - begun < patience_s, f"left behind: {left}"
        time.sleep(0.05)
    return time.monotonic() - begun


@contextmanager
def killed_afterwards(session: int) -> Iterator[None]:
    """Kill what is left of a session at the end of the block."""
    try:
        yield
    finally:
        for each in list_session(session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
