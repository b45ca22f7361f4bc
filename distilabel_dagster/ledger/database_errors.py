"""What goes wrong with the ledger's database, told as this package's errors, with passwords hidden."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from distilabel_dagster.base.serializable import is_secret_name
from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError, DamagedFileError

LOCKED: Final = ("database is locked", "database table is locked")
NO_TEXT: Final = "Could not decode to UTF-8"
_DAMAGED: Final = (
    NO_TEXT,
    "file is not a database",
    "malformed",
    "unsupported file format",
    "no such table",
    "no such column",
    "no such module",
    "string or blob too big",
    "integer overflow",
    "interrupted",  # a statement that didn't end, see `sqlite_file.harden`
)
_DAMAGED_STATES: Final = frozenset({"42P01", "42703"})
_FULL: Final = ("database or disk is full",)
_FULL_STATES: Final = frozenset({"53100"})
_READ_ONLY: Final = "readonly database"
_REFUSED: Final = (_READ_ONLY, "unable to open database file")
_IO_ERROR: Final = "disk I/O error"
_LOCKED_STATES: Final = frozenset({"55P03"})
_ERRNO_KINDS: Final = {
    "full": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "crowded": (errno.EMFILE, errno.ENFILE),
    "refused": (
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST),
        *(errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    ),
}
_LONGEST_REASON: Final = 500
"""Characters: text that is damaged is quoted by the driver, however long it is."""

_PROBE_BYTES: Final = 65_536
_FILES_OF_DATABASE: Final = 4
"""What SQLite opens at the same time: the database, its log, the file beside that, and a directory."""

_WRITE_VERSION_AT: Final = 18
"""Where SQLite's file says which version may write it: 1 or 2."""

_REMEDIES: Final[dict[str, tuple[type[CacheError], str]]] = {
    "damaged": (
        DamagedFileError,
        (
            "Run `distilabel-dagster cache verify --repair`, which keeps every answer that can be read, or put back a "
            "copy of it. Or move it away (with the files `-wal` and `-shm` beside it) and start the run again, which "
            "makes a new one; committed rows are in files of their own and stay, other calls are paid again."
        ),
    ),
    "damaged server": (
        DamagedFileError,
        (
            "Put it back from a backup, by the database's own tools, and start the run again; committed rows are in "
            "files of their own and stay."
        ),
    ),
    "full": (
        CacheFullError,
        (
            "Rows committed before are safe. Free some space (or raise the quota) and start the same run again: it "
            "goes on from there."
        ),
    ),
    "refused": (
        CacheDirectoryError,
        "Check the path and its permissions, or give another directory by `cache_dir=` or DISTILABEL_CACHE_DIR.",
    ),
    "crowded": (
        CacheError,
        (
            "What was committed before stays. Let the process open more files (`ulimit -n`), or have fewer replicas and "
            "calls at the same time, and start the same run again."
        ),
    ),
    "locked": (
        CacheError,
        (
            "Another process has kept it for longer than one waits. Look for one that is stopped or hangs in the "
            "middle of writing, and start the run again."
        ),
    ),
    "other": (CacheError, "Check that the disk or the server can be reached, and start the run again."),
}


def describe_url(url: URL) -> str:
    """Say where a database is: the path of a file, else the URL without its secrets."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    shown = {name: "***" if is_secret_name(name) else value for name, value in url.query.items()}
    return url.set(query=shown).render_as_string(hide_password=True)


def find_file(url: URL) -> Path:
    """Give the path of a SQLite file."""
    database = url.database or ""
    return Path(urlsplit(database).path if database.startswith("file:") else database).expanduser().absolute()


@contextlib.contextmanager
def explained(url: URL, action: str) -> Iterator[None]:
    """Turn errors of the database and of its driver into this package's."""
    try:
        yield
    except DBAPIError as error:
        text = " ".join(str(error.orig).split())[:_LONGEST_REASON]
        kind, text = _classify(text, error.orig, url)
        shown = hide_password(text, url)
        told = build_error(kind, describe_url(url), action, shown)
        # A traceback would show a cause that names the password.
        raise told from (error if shown == text else None)


def build_error(kind: str, location: str, action: str, reason: str) -> CacheError:
    """Build the error of a kind (damaged, full, refused, crowded, locked, other), with what to do about it."""
    is_server = kind == "damaged" and "://" in location
    error_class, remedy = _REMEDIES["damaged server" if is_server else kind]
    what = f"can't be {action}: {reason.rstrip('.')}"
    return error_class(f"The ledger {location} {what}. {remedy}", path=location, what=what, remedy=remedy)


def classify_errno(error: OSError) -> str:
    """Give the kind, as `build_error` takes it, of an error of the system."""
    return next((kind for kind, numbers in _ERRNO_KINDS.items() if error.errno in numbers), "other")


def hide_password(text: str, url: URL) -> str:
    """Take the URL's password and its like out of a message of the driver."""
    secrets = [url.password, *(value for name, value in url.query.items() if is_secret_name(name))]
    for secret in secrets:
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return text


def _classify(text: str, original: object, url: URL) -> tuple[str, str]:
    """Give the kind of an error, and its text, with the system's reason where the database doesn't say it."""
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    kinds = {
        "damaged": (_DAMAGED, _DAMAGED_STATES),
        "full": (_FULL, _FULL_STATES),
        "refused": (_REFUSED, frozenset[str]()),
        "locked": (LOCKED, _LOCKED_STATES),
    }
    found = "other"
    for kind, (fragments, states) in kinds.items():
        if state in states or any(fragment in text for fragment in fragments):
            found = kind
            break
    if url.get_backend_name() != "sqlite" or (found != "refused" and _IO_ERROR not in text):
        return found, text
    if _READ_ONLY in text and not _is_known_version(url):
        return "damaged", f"{text} (its header is that of no version of SQLite)"
    return _ask_system(found, text, url)


def _ask_system(found: str, text: str, url: URL) -> tuple[str, str]:
    """Find out why SQLite can't reach a file: it says the same for several reasons."""
    path = find_file(url)
    directory = path.parent
    try:
        with tempfile.TemporaryFile(dir=directory) as probe, contextlib.ExitStack() as opened:
            # As far out as the next write would be: a process may be allowed files up to a size.
            probe.seek(max(_size(path), _size(path.with_name(f"{path.name}-wal"))))
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
            for _ in range(_FILES_OF_DATABASE):
                opened.callback(os.close, os.dup(probe.fileno()))
        is_full = shutil.disk_usage(directory).free == 0
    except OSError as error:
        return classify_errno(error), f"{text} ({error.strerror})"
    # Where the file beside the WAL can't grow, it's an input/output error to SQLite, and space may be free by now.
    return ("full" if is_full and _IO_ERROR in text else found), text


def _is_known_version(url: URL) -> bool:
    try:
        with find_file(url).open("rb") as file:
            header = file.read(_WRITE_VERSION_AT + 1)
    except OSError:
        return True
    return len(header) <= _WRITE_VERSION_AT or header[_WRITE_VERSION_AT] in (0, 1, 2)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
