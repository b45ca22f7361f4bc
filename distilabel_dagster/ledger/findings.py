"""What a look through a ledger comes upon, and what a repair of it did."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing in a ledger that isn't as it should be.

    Attributes:
        location: the ledger, as one tells a user: the path of a file, or a URL without secrets.
        what: what was found and what was expected, as the end of a sentence that begins with the location.
        remedy: what to do about it, as a sentence.
        key: of the response that it's about; None where it's about no single one.
    """

    location: str
    what: str
    remedy: str
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What became of a ledger that was repaired.

    Attributes:
        location: the ledger, whole again.
        responses: answers that it holds now.
        responses_lost: answers that were there and couldn't be read; None where nobody can tell how many there were.
        tables_cut: other tables (counters of what calls used, failed attempts) of which rows are lost.
        set_aside: where the files that it was made of are now.
    """

    location: str
    responses: int
    responses_lost: int | None
    tables_cut: tuple[str, ...]
    set_aside: tuple[str, ...]
