"""Who a process is, so that another one can tell whether it still lives."""

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
_DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, told apart from later ones with its number and from equal numbers elsewhere.

    Attributes:
        host: where process numbers mean the same: the host's name, and in brackets the id of its boot (else of
            the machine) and of its process namespace. Containers have namespaces of their own, so two that share
            a name, an image or a kernel still differ; so does a machine from itself before it was started anew.
        pid: number of the process.
        start: clock ticks from boot to the process's start; empty where the system doesn't tell (only Linux does).
    """

    host: str
    pid: int
    start: str

    @property
    def host_name(self) -> str:
        """The host as people call it."""
        return self.host.partition(" [")[0]

    def is_surely_dead(self) -> bool:
        """Tell whether the process is known to be gone; False wherever that can't be known from here."""
        if self.host != current_host() or os.name != "posix":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it's there, and belongs to someone else
        found = _read_stat(self.pid)
        if found is None:
            return False
        state, start = found
        return state in _DEAD_STATES or bool(self.start and start != self.start)


def current_process() -> ProcessIdentity:
    """Identify this process; after a fork, the child."""
    found = _read_stat(os.getpid())
    return ProcessIdentity(host=current_host(), pid=os.getpid(), start=found[1] if found else "")


def current_host() -> str:
    """Identify what this process's number is a number in."""
    machine = _read_line(_BOOT_ID) or _read_line(_MACHINE_ID)
    try:
        namespace = str(_PID_NAMESPACE.readlink())
    except OSError:
        namespace = ""
    told = " ".join(part for part in (machine, namespace) if part)
    return f"{socket.gethostname()} [{told}]" if told else socket.gethostname()


def read_uptime() -> float:
    """Seconds for which this machine has been awake since it was started, the same for all of its processes.

    Nobody can set this clock, and while it stands, since the machine is asleep, none of its processes gets on.
    """
    return time.monotonic()


def read_elapsed() -> float:
    """Seconds on a clock that nobody can set and that goes on while this machine is asleep, where it has one."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def _read_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _read_stat(pid: int) -> tuple[str, str] | None:
    """State and start of a process; None where /proc is missing, hidden, or of another namespace."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115 (compared as text)
            return None
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses and may itself hold any character.
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]
