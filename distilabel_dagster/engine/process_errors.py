"""What keeps worker processes from being started, in this package's words."""

import contextlib
import errno
from collections.abc import Iterator
from typing import Final

from distilabel_dagster.errors import StepLoadError

_TOO_MANY_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_NO_MEMORY: Final = frozenset({errno.ENOMEM, errno.EAGAIN})


@contextlib.contextmanager
def explained_start(step: str) -> Iterator[None]:
    """Turn errors of the system in the block, which starts processes of a step, into this package's.

    Raises:
        StepLoadError: there was one; it says what to do about it.
    """
    try:
        yield
    except OSError as error:
        raise StepLoadError(
            f"The worker processes of step `{step}` can't be started: {error.strerror or error}. {_find_remedy(error)}, or "
            "use one replica, which needs none of it. What was committed before stays.",
            step=step,
        ) from error


def _find_remedy(error: OSError) -> str:
    if error.errno in _TOO_MANY_FILES:
        return "Let the process open more files (`ulimit -n`)"
    if error.errno in _NO_MEMORY:
        return "Use fewer replicas, or let the machine or container have more memory and processes"
    return (
        "They share semaphores in /dev/shm and sockets in the directory for temporary files (TMPDIR): let both be there, "
        "with some space left (in a container: `--shm-size`)"
    )
