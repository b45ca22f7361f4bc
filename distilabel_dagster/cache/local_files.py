"""Files on a local disk that are whole or absent at any moment, a loss of power included."""

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Final

from distilabel_dagster.base.directories import make_directory, sync_directory
from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.errors import StepInUseError

Commit = Callable[[], AbstractContextManager[object]]
"""What is entered around the rename that gives a file its name."""

_NO_HARD_LINKS: Final = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP)
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
_LOOK_EVERY_S: Final = 0.05
_FENCE_PATIENCE_S: Final = 10.0
_TEMPORARY = re.compile(r"\..+\.\d+-\d+\.tmp")


def is_temporary(name: str) -> bool:
    """Tell whether a file of that name is one that a write had not finished."""
    return _TEMPORARY.fullmatch(name) is not None


class LocalFiles:
    """Changes to files below a directory that are on the disk when they return, names included.

    Args:
        root: the directory; it's made with the first file.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._durable: set[str] = set()

    def write(self, path: str, content: bytes, commit: Commit = contextlib.nullcontext) -> None:
        """Make `path` hold `content`: under a temporary name, flushed to the disk, renamed, the directory flushed."""
        temporary = _temporary_name(path)
        self._make_parents(path)
        with _removed_on_error(temporary):
            with open(temporary, "xb") as file:
                reach("file.opened", path)
                file.write(content)
                reach("file.written", path)
                file.flush()
                os.fsync(file.fileno())
            reach("file.synced", path)
            with commit():
                reach("file.fenced", path)
                os.replace(temporary, path)
        reach("file.renamed", path)
        sync_directory(os.path.dirname(path))
        reach("file.done", path)

    def append(self, path: str, content: bytes) -> None:
        """Add to the end of a file; a crash may cut the last line off. A link isn't followed: it may lead anywhere."""
        self._make_parents(path)
        with open(path, "ab", opener=_open_own) as file:
            file.write(content)

    def link(self, source: str, target: str, commit: Commit = contextlib.nullcontext) -> None:
        """Make `target` the same file as `source`; a copy where the disk has no hard links."""
        temporary = _temporary_name(target)
        self._make_parents(target)
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self.write(target, Path(source).read_bytes(), commit)
            return
        reach("link.made", target)
        with _removed_on_error(temporary), commit():
            os.replace(temporary, target)
        # Where both names were of one file already, the rename does nothing and leaves both.
        Path(temporary).unlink(missing_ok=True)
        sync_directory(os.path.dirname(target))
        reach("link.done", target)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        reach("file.removing", path)
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()
            sync_directory(os.path.dirname(path))
        reach("file.removed", path)

    def rename(self, path: str, target: str) -> None:
        """Give a file another name in its directory."""
        reach("file.setting_aside", path)
        Path(path).rename(target)
        sync_directory(os.path.dirname(target))
        reach("file.set_aside", path)

    def remove_temporary(self, directory: str, older_than_s: float) -> None:
        """Remove what interrupted writes left in a directory, as far as it's older than so many seconds."""
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if is_temporary(entry.name) and (
                    not older_than_s or time.time() - entry.stat().st_mtime > older_than_s
                ):
                    Path(entry.path).unlink(missing_ok=True)

    def _make_parents(self, path: str) -> None:
        """Make the directories above a file, and see to it that the disk has their names; once for each is enough."""
        directory = os.path.dirname(path)
        if directory in self._durable and os.path.isdir(directory):
            return
        made = make_directory(directory)
        if directory.startswith(self._root) and not made:
            # Another process may have made them a moment ago, and not come to flush them.
            above = directory
            while above != self._root:
                above = os.path.dirname(above)
                sync_directory(above)
        self._durable.add(directory)


def open_file(path: str) -> BinaryIO:
    """Open a file for reading; what's no regular file raises as a directory does, instead of waiting at a pipe for ever."""
    return open(path, "rb", opener=_open_at_once)


def _open_own(path: str, flags: int) -> int:
    return _open_at_once(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _open_at_once(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    raise IsADirectoryError(
        errno.EISDIR, os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "Not a regular file", path
    )


def iter_files(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Go through the regular files below a directory; links, which may lead anywhere or in circles, are left out."""
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(f"{place}/{name}")
                if stat.S_ISREG(info.st_mode):
                    yield f"{place}/{name}", info


@contextlib.contextmanager
def fence(directory: str, patience_s: float = _FENCE_PATIENCE_S) -> Iterator[None]:
    """Keep every other process, and thread, out of the block that fences off the same directory.

    It's a lock of the system's on the directory itself: nothing is left behind, and it ends with its process. Who is
    inside can be paused there, but for microseconds only what's renamed in the block is at stake. Where the file
    system has no locks (some network ones), and on Windows, it keeps nobody out.

    Raises:
        StepInUseError: another process was inside all the time, for `patience_s` seconds: it must be paused there.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    try:
        handle = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    try:
        until = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    break
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            if time.monotonic() > until:
                raise _build_fence_error(directory, os.fstat(handle).st_ino)
            time.sleep(_LOOK_EVERY_S)
        yield
    finally:
        os.close(handle)


def _build_fence_error(directory: str, inode: int) -> StepInUseError:
    pid = _find_lock_holder(inode)
    who = f"process {pid}" if pid else "a process"
    return StepInUseError(
        f"{directory} can't be written: {who} is in the middle of writing there and doesn't come on, so it's paused or "
        "its disk hangs. Let it go on (`kill -CONT`) or end it, then start this run again.",
        path=directory,
        key=os.path.basename(directory),
        host=None,
        pid=pid,
        since=None,
    )


def _find_lock_holder(inode: int) -> int | None:
    """Ask Linux which process has the lock on a directory; None where that can't be known."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def _temporary_name(path: str) -> str:
    directory, _, name = path.rpartition("/")
    # Numbers of processes come again, in containers with each start, and what a killed one left may still be there.
    return f"{directory}/.{name}.{os.getpid()}-{secrets.randbits(48)}.tmp"


@contextlib.contextmanager
def _removed_on_error(temporary: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        raise
