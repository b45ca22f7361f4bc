"""The cache's files, on a local disk or any fsspec store: durable, atomic, whole or absent."""

import contextlib
import datetime as dt
import errno
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.core import url_to_fs

from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError, DamagedFileError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
        *(errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG),
    }
)
_STORE_ERRORS: Final = {
    "aiohttp": ("ClientError",),
    "asyncio": ("TimeoutError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
}
_FLAT: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci"})
_WRITES: Final = frozenset({"written", "linked"})
_TEMPORARY = re.compile(r"\..+\.\d+-\d+\.tmp")
_counter = itertools.count()


@contextlib.contextmanager
def _explained(action: str, path: str) -> Iterator[None]:
    """Turn errors of the operating system and of stores into this package's."""
    try:
        yield
    except CacheError:
        raise
    except _store_errors() as error:
        if isinstance(error, FileNotFoundError) and action not in _WRITES:
            raise
        number = getattr(error, "errno", None)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if number in _FULL:
            raise CacheFullError(
                f"{path} can't be {action}: {reason}. Rows committed before are safe. Free some space (or "
                "raise the quota) and start the same run again: it goes on from there.",
                path=path,
            ) from error
        if number in _REFUSED or isinstance(error, PermissionError | FileNotFoundError):
            raise CacheDirectoryError(
                f"{path} can't be {action}: {reason}. Check the path and its permissions, or give another "
                "directory by `cache_dir=` or DISTILABEL_CACHE_DIR.",
                path=path,
            ) from error
        raise CacheError(
            f"{path} can't be {action}: {reason}. What was committed before stays; check the disk, or the network and "
            "the credentials of the store, and start the same run again.",
            path=path,
        ) from error


def _store_errors() -> tuple[type[Exception], ...]:
    """What files and stores raise; drivers of stores let some errors of the libraries below them through."""
    found: list[type[Exception]] = [OSError]
    for module, names in _STORE_ERRORS.items():
        loaded = sys.modules.get(module)
        found += [getattr(loaded, name) for name in names if hasattr(loaded, name)]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file: its path below the root, its size, and when it was written (seconds since 1970; 0 if unknown)."""

    path: str
    size_bytes: int
    modified_at: float


def _modified(info: Mapping[str, Any]) -> float:
    """When a file was written, by the word that its store has for it."""
    value = next((info[key] for key in ("mtime", "LastModified", "updated", "created") if info.get(key)), 0)
    return float(value.timestamp() if isinstance(value, dt.datetime) else value)


class CacheFileSystem:
    """Files below one root directory, named by relative paths with `/`.

    A written file is whole or absent at any moment, power loss included: on a local disk it's written under a
    temporary name, flushed to the disk and renamed; in an object store it's a single PUT. Writing the same file twice
    is safe. Nothing here locks: who may write is decided above.

    Args:
        url: local path (`~` is expanded) or fsspec URL of the root.
        storage_options: passed to fsspec, such as credentials or an endpoint.

    Raises:
        CacheDirectoryError: no such protocol, or its driver isn't installed.
    """

    def __init__(self, url: str | Path, storage_options: Mapping[str, Any] | None = None) -> None:
        text = str(url)
        options = dict(storage_options or {})
        try:
            self._fs: Any
            if "://" not in text:
                self._fs, self.root = fsspec.filesystem("file"), str(Path(text).expanduser().absolute())
            else:
                self._fs, self.root = url_to_fs(text, **options)
        except (ValueError, ImportError) as error:
            raise CacheDirectoryError(
                f"The cache directory `{text}` can't be used: {error}. Give a local path or an fsspec URL whose "
                "driver is installed (for S3: `pip install 'distilabel-dagster[s3]'`).",
                path=text,
            ) from error
        self.root = self.root.rstrip("/")
        self.storage_options = options
        protocol = self._fs.protocol
        self.protocol: str = protocol if isinstance(protocol, str) else protocol[0]
        self.is_local = self.protocol in ("file", "local")
        self.url = self.root if self.is_local else f"{self.protocol}://{self.root.lstrip('/')}"

    def __reduce__(self) -> tuple[Any, ...]:
        return CacheFileSystem, (self.url, self.storage_options)

    def full_path(self, path: str) -> str:
        """Absolute path or URL of `path`, for messages and metadata."""
        return f"{self.url}/{path}" if path else self.url

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def read_bytes(self, path: str) -> bytes:
        """Read a whole file.

        Raises:
            FileNotFoundError: there is none.
            DamagedFileError: there is something that can't be read as a file.
        """
        try:
            with _explained("read", self.full_path(path)):
                if self.is_local:
                    return Path(self._path(path)).read_bytes()
                content: bytes = self._fs.cat_file(self._path(path))
                return content
        except CacheDirectoryError as error:
            raise DamagedFileError(str(error), path=self.full_path(path)) from error

    def open_input(self, path: str) -> Any:
        """Open a file for reading at any position; a context manager.

        Raises:
            FileNotFoundError: there is none.
        """
        with _explained("read", self.full_path(path)):
            if self.is_local:
                return Path(self._path(path)).open("rb")
            return self._fs.open(self._path(path), "rb")

    def write_bytes(self, path: str, content: bytes) -> None:
        """Make `path` hold `content`, atomically and durably; directories above it are made.

        Raises:
            CacheFullError: no space is left; the file is as it was before.
            CacheDirectoryError: writing isn't allowed there.
        """
        with _explained("written", self.full_path(path)):
            if self.is_local:
                _write_local(self._path(path), content)
            else:
                self._make_parents(path)
                self._fs.pipe_file(self._path(path), content)

    def _make_parents(self, path: str) -> None:
        # Where keys are flat there are none, and some drivers would make a bucket of a mistyped name.
        if self.protocol not in _FLAT:
            self._fs.makedirs(self._path(path).rpartition("/")[0], exist_ok=True)

    def append_bytes(self, path: str, content: bytes) -> None:
        """Add to the end of a file, for logs: several processes may, and a crash may leave the last line cut off.

        Raises:
            CacheError: it can't be written.
        """
        with _explained("written", self.full_path(path)):
            if self.is_local:
                Path(self._path(path)).parent.mkdir(parents=True, exist_ok=True)
                with open(self._path(path), "ab") as file:  # noqa: PTH123 (as in `_write_local`)
                    file.write(content)
                return
        try:
            before = self.read_bytes(path)
        except FileNotFoundError:
            before = b""
        self.write_bytes(path, before + content)

    def link(self, source: str, target: str) -> None:
        """Make `target` the same file as `source`, atomically: a hard link on a local disk, a copy in the store."""
        with _explained("linked", self.full_path(target)):
            if not self.is_local:
                self._make_parents(target)
                self._fs.cp_file(self._path(source), self._path(target))
                return
            temporary = _temporary_name(self._path(target))
            Path(temporary).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self._path(source), temporary)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
                    raise
                _write_local(self._path(target), Path(self._path(source)).read_bytes())
                return
            _replace(temporary, self._path(target))

    def is_same_file(self, source: str, target: str) -> bool:
        """Tell whether `target` already is what `link(source, target)` would make."""
        try:
            if self.is_local:
                ours, theirs = Path(self._path(source)).stat(), Path(self._path(target)).stat()
                if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
                    return True
                return ours.st_size == theirs.st_size and self.read_bytes(source) == self.read_bytes(target)
            self._fs.invalidate_cache()
            infos = [self._fs.info(self._path(path)) for path in (source, target)]
            sizes, tags = ([info.get(key) for info in infos] for key in ("size", "ETag"))
            if sizes[0] != sizes[1] or (tags[0] is not None and tags[0] == tags[1]):
                return bool(sizes[0] == sizes[1])
            return bool(self._fs.cat_file(self._path(source)) == self._fs.cat_file(self._path(target)))
        except FileNotFoundError:
            return False

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or directory."""
        with _explained("looked at", self.full_path(path)):
            if self.is_local:
                return Path(self._path(path)).exists()
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path(path)))

    def list_names(self, path: str) -> list[str]:
        """Names in a directory, sorted, temporary files left out; none where there is no directory."""
        with _explained("listed", self.full_path(path)):
            try:
                if self.is_local:
                    names = os.listdir(self._path(path))  # noqa: PTH208 (names only; Path objects cost on big caches)
                else:
                    self._fs.invalidate_cache()
                    names = [
                        entry["name"].rstrip("/").rpartition("/")[2]
                        for entry in self._fs.ls(
                            self._path(path), detail=True
                        )  # the default isn't the same in all
                    ]
            except FileNotFoundError:
                return []
        return sorted(name for name in names if name and not _TEMPORARY.fullmatch(name))

    def list_files(self, path: str) -> list[FileInfo]:
        """Describe all files below a directory, by path, temporary files left out; none where there is no directory."""
        with _explained("listed", self.full_path(path)):
            if not self.is_local:
                self._fs.invalidate_cache()
            try:
                found = self._fs.find(self._path(path), detail=True)
            except FileNotFoundError:
                return []
        return [
            FileInfo(each.removeprefix(self.root).lstrip("/"), int(info.get("size") or 0), _modified(info))
            for each, info in sorted(found.items())
            if not _TEMPORARY.fullmatch(each.rpartition("/")[2])
        ]

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with _explained("removed", self.full_path(path)), contextlib.suppress(FileNotFoundError):
            if self.is_local:
                Path(self._path(path)).unlink()
            else:
                self._fs.rm_file(self._path(path))

    def remove_all(self) -> None:
        """Remove the root directory with all that's in it; nothing happens where there is none."""
        with _explained("removed", self.url), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self.root, recursive=True)

    def set_aside(self, path: str, suffix: str) -> str:
        """Rename a file that can't be used so that it's kept and never read as data; give its new path."""
        target = next(
            name
            for number in itertools.count()
            if not self.exists(name := f"{path}{suffix}" + (f"-{number}" if number else ""))
        )
        with _explained("set aside", self.full_path(path)):
            if self.is_local:
                Path(self._path(path)).rename(self._path(target))
            else:
                self._fs.mv(self._path(path), self._path(target), recursive=True)
        return target

    def remove_temporary_files(self, path: str, older_than_s: float = 0.0) -> None:
        """Remove what interrupted writes left in a directory.

        Args:
            path: the directory.
            older_than_s: leave younger ones; a write that is on takes much less than a minute. 0 is for a
                directory's one writer only.
        """
        if not self.is_local:
            return
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._path(path)):
                is_temporary = _TEMPORARY.fullmatch(entry.name) is not None
                if is_temporary and (not older_than_s or time.time() - entry.stat().st_mtime > older_than_s):
                    Path(entry.path).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Make the root directory and prove that a file can be written there.

        Raises:
            CacheDirectoryError: it can't be made or written; said before any work.
            CacheFullError: no space is left.
        """
        probe = f".{os.getpid()}-{next(_counter)}.probe"
        self.write_bytes(probe, b"")
        self.remove(probe)


def _temporary_name(path: str) -> str:
    directory, _, name = path.rpartition("/")
    return f"{directory}/.{name}.{os.getpid()}-{next(_counter)}.tmp"


def _write_local(path: str, content: bytes) -> None:
    temporary = _temporary_name(path)
    Path(temporary).parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:  # noqa: PTH123 (the same as Path.open, without building the Path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        raise
    _replace(temporary, path)


def _replace(temporary: str, path: str) -> None:
    """Rename, and flush the directory so that the new name survives a power loss."""
    try:
        os.replace(temporary, path)  # noqa: PTH105 (atomic on POSIX and Windows alike, with plain strings)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "posix":
        directory = os.open(path.rpartition("/")[0], os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
