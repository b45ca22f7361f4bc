"""The cache's files, on a local disk or any fsspec store: durable, atomic, whole or absent."""

import contextlib
import datetime as dt
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.core import url_to_fs

from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.cache.confinement import check_links, check_relative, check_url
from distilabel_dagster.cache.file_errors import ExplainedFile, explained
from distilabel_dagster.cache.local_files import (
    Commit,
    LocalFiles,
    fence,
    is_temporary,
    iter_files,
    open_file,
)
from distilabel_dagster.errors import CacheDirectoryError, DamagedFileError, StepInUseError

_PROBE: Final = ".probe"
_UNFINISHED_FOR_S: Final = 60.0
_FLAT: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci"})
_TRIES_OF_DRIVER: Final = 2
"""Its own five would make one of a store that doesn't answer take half an hour to be told."""

_UNKNOWN_TO_STORE: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest"})


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
        CacheDirectoryError: no such protocol, its driver isn't installed, or the URL holds a password.
    """

    def __init__(self, url: str | Path, storage_options: Mapping[str, Any] | None = None) -> None:
        text = str(url)
        options = dict(storage_options or {})
        check_url(text)
        try:
            self._fs: Any
            if "://" not in text:
                self._fs, self.root = fsspec.filesystem("file"), str(Path(text).expanduser().absolute())
            else:
                # What a listing says of a file's size is old as soon as another process writes that anew.
                unlisted = {"use_listings_cache": False} if text.partition("://")[0] in _FLAT else {}
                self._fs, self.root = url_to_fs(text, **{**unlisted, **options})
                if hasattr(self._fs, "retries"):  # s3fs: of what botocore has tried five times already
                    self._fs.retries = _TRIES_OF_DRIVER
        except (ValueError, ImportError, OSError, RuntimeError) as error:
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
        self._local = LocalFiles(self.root)
        self.url = self.root if self.is_local else f"{self.protocol}://{self.root.lstrip('/')}"

    def __reduce__(self) -> tuple[Any, ...]:
        return CacheFileSystem, (self.url, self.storage_options)

    def full_path(self, path: str) -> str:
        """Absolute path or URL of `path`, for messages and metadata."""
        return f"{self.url}/{path}" if path else self.url

    def _path(self, path: str, *, follows_last: bool = True) -> str:
        """The path as the file system below takes it; checked to lead nowhere else."""
        check_relative(path)
        if self.is_local:
            check_links(self.root, path, follows_last=follows_last)
        return f"{self.root}/{path}" if path else self.root

    def read_bytes(self, path: str) -> bytes:
        """Read a whole file.

        Raises:
            FileNotFoundError: there is none.
            DamagedFileError: there is something that can't be read as a file.
        """
        try:
            with explained("read", self.full_path(path)):
                if self.is_local:
                    with open_file(self._path(path)) as file:
                        return file.read()
                content: bytes = self._fs.cat_file(self._path(path))
                return content
        except CacheDirectoryError as error:
            raise DamagedFileError(str(error), path=self.full_path(path)) from error

    def open_input(self, path: str) -> ExplainedFile:
        """Open a file for reading at any position; a context manager, whose own errors are of this package too.

        Raises:
            FileNotFoundError: there is none.
            CacheDirectoryError: it's no file, or one that may not be read.
        """
        full = self.full_path(path)
        with explained("read", full):
            if self.is_local:
                return ExplainedFile(open_file(self._path(path)), full)
            return ExplainedFile(self._fs.open(self._path(path), "rb"), full)

    def write_bytes(
        self, path: str, content: bytes, *, is_new: bool = False, commit: Commit = contextlib.nullcontext
    ) -> None:
        """Make `path` hold `content`, atomically and durably; directories above it are made.

        Args:
            path: the file.
            content: all that it's to hold.
            is_new: whether there's no such file, so that a store refuses where another writer made it meanwhile. Stores
                that can't tell write in any case.
            commit: entered around the moment at which the file appears: what its entry makes sure of is still so then
                on a local disk, and was a moment before in a store.

        Raises:
            CacheFullError: no space is left; the file is as it was before.
            CacheDirectoryError: writing isn't allowed there.
            StepInUseError: `is_new`, and it's there, with other content.
        """
        with explained("written", self.full_path(path)):
            if self.is_local:
                self._local.write(self._path(path, follows_last=False), content, commit)
                return
            self._make_parents(path)
            with commit():
                reach("put.sending", path)
                self._put(path, content, is_new=is_new)
            reach("put.sent", path)

    def _put(self, path: str, content: bytes, *, is_new: bool) -> None:
        if not is_new:
            self._fs.pipe_file(self._path(path), content)
            return
        try:
            self._fs.pipe_file(self._path(path), content, mode="create")
        except FileExistsError:
            pass
        except Exception as error:
            code = _store_code(error)
            if code in _UNKNOWN_TO_STORE or isinstance(error, NotImplementedError):
                self._fs.pipe_file(self._path(path), content)
                return
            if code != "PreconditionFailed":
                raise
        else:
            return
        # The driver may have sent it twice: the first answer was lost on the way, and the second finds the first's.
        if self.read_bytes(path) != content:
            raise StepInUseError(
                f"{self.full_path(path)} was written by another run a moment ago. Only one process at a time may write a "
                "step: wait until the other has ended, then start this run again. Give both the same `ledger_url=`, so "
                "that they see each other.",
                path=self.full_path(path),
                key=path,
                host=None,
                pid=None,
                since=None,
            )

    def _make_parents(self, path: str) -> None:
        # Where keys are flat there are none, and some drivers would make a bucket of a mistyped name.
        if self.protocol not in _FLAT:
            self._fs.makedirs(self._path(path).rpartition("/")[0], exist_ok=True)

    def append_bytes(self, path: str, content: bytes) -> None:
        """Add to the end of a file, for logs: several processes may, and a crash may leave the last line cut off.

        Raises:
            CacheError: it can't be written.
        """
        with explained("written", self.full_path(path)):
            if self.is_local:
                self._local.append(self._path(path), content)
                return
        try:
            before = self.read_bytes(path)
        except FileNotFoundError:
            before = b""
        self.write_bytes(path, before + content)

    def link(self, source: str, target: str, *, commit: Commit = contextlib.nullcontext) -> None:
        """Make `target` the same file as `source`, atomically: a hard link on a local disk, a copy in the store.

        Args:
            source: the file.
            target: its other name.
            commit: as in `write_bytes`.
        """
        with explained("linked", self.full_path(target)):
            if not self.is_local:
                self._make_parents(target)
                with commit():
                    reach("put.sending", target)
                    self._fs.cp_file(self._path(source), self._path(target))
                reach("put.sent", target)
                return
            self._local.link(self._path(source), self._path(target, follows_last=False), commit)

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
        with explained("looked at", self.full_path(path)):
            if self.is_local:
                return Path(self._path(path)).exists()
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path(path)))

    def list_names(self, path: str) -> list[str]:
        """Names in a directory, sorted, temporary files left out; none where there is no directory."""
        with explained("listed", self.full_path(path)):
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
        return sorted(name for name in names if name and not is_temporary(name))

    def list_files(self, path: str) -> list[FileInfo]:
        """Describe all files below a directory, by path, temporary files left out; none where there is no directory."""
        with explained("listed", self.full_path(path)):
            if self.is_local:
                found = {each: (info.st_size, info.st_mtime) for each, info in iter_files(self._path(path))}
            else:
                found = self._find(path)
        return [
            FileInfo(each.removeprefix(self.root).lstrip("/"), size_bytes, modified_at)
            for each, (size_bytes, modified_at) in sorted(found.items())
            if not is_temporary(each.rpartition("/")[2])
        ]

    def _find(self, path: str) -> dict[str, tuple[int, float]]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._path(path), detail=True)
        except FileNotFoundError:
            return {}
        return {each: (int(info.get("size") or 0), _modified(info)) for each, info in found.items()}

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with explained("removed", self.full_path(path)), contextlib.suppress(FileNotFoundError):
            if self.is_local:
                self._local.remove(self._path(path, follows_last=False))
            else:
                reach("put.sending", path)
                self._fs.rm_file(self._path(path))
                reach("put.sent", path)

    def remove_all(self) -> None:
        """Remove the root directory with all that's in it; nothing happens where there is none."""
        with explained("removed", self.url), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self.root, recursive=True)

    def set_aside(self, path: str, suffix: str) -> str:
        """Rename a file that can't be used so that it's kept and never read as data; give its new path."""
        target = next(
            name
            for number in itertools.count()
            if not self.exists(name := f"{path}{suffix}" + (f"-{number}" if number else ""))
        )
        with explained("set aside", self.full_path(path)):
            if self.is_local:
                self._local.rename(
                    self._path(path, follows_last=False), self._path(target, follows_last=False)
                )
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
        if self.is_local:
            self._local.remove_temporary(self._path(path), older_than_s)

    def fence(self, path: str) -> contextlib.AbstractContextManager[None]:
        """Keep all others out of a block that fences off the same directory; in stores it keeps nobody out.

        Raises:
            StepInUseError: another process is inside and doesn't come out, see `local_files.fence`.
        """
        return fence(self._path(path)) if self.is_local else contextlib.nullcontext()

    def check_writable(self) -> None:
        """Make the root directory and prove that a file can be written there.

        Raises:
            CacheDirectoryError: it can't be made or written; said before any work.
            CacheFullError: no space is left.
        """
        self.remove_temporary_files("", older_than_s=_UNFINISHED_FOR_S)
        self.write_bytes(_PROBE, b"")  # one name for all runs: what a killed one left goes with the next
        self.remove(_PROBE)


def _store_code(error: Exception) -> str:
    """The code that S3 gave a failure, found in an error of the driver or in those behind it; empty where there's none."""
    found: BaseException | None = error
    while found is not None:
        response = getattr(found, "response", None)
        if isinstance(response, dict):
            return str((response.get("Error") or {}).get("Code") or "")
        found = found.__cause__ or found.__context__
    return ""
