"""Named moments at which a test makes the process die, stall, or meet an error.

Every change that outlives the process passes one before and after it, so the crash suite can stop a run exactly there,
in whichever process it happens. A run that no test looks at pays a look at one variable.
"""

from collections.abc import Callable
from typing import Final

POINTS: Final = {
    "file.opened": "a temporary file is there, empty",
    "file.written": "it holds its content, which the disk need not have yet",
    "file.synced": "its content is on the disk, under the temporary name",
    "file.fenced": "the writer has made sure that it may write; the rename follows",
    "file.renamed": "it has its name, which the disk need not have yet",
    "file.done": "its name is on the disk",
    "file.removing": "a file is about to be removed",
    "file.removed": "it's gone",
    "file.setting_aside": "a file is about to be renamed, since it can't be used",
    "file.set_aside": "it has the other name",
    "link.made": "a second name of a part is there, still a temporary one",
    "link.done": "it's in `data/<step>/`",
    "put.sending": "an object is about to be sent to a store, copied or removed there",
    "put.sent": "the store has done it",
    "round.begun": "a round of commits begins",
    "round.step_done": "the batches of one of its steps are committed",
    "round.done": "all are, and the snapshot is written",
    "snapshot.begun": "the batch manager's files are about to be written",
    "seal.begun": "a complete step is about to be sealed",
    "seal.united": "its parts have one schema",
    "seal.shown": "`data/<step>/` is in line with them",
    "seal.done": "its marker is written",
    "ledger.begun": "a transaction that writes has begun",
    "ledger.committing": "its changes are made; the commit follows",
    "ledger.committed": "it's committed",
    "lease.acquired": "this process is the one that writes some steps",
    "lease.renewed": "it has given a sign of life",
    "lease.releasing": "it's about to give them back",
    "lease.released": "they're free",
    "call.sending": "a call that costs is about to be made",
    "call.answered": "its answer is here, and isn't kept yet",
    "call.kept": "its answer is in the ledger",
}
"""Each moment, and what's the case at it."""

_hook: Callable[[str, str], None] | None = None


def install(hook: Callable[[str, str], None] | None) -> None:
    """Have a function called at each moment of this process, or none any more.

    Args:
        hook: gets the moment's name and what it's about (a file's path, a step, a key; may be empty), in the thread
            that reached it. What it raises goes up from there.
    """
    global _hook  # noqa: PLW0603  (one for the process)
    _hook = hook


def reach(point: str, about: str = "") -> None:
    """Say that a moment is reached."""
    if _hook is not None:
        _hook(point, about)
