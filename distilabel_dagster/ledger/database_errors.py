"""What goes wrong with the ledger's database, told as this package's errors, with passwords hidden."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from distilabel_dagster.base.serializable import is_secret_name
from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError, DamagedFileError

LOCKED: Final = ("database is locked", "database table is locked")
_DAMAGED: Final = (
    "file is not a database",
    "malformed",
    "unsupported file format",
    "no such table",
    "no such column",
)
_DAMAGED_STATES: Final = frozenset({"42P01", "42703"})
_FULL: Final = ("database or disk is full",)
_FULL_STATES: Final = frozenset({"53100"})
_REFUSED: Final = ("readonly database", "unable to open database file")
_LOCKED_STATES: Final = frozenset({"55P03"})

_REMEDIES: Final[dict[str, tuple[type[CacheError], str]]] = {
    "damaged": (
        DamagedFileError,
        (
            "Put back a copy of it, or move it away (with the files `-wal` and `-shm` beside it) and start the run "
            "again, which makes a new one; committed rows are in files of their own and stay, other calls are paid "
            "again."
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


@contextlib.contextmanager
def explained(url: URL, action: str) -> Iterator[None]:
    """Turn errors of the database and of its driver into this package's."""
    try:
        yield
    except DBAPIError as error:
        text = " ".join(str(error.orig).split())
        shown = hide_password(text, url)
        told = build_error(_classify(text, error.orig, url), describe_url(url), action, shown)
        # A traceback would show a cause that names the password.
        raise told from (error if shown == text else None)


def build_error(kind: str, location: str, action: str, reason: str) -> CacheError:
    """Build the error of a kind (damaged, full, refused, locked, other), with what to do about it."""
    error_class, remedy = _REMEDIES[kind]
    return error_class(
        f"The ledger {location} can't be {action}: {reason.rstrip('.')}. {remedy}", path=location
    )


def hide_password(text: str, url: URL) -> str:
    """Take the URL's password and its like out of a message of the driver."""
    secrets = [url.password, *(value for name, value in url.query.items() if is_secret_name(name))]
    for secret in secrets:
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return text


def _classify(text: str, original: object, url: URL) -> str:
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    kinds = {
        "damaged": (_DAMAGED, _DAMAGED_STATES),
        "full": (_FULL, _FULL_STATES),
        "refused": (_REFUSED, frozenset[str]()),
        "locked": (LOCKED, _LOCKED_STATES),
    }
    for kind, (fragments, states) in kinds.items():
        if state in states or any(fragment in text for fragment in fragments):
            return kind
    if "disk I/O error" in text and _is_disk_full(url):
        return "full"
    return "other"


def _is_disk_full(url: URL) -> bool:
    """Ask the disk: SQLite itself calls it an I/O error where the file beside the WAL can't grow."""
    try:
        return shutil.disk_usage(Path(url.database or ".").parent).free == 0
    except OSError:
        return False
