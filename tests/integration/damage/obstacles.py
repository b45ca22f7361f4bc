"""Files that are there and can't be read, and work that's given up when it hangs."""

import builtins
import ctypes
import errno
import faulthandler
import io
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from tests.integration.damage.damages import Obstacle

_T = TypeVar("_T")
_CAP_VERSION = 0x20080522
_OVERRIDES_PERMISSIONS = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


class HungError(Exception):
    """It didn't come to an end."""


def run_in_time(work: Callable[[], _T], patience_s: float) -> _T:
    """Do something in a thread of its own, in which permissions count for root too.

    Raises:
        HungError: it isn't done in time; where all threads are then is on standard error.
    """
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        give_up_privilege()
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            failed.append(error)

    thread = threading.Thread(target=run, name="trial", daemon=True)
    thread.start()
    thread.join(patience_s)
    if thread.is_alive():
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        raise HungError(f"not done in {patience_s:.0f} s")
    if failed:
        raise failed[0]
    return done[0]


def give_up_privilege() -> None:
    """Have this thread, and those that it starts, obey permissions even as root. Linux only."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~_OVERRIDES_PERMISSIONS  # the effective ones, of the first 32
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


@contextmanager
def standing_before(obstacle: Obstacle | None, path: Path, names: Collection[Path]) -> Iterator[None]:
    """Have a file that can't be read for the length of the block.

    Args:
        obstacle: what hinders it, if anything does.
        path: the file.
        names: all its names.
    """
    if obstacle == "permission":
        mode = path.stat().st_mode
        path.chmod(0)
        try:
            yield
        finally:
            if path.exists():
                path.chmod(mode)
    elif obstacle == "io error":
        with _failing_reads(path, names):
            yield
    else:
        yield


@contextmanager
def _failing_reads(path: Path, names: Collection[Path]) -> Iterator[None]:
    """Have the system fail when the file is read, as a broken disk does; opening it goes well."""
    inode = path.stat().st_ino

    def wrap(real: Any) -> Any:
        def opened(file: Any, *args: Any, **kwargs: Any) -> Any:
            made = real(file, *args, **kwargs)
            is_read = isinstance(file, str | os.PathLike) and getattr(made, "readable", lambda: False)()
            # Numbers of files come again, so the name counts too.
            if is_read and Path(file) in names and os.fstat(made.fileno()).st_ino == inode:
                return _BrokenFile(made)
            return made

        return opened

    with (
        mock.patch("io.open", wrap(io.open)),
        mock.patch("builtins.open", wrap(builtins.open)),
        mock.patch("pathlib.Path.open", wrap(Path.open)),
    ):
        yield


class _BrokenFile:
    """A file that can be opened, and not read."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_BrokenFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, *_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), self._file.name)

    readline = readinto = readall = read
