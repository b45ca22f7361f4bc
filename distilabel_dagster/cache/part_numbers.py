"""Which parts a directory holds, where a store's listings may lag behind what it holds."""

import itertools
from collections.abc import Iterable

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem


def find_part_numbers(fs: CacheFileSystem, directory: str, names: Iterable[str]) -> list[int]:
    """Give the numbers of the parts in a directory, in order.

    Object stores may list what was written a moment ago only later, and what was removed for a while still. They
    know each object when they're asked for it. So parts are asked for one by one behind those that are listed, until one
    isn't there, and from the last one back, until one is. A part that a listing leaves out is never taken for absent. One
    that's listed, gone, and followed by others may be among the numbers; reading it tells.

    Args:
        fs: the cache's files.
        directory: relative path of the directory.
        names: what `list_names` gave.
    """
    listed = {number for name in names if (number := layout.part_number(name)) is not None}
    if fs.is_local:
        return sorted(listed)

    def is_there(number: int) -> bool:
        return fs.exists(f"{directory}/{layout.part_name(number)}")

    next_number = next(
        number for number in itertools.count(1) if number not in listed and not is_there(number)
    )
    found = list(range(1, next_number))
    while found and not is_there(found[-1]):
        del found[-1]
    return found + [number for number in sorted(listed) if number > next_number and is_there(number)]
