"""A disk that knows, of all that was done to it, what a loss of power would leave."""

import random
from dataclasses import dataclass, field
from typing import Literal

from tests.integration.power_loss.operations import Operation

Mode = Literal["nothing unsynced", "names without content", "anything"]
_BLOCK = 512


@dataclass
class File:
    """Content as processes see it, as the disk has it, and the writes between the two."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    unsynced: list[tuple[int, bytes | int]] = field(default_factory=list)
    sync_begun_at: int = 0

    def write(self, offset: int, content: bytes) -> None:
        if len(self.content) < offset:
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(content)] = content
        self.unsynced.append((offset, content))

    def truncate(self, length: int) -> None:
        _set_length(self.content, length)
        self.unsynced.append((0, length))

    def sync(self) -> None:
        """What was written before the sync began is on the disk."""
        kept = bytearray(self.durable)
        for write in self.unsynced[: self.sync_begun_at]:
            _apply(kept, write)
        self.durable = bytes(kept)
        del self.unsynced[: self.sync_begun_at]
        self.sync_begun_at = 0

    def after_power_loss(self, mode: Mode, rng: random.Random) -> bytes:
        if mode != "anything":
            return self.durable
        kept = bytearray(self.durable)
        for offset, written in self.unsynced:
            if isinstance(written, int):
                if rng.random() < 0.5:
                    _apply(kept, (offset, written))
                continue
            for start in range(0, len(written), _BLOCK):
                if rng.random() < 0.5:
                    _apply(kept, (offset + start, written[start : start + _BLOCK]))
        return bytes(kept)


@dataclass
class Directory:
    """Names as processes see them, as the disk has them, and the changes between the two."""

    names: dict[str, "File | Directory"] = field(default_factory=dict)
    durable: dict[str, "File | Directory"] = field(default_factory=dict)
    unsynced: list[dict[str, "File | Directory | None"]] = field(default_factory=list)
    sync_begun_at: int = 0

    def change(self, changes: dict[str, "File | Directory | None"]) -> None:
        _change(self.names, changes)
        self.unsynced.append(changes)

    def sync(self) -> None:
        for changes in self.unsynced[: self.sync_begun_at]:
            _change(self.durable, changes)
        del self.unsynced[: self.sync_begun_at]
        self.sync_begun_at = 0

    def after_power_loss(self, mode: Mode, rng: random.Random) -> dict[str, "File | Directory"]:
        kept = dict(self.durable)
        count = {"nothing unsynced": 0, "names without content": len(self.unsynced)}.get(mode)
        for changes in self.unsynced[: rng.randint(0, len(self.unsynced)) if count is None else count]:
            _change(kept, changes)
        return kept


class Disk:
    """The files below one directory, which is there, empty and on the disk."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self.top = Directory()
        self._open: dict[int, tuple[File | Directory, bool]] = {}
        self._positions: dict[int, int] = {}

    def apply(self, operation: Operation) -> bool:
        """Do to the files what a process did; tell whether it changed what a loss of power would leave."""
        if operation.name == "open":
            return self._open_file(operation)
        if operation.name in ("close", "write", "truncate", "sync_begun", "sync"):
            return self._use(operation)
        inside = [self._is_inside(path) for path in operation.paths]
        if not any(inside):
            return False
        if not all(inside):
            raise ValueError(f"{operation}: files go into or out of the directory")
        *_, last = operation.paths
        directory, name = self._find_parent(last)
        if operation.name == "mkdir":
            directory.change({name: Directory()})
        elif operation.name == "unlink":
            directory.change({name: None})
        else:
            source, old_name = self._find_parent(operation.paths[0])
            file = source.names[old_name]
            if operation.name == "link":
                directory.change({name: file})
            elif directory.names.get(name) is file:
                pass  # both are names of one file: POSIX does nothing
            elif source is directory:
                directory.change({old_name: None, name: file})
            else:
                raise ValueError(
                    f"{operation}: a rename between directories isn't one step after a loss of power"
                )
        return True

    def after_power_loss(self, mode: Mode, rng: random.Random) -> dict[str, bytes | None]:
        """What would be found: path below the root -> content, None for a directory."""
        found: dict[str, bytes | None] = {}

        def visit(directory: Directory, path: str) -> None:
            for name, entry in directory.after_power_loss(mode, rng).items():
                if isinstance(entry, Directory):
                    found[f"{path}{name}"] = None
                    visit(entry, f"{path}{name}/")
                else:
                    found[f"{path}{name}"] = entry.after_power_loss(mode, rng)

        visit(self.top, "")
        return found

    def _open_file(self, operation: Operation) -> bool:
        path = operation.paths[0]
        if not self._is_inside(path):
            self._open.pop(operation.descriptor, None)
            return False
        changed = False
        if path.rstrip("/") == self.root:
            entry: File | Directory = self.top
        else:
            directory, name = self._find_parent(path)
            if name not in directory.names:
                if not operation.is_creating:
                    raise ValueError(f"{operation}: there is no such file")
                directory.change({name: File()})
                changed = True
            entry = directory.names[name]
        if operation.is_truncating and isinstance(entry, File) and entry.content:
            entry.truncate(0)
            changed = True
        self._open[operation.descriptor] = (entry, operation.is_appending)
        self._positions[operation.descriptor] = 0
        return changed

    def _use(self, operation: Operation) -> bool:
        number = operation.descriptor
        if operation.name == "close":
            self._open.pop(number, None)
            return False
        if number not in self._open:
            return False
        entry, is_appending = self._open[number]
        if operation.name == "sync_begun":
            entry.sync_begun_at = len(entry.unsynced)
            return False
        if operation.name == "sync":
            had = bool(entry.unsynced)
            entry.sync()
            return had
        assert isinstance(entry, File), operation
        if operation.name == "truncate":
            assert operation.offset is not None
            entry.truncate(operation.offset)
            return True
        if operation.offset is not None:
            entry.write(operation.offset, operation.content)
            return True
        offset = len(entry.content) if is_appending else self._positions[number]
        entry.write(offset, operation.content)
        self._positions[number] = offset + len(operation.content)
        return True

    def _is_inside(self, path: str) -> bool:
        return path == self.root or path.startswith(f"{self.root}/")

    def _find_parent(self, path: str) -> tuple[Directory, str]:
        *above, name = path.removeprefix(f"{self.root}/").split("/")
        directory = self.top
        for each in above:
            found = directory.names[each]
            assert isinstance(found, Directory), path
            directory = found
        return directory, name


def _set_length(content: bytearray, length: int) -> None:
    del content[length:]
    content.extend(bytes(length - len(content)))


def _apply(content: bytearray, write: tuple[int, bytes | int]) -> None:
    offset, written = write
    if isinstance(written, int):
        _set_length(content, written)
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(written)] = written


def _change(names: "dict[str, File | Directory]", changes: "dict[str, File | Directory | None]") -> None:
    for name, entry in changes.items():
        if entry is None:
            names.pop(name, None)
        else:
            names[name] = entry
