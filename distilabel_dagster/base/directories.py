"""Directories whose names survive a loss of power."""

import contextlib
import os


def make_directory(directory: str) -> bool:
    """Make a directory and those above it, their names on the disk; tell whether there was anything to make.

    Safe to repeat, and where others do the same at the same time.

    Raises:
        OSError: it can't be made; a file in its place is one reason.
    """
    missing = []
    above = directory
    while not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
        if above == missing[-1]:
            break
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(each)
        sync_directory(os.path.dirname(each))
    if missing:
        os.makedirs(directory, exist_ok=True)  # raises where a file is in the way
    return bool(missing)


def sync_directory(directory: str) -> None:
    """Have the disk keep the names in a directory."""
    if os.name != "posix":
        return
    try:
        handle = os.open(directory, os.O_RDONLY)
    except PermissionError:
        return  # one may make names in a directory that one may not list
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
