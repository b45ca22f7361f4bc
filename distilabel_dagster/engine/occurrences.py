"""Which of equal requests of a step is which: pure bookkeeping over the records of its batches.

Equal questions in different rows are to get answers of their own, and the same ones after a resume, in another order
of the rows, or with rows added. So the n-th equal request of a step, in the order of its input, is the n-th, whatever
its row. Numbers that were given are recorded with the batch, hence never given twice.
"""

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from distilabel_dagster.batch import DIGEST_BYTES, BatchRecord

_MERGE_AT: Final = 65_536


class Occurrences:
    """Numbers a step's equal requests; give it the batches in order.

    A digest that was met once costs 8 bytes.

    Args:
        records: the batches whose requests have their numbers already.
    """

    def __init__(self, records: Iterable[BatchRecord] = ()) -> None:
        self._sorted: array[int] = array("Q")
        self._recent: set[int] = set()
        self._next: dict[int, int] = {}
        for record in records:
            self._take_in(record)

    def _take_in(self, record: BatchRecord) -> None:
        numbers = record.occurrences or {}
        for index, digest in enumerate(read_digests(record.requests)):
            number = numbers.get(index, 0)
            if number or self._is_known(digest):
                self._next[digest] = max(self._next.get(digest, 1), number + 1)
            self._remember(digest)

    def number(self, digests: Sequence[bytes], kept: dict[int, list[int]]) -> list[int]:
        """Give each request of the next batch its number.

        Args:
            digests: of the batch's requests, in order; longer ones are cut.
            kept: what `numbers_of` gave, if the batch is made again: equal requests keep the numbers they had, which
                are taken out of it.
        """
        numbers = []
        for digest in (int.from_bytes(each[:DIGEST_BYTES], "big") for each in digests):
            had = kept.get(digest)
            numbers.append(had.pop(0) if had else self._next_number(digest))
        return numbers

    def _next_number(self, digest: int) -> int:
        number = self._next.get(digest)
        if number is None:
            if not self._is_known(digest):
                self._remember(digest)
                return 0
            number = 1
        self._next[digest] = number + 1
        return number

    def _is_known(self, digest: int) -> bool:
        if digest in self._recent:
            return True
        place = bisect_left(self._sorted, digest)
        return place < len(self._sorted) and self._sorted[place] == digest

    def _remember(self, digest: int) -> None:
        self._recent.add(digest)
        if len(self._recent) >= _MERGE_AT:
            self._sorted = array("Q", sorted({*self._sorted, *self._recent}))
            self._recent = set()


def read_digests(requests: bytes) -> list[int]:
    """Read the digests that a record keeps."""
    return [
        int.from_bytes(requests[start : start + DIGEST_BYTES], "big")
        for start in range(0, len(requests), DIGEST_BYTES)
    ]


def numbers_of(record: BatchRecord) -> dict[int, list[int]]:
    """For each request of a batch, the numbers that it has there, lowest first."""
    numbers = record.occurrences or {}
    found: dict[int, list[int]] = {}
    for index, digest in enumerate(read_digests(record.requests)):
        found.setdefault(digest, []).append(numbers.get(index, 0))
    return {digest: sorted(each) for digest, each in found.items()}


class BatchRequests:
    """The requests of one batch as they're made, for its record.

    Args:
        occurrences: the step's.
        before: the batch as it was committed, if it's made again.
    """

    def __init__(self, occurrences: Occurrences, before: BatchRecord | None = None) -> None:
        self._occurrences = occurrences
        self._kept = numbers_of(before) if before is not None else {}
        self._digests = bytearray()
        self._numbers: dict[int, int] = {}
        self._lock = threading.Lock()

    def number(self, digests: Sequence[bytes]) -> list[int]:
        """Give the next requests of the batch their numbers, and note them; from any thread."""
        with self._lock:
            numbers = self._occurrences.number(digests, self._kept)
            start = len(self._digests) // DIGEST_BYTES
            for index, (digest, number) in enumerate(zip(digests, numbers, strict=True), start):
                self._digests += digest[:DIGEST_BYTES]
                if number:
                    self._numbers[index] = number
        return numbers

    @property
    def requests(self) -> bytes:
        """The digests so far, as `BatchRecord.requests` keeps them."""
        return bytes(self._digests)

    @property
    def occurrences(self) -> dict[int, int] | None:
        """The numbers so far, as `BatchRecord.occurrences` keeps them."""
        return dict(self._numbers) or None
