"""What keeps a path of the cache inside the cache, whatever the names in it are and wherever links lead."""

import os
import re
import stat

from distilabel_dagster.errors import CacheDirectoryError

_IS_WINDOWS = os.name == "nt"
_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")


def check_url(url: str) -> None:
    """Refuse a URL with a password in it: it would be in messages, logs and metadata, which show where files are.

    Raises:
        CacheDirectoryError: it has one.
    """
    if _PASSWORD.search(url):
        shown = _PASSWORD.sub("://***@", url)
        raise CacheDirectoryError(
            f"The cache directory `{shown}` has a password in its URL, where it would be shown in messages and logs. Give "
            "it as `storage_options=`, or in the environment as its driver takes it.",
            path=shown,
        )


def check_relative(path: str) -> None:
    """Refuse a path that isn't made of plain names below the root; an empty one is the root.

    Names such as `%2e%2e` are taken as they're written, on a disk and in a store alike, so they lead nowhere.

    Raises:
        CacheDirectoryError: a name is empty, `.` or `..`, or has characters that no name in the cache has.
    """
    if not path:
        return
    for name in path.split("/"):
        # fsspec takes what stands behind `::` for another file system.
        is_odd = name in ("", ".", "..") or "\0" in name or "::" in name
        if is_odd or (_IS_WINDOWS and ("\\" in name or ":" in name)):
            raise CacheDirectoryError(
                f"`{path}` can't be a path in the cache: it has to be made of names with `/` between them. A file of the "
                "cache names it so, and was damaged or made to lead elsewhere.",
                path=path,
            )


def check_links(root: str, path: str, *, follows_last: bool = True) -> None:
    """Refuse a path below a local directory if a link on it leads out of that directory; the root may be a link itself.

    Args:
        root: the directory.
        path: relative to it.
        follows_last: whether what's done with the path follows a link in its last name, as reading does. Removing and
            renaming don't.

    Raises:
        CacheDirectoryError: one does.
    """
    if not path:
        return
    names = path.split("/")
    place = root
    for name in names if follows_last else names[:-1]:
        place = f"{place}/{name}"
        try:
            is_link = stat.S_ISLNK(os.lstat(place).st_mode)
        except OSError:
            return  # there's nothing behind it either, or the access itself will say why not
        if is_link and not _is_inside(os.path.realpath(place), os.path.realpath(root)):
            raise CacheDirectoryError(
                f"{place} is a link that leads out of the cache directory, to {os.readlink(place)}. Nothing there is read "  # noqa: PTH115 (as it is, not resolved)
                "or written: remove the link, or give the directory that it's in as `cache_dir=` if it's yours.",
                path=place,
            )


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
