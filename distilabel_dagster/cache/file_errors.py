"""What goes wrong with the cache's files, in this package's words."""

import contextlib
import errno
import sys
from collections.abc import Iterator
from typing import Any, Final

from typing_extensions import Self

from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
        *(errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG),
    }
)
_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})
_STORE_ERRORS: Final = {
    "aiohttp": ("ClientError",),
    "asyncio": ("TimeoutError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
}
_WRITES: Final = frozenset({"written", "linked"})


@contextlib.contextmanager
def explained(action: str, path: str) -> Iterator[None]:
    """Turn errors of the operating system and of stores into this package's.

    Args:
        action: what was done to it, as in "can't be written".
        path: the file, as one tells a user.

    Raises:
        CacheFullError: no space, or no quota, is left.
        CacheDirectoryError: the path or its permissions don't allow it.
        FileNotFoundError: there is no such file, for what reads.
        CacheError: anything else.
    """
    try:
        yield
    except CacheError:
        raise
    except _store_errors() as error:
        if isinstance(error, FileNotFoundError) and action not in _WRITES:
            raise
        raise _build_error(action, path, error) from error


class ExplainedFile:
    """A file open for reading, which may fail at any moment; a context manager that closes it.

    Args:
        file: the file.
        path: where it is, as one tells a user.
    """

    def __init__(self, file: Any, path: str) -> None:
        self._file = file
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether it's closed."""
        return bool(self._file.closed)

    def tell(self) -> int:
        """Give the position, in bytes from the beginning."""
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position; give it, in bytes from the beginning."""
        with explained("read", self._path):
            return int(self._file.seek(offset, whence))

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, or fewer where the file ends."""
        with explained("read", self._path):
            content: bytes = self._file.read(size)
            return content


def _build_error(action: str, path: str, error: Exception) -> CacheError:
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    what = f"{path} can't be {action}: {reason}."
    if number in _FULL:
        return CacheFullError(
            f"{what} Rows committed before are safe. Free some space (or raise the quota) and start the same run "
            "again: it goes on from there.",
            path=path,
        )
    if number in _REFUSED or isinstance(error, PermissionError | FileNotFoundError):
        return CacheDirectoryError(
            f"{what} Check the path and its permissions, or give another directory by `cache_dir=` or "
            "DISTILABEL_CACHE_DIR.",
            path=path,
        )
    if number in _TOO_MANY:
        return CacheError(
            f"{what} What was committed before stays. Let the process open more files (`ulimit -n`), or have fewer "
            "replicas and calls at the same time, and start the same run again.",
            path=path,
        )
    return CacheError(
        f"{what} What was committed before stays; check the disk, or the network and the credentials of the store, "
        "and start the same run again.",
        path=path,
    )


def _store_errors() -> tuple[type[Exception], ...]:
    """What files and stores raise; drivers of stores let some errors of the libraries below them through."""
    found: list[type[Exception]] = [OSError]
    for module, names in _STORE_ERRORS.items():
        loaded = sys.modules.get(module)
        found += [getattr(loaded, name) for name in names if hasattr(loaded, name)]
    return tuple(found)
