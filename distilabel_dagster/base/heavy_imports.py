"""Imports of large libraries, without the garbage collector's looking through them meanwhile."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing_much() -> Iterator[None]:
    """Collect no garbage in the block; for imports that make hundreds of thousands of objects, all of which stay.

    Python's collector counts new objects, so it goes through all that there are again and again while they come: for
    `datasets` that's a tenth of a second. Where the process has turned it off, it stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
