"""What a process did to the files of a directory, read from the log of its system calls."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

TRACED: Final = (
    "open,openat,creat,close,write,pwrite64,pwritev,writev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,"
    "link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,dup,dup2,dup3"
)
STRACE: Final = ("strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={TRACED}")

_LINE = re.compile(r"(?P<pid>\d+)\s+(?P<rest>.*)")
_UNFINISHED = re.compile(r"(?P<begin>\w+\(.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<end>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)(?:<.*>)?(?: .*)?", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2})*)[^>]*>")


@dataclass(frozen=True)
class Operation:
    """One system call that succeeded.

    Attributes:
        name: `open`, `close`, `write`, `truncate`, `sync_begun`, `sync`, `rename`, `link`, `unlink`, or `mkdir`.
        paths: the files that it names, the descriptor's among them.
        descriptor: the number of the open file.
        content: what was written.
        offset: where to; None at the file's present position. The new length, for `truncate`.
        is_truncating: an `open` that empties the file.
        is_appending: an `open` that writes at the end only.
        is_creating: an `open` that makes the file where there's none.
    """

    name: str
    paths: tuple[str, ...] = ()
    descriptor: int = -1
    content: bytes = b""
    offset: int | None = None
    is_truncating: bool = False
    is_appending: bool = False
    is_creating: bool = False


def read_operations(log: str) -> Iterator[Operation]:
    """Give the calls in the order in which they ended; a sync also where it began: what's written after isn't in it."""
    begun: dict[str, str] = {}
    for line in log.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        pid, rest = match["pid"], match["rest"]
        if unfinished := _UNFINISHED.fullmatch(rest):
            begun[pid] = unfinished["begin"]
            if unfinished["begin"].startswith(("fsync", "fdatasync")):
                yield Operation("sync_begun", descriptor=_read_descriptor(unfinished["begin"])[0])
            continue
        was_interrupted = False
        if resumed := _RESUMED.fullmatch(rest):
            rest = begun.pop(pid, "") + resumed["end"]
            was_interrupted = True
        call = _CALL.fullmatch(rest)
        if call is None or int(call["result"]) < 0:
            continue
        operation = _read_call(call["name"], call["arguments"], int(call["result"]))
        if operation is None:
            continue
        if operation.name == "sync" and not was_interrupted:
            yield Operation("sync_begun", descriptor=operation.descriptor)
        yield operation


def _read_call(name: str, arguments: str, result: int) -> Operation | None:
    strings = [_decode(each) for each in _STRING.findall(arguments)]
    if name in ("open", "openat", "creat"):
        return Operation(
            "open",
            (strings[0].decode(),),
            descriptor=result,
            is_truncating="O_TRUNC" in arguments,
            is_appending="O_APPEND" in arguments,
            is_creating="O_CREAT" in arguments,
        )
    if name == "close":
        return Operation("close", descriptor=_read_descriptor(arguments)[0])
    if name in ("write", "pwrite64"):
        descriptor, path = _read_descriptor(arguments)
        offset = int(arguments.rpartition(",")[2]) if name == "pwrite64" else None
        return Operation("write", (path,), descriptor, strings[0][:result], offset)
    if name == "ftruncate":
        descriptor, path = _read_descriptor(arguments)
        return Operation("truncate", (path,), descriptor, offset=int(arguments.rpartition(",")[2]))
    if name in ("fsync", "fdatasync"):
        descriptor, path = _read_descriptor(arguments)
        return Operation("sync", (path,), descriptor)
    kinds = {"rename": "rename", "link": "link", "unlink": "unlink", "rmdir": "unlink", "mkdir": "mkdir"}
    kind = next((kind for begin, kind in kinds.items() if name.startswith(begin)), None)
    if kind is None:
        raise ValueError(f"{name}({arguments[:200]}): a change of files that isn't understood")
    return Operation(kind, tuple(each.decode() for each in strings))


def _read_descriptor(arguments: str) -> tuple[int, str]:
    match = _DESCRIPTOR.search(arguments)
    if match is None:
        bare = re.search(r"\((\d+)|^(\d+)", arguments)
        return int(next(filter(None, bare.groups()))) if bare else -1, ""
    return int(match[1]), _decode(match[2]).decode(errors="replace")


def _decode(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))
