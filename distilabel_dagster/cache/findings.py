"""What a look through a cache comes upon: findings, and what was counted on the way."""

from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal[
    "part",
    "marker",
    "shown part",
    "snapshot",
    "pipeline file",
    "step directory",
    "special file",
    "unknown file",
    "temporary file",
    "set-aside file",
    "unreadable",
    "ledger",
]
Severity = Literal["damage", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that isn't as it should be, or that is good to know.

    Attributes:
        path: the file, in full.
        kind: what the file is, or what it's found to be.
        problem: what was found and what was expected, as the end of a sentence that begins with the path.
        remedy: what to do about it, as a sentence; empty where nothing is to be done.
        severity: "damage" for what no run and no kill of one leaves behind; "note" for what does no harm.
        is_repaired: whether it was found no more after a repair.
    """

    path: str
    kind: Kind
    problem: str
    remedy: str = ""
    severity: Severity = "damage"
    is_repaired: bool = False


@dataclass(slots=True)
class Verification:
    """What was looked through, and what was found.

    Attributes:
        pipelines: pipelines looked at.
        steps: steps' directories looked at.
        parts: parts read.
        rows: rows in the parts that can be used.
        answers_needed: answers of models that one step's rows were made of, of the step with the most.
        answers: answers of models in the ledger.
        findings: in the order in which they were come upon.
    """

    pipelines: int = 0
    steps: int = 0
    parts: int = 0
    rows: int = 0
    answers_needed: int = 0
    answers: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def damage(self) -> list[Finding]:
        """The damage that's left."""
        return [each for each in self.findings if each.severity == "damage" and not each.is_repaired]


def compare(before: list[Finding], after: list[Finding]) -> list[Finding]:
    """Put together what was found before a repair and after it: what's gone was repaired."""
    left = {(each.path, each.kind, each.problem) for each in after}
    gone = [each for each in before if (each.path, each.kind, each.problem) not in left]
    return [replace(each, is_repaired=True, remedy="") for each in gone] + after
