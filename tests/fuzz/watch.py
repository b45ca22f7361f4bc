"""Looks on while a reader works: what it opens, imports, runs and connects to, as Python itself tells."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
_READABLE = tuple(
    os.path.realpath(each)
    for each in (
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        REPOSITORY / "distilabel_dagster",
        REPOSITORY / "distilabel_dagster.egg-info",
        "/proc",
        "/sys",
        "/dev",
    )
)
_REACHING_OUT = frozenset(
    {
        *(
            "os.exec",
            "os.fork",
            "os.forkpty",
            "os.posix_spawn",
            "os.spawn",
            "os.startfile",
            "os.system",
            "pty.spawn",
        ),
        *("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen"),
        *("ctypes.dlopen", "urllib.Request", "ftplib.connect", "smtplib.connect", "webbrowser.open"),
    }
)
_CHANGING = frozenset(
    {"os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"}
)


class Watch:
    """What was seen of one block: `offences` are in words, empty where there were none."""

    def __init__(self, places: tuple[str, ...]) -> None:
        self.places = places
        self.offences: list[str] = []
        self.thread = threading.get_ident()
        self.others = {each.ident for each in threading.enumerate()} - {self.thread}

    def take(self, event: str, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() in self.others:
            return  # of a thread that was there before, such as another test's run that hangs on purpose
        if event == "open":
            self._take_open(*arguments[:3])
        elif event in _REACHING_OUT and not (event == "ctypes.dlopen" and arguments[0] is None):
            self.offences.append(f"{event}: {arguments[:1]!r}")
        elif event in _CHANGING and not self._is_in(arguments[0], self.places):
            self.offences.append(f"{event}: {arguments[0]!r}")
        elif event == "exec":
            self._take_code(arguments[0])
        elif event == "import" and arguments[1] and not self._is_in(arguments[1], _READABLE):
            self.offences.append(f"import: {arguments[0]} from {arguments[1]}")

    def _take_open(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, int) or path == os.devnull:
            return
        writes = (
            bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if isinstance(flags, int)
            else "r" not in str(mode)
        )
        is_bytecode = "__pycache__" in os.fsdecode(path)
        if not self._is_in(path, self.places if writes and not is_bytecode else (*self.places, *_READABLE)):
            self.offences.append(f"open for {'writing' if writes else 'reading'}: {path!r}")

    def _take_code(self, code: Any) -> None:
        """Modules run when they're first imported, and Jinja's templates as what it makes of them."""
        file = getattr(code, "co_filename", "")
        if not file.startswith("<") and not self._is_in(file, _READABLE):
            self.offences.append(f"exec: {file}")

    @staticmethod
    def _is_in(path: Any, places: tuple[str, ...]) -> bool:
        full = os.path.realpath(os.fsdecode(path))  # of a name that leads nowhere, too: that's an attempt
        return any(full == place or full.startswith(place + os.sep) for place in places)


_active: list[Watch] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _active:
        watch.take(event, arguments)


sys.addaudithook(_hear)


@contextlib.contextmanager
def watched(*places: str | Path) -> Iterator[Watch]:
    """Fail at the end of the block if something in it reached beyond reading and writing in `places`.

    Beside these only Python's own files and this package's are read, as modules. Nothing new but installed modules may be
    imported.
    """
    watch = Watch(tuple(os.path.realpath(place) for place in places))
    _active.append(watch)
    try:
        yield watch
    finally:
        _active.remove(watch)
    assert not watch.offences, "\n".join(sorted(set(watch.offences)))
