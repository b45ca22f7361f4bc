"""What a history has shown against the promises."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["lost", "doubled", "wrong", "hung", "paid_twice"]
KINDS: Final[tuple[Kind, ...]] = ("lost", "doubled", "wrong", "hung", "paid_twice")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that isn't as promised.

    Attributes:
        kind: what sort of thing.
        what: told so that one sees it.
        count: rows or calls, or 1.
    """

    kind: Kind
    what: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"

    @property
    def short(self) -> str:
        """The beginning of it."""
        return f"{self.kind}: {self.what[:160]}"


def compare_rows(where: str, found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> list[Finding]:
    """Say what's lost, doubled or wrong in rows that should be just the expected ones, in their order."""
    if found == expected:
        return []
    keys, wanted = (Counter(str(row.get("key")) for row in rows) for rows in (found, expected))
    findings: list[Finding] = []
    if lost := wanted - keys:
        findings.append(Finding("lost", f"{where} lacks the rows {_list(lost)}", lost.total()))
    if doubled := keys - wanted:
        findings.append(
            Finding("doubled", f"{where} has the rows {_list(doubled)} too often", doubled.total())
        )
    if not findings:
        pairs = enumerate(zip(found, expected, strict=True))
        index, (is_row, should) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        findings.append(Finding("wrong", f"{where}: row {index} is {is_row}, expected {should}"))
    return findings


def _list(counts: Counter[str]) -> str:
    keys: Iterable[str] = list(counts)[:10]
    return ", ".join(keys) + (" …" if len(counts) > 10 else "")
