"""What is in a directory of the cache, as it is: links aren't followed, and unfinished writes are told as such."""

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.local_files import is_temporary
from distilabel_dagster.errors import CacheDirectoryError

EntryKind = Literal["file", "directory", "link", "special"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a directory.

    Attributes:
        name: its name.
        kind: what it is; "special" for pipes, sockets and devices.
        is_temporary: whether it's what a write had not finished.
        modified_at: when it was written, in seconds since 1970; 0 where that isn't known.
    """

    name: str
    kind: EntryKind = "file"
    is_temporary: bool = False
    modified_at: float = 0.0

    @property
    def age_s(self) -> float:
        """Seconds since it was written."""
        return max(0.0, time.time() - self.modified_at)


def list_entries(fs: CacheFileSystem, path: str) -> list[Entry]:
    """List a directory by name; nothing where there's none.

    Raises:
        CacheDirectoryError: it's no directory, or can't be read.
    """
    if not fs.is_local:
        return _list_store(fs, path)
    full = Path(fs.full_path(path))
    try:
        found = [(name, (full / name).lstat()) for name in os.listdir(full)]  # noqa: PTH208 (as `list_names`)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheDirectoryError(
            f"{full} can't be listed: {error.strerror or error}. Check its permissions, and that it's a directory.",
            path=str(full),
        ) from error
    return [
        Entry(name, _kind_of(info.st_mode), is_temporary(name), info.st_mtime) for name, info in sorted(found)
    ]


def _kind_of(mode: int) -> EntryKind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "special"


def _list_store(fs: CacheFileSystem, path: str) -> list[Entry]:
    """What's directly in a directory of a store, where a directory is what has files below it."""
    found: dict[str, Entry] = {}
    for file in fs.list_files(path):
        name, _, below = file.path.removeprefix(path).lstrip("/").partition("/")
        kind: EntryKind = "directory" if below else "file"
        if name:
            found[name] = Entry(name, kind, modified_at=file.modified_at)
    return sorted(found.values(), key=lambda entry: entry.name)
