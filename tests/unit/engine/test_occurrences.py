"""Numbers of equal requests: the n-th is the n-th, however rows are split, resumed and made again."""

from dataclasses import replace
from typing import Any

import pytest

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.cache.footer import decode_footer, encode_footer
from distilabel_dagster.engine import occurrences as module
from distilabel_dagster.engine.occurrences import BatchRequests, Occurrences, numbers_of, read_digests


def digest(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(24)


def make(occurrences: Occurrences, *numbers: int, before: BatchRecord | None = None) -> tuple[list[int], Any]:
    """Number a batch of requests; give the numbers and the record."""
    batch = BatchRequests(occurrences, before)
    given = batch.number([digest(number) for number in numbers])
    return given, BatchRecord(0, 1, requests=batch.requests, occurrences=batch.occurrences)


def test_equal_requests_are_counted_within_and_across_batches() -> None:
    counted = Occurrences()
    assert make(counted, 1, 1, 2)[0] == [0, 1, 0]
    assert make(counted, 2, 1, 3)[0] == [1, 2, 0]


def test_numbers_go_on_behind_the_records() -> None:
    counted = Occurrences()
    records = [make(counted, *numbers)[1] for numbers in ((1, 1, 2), (2, 1, 3))]
    assert make(Occurrences(records), 1, 2, 3, 4)[0] == [3, 2, 1, 0]
    assert make(Occurrences(records[:1]), 2, 1, 3)[0] == [1, 2, 0]


def test_a_batch_that_is_made_again_keeps_its_numbers() -> None:
    counted = Occurrences()
    records = [make(counted, *numbers)[1] for numbers in ((1, 1), (1, 2), (1, 1))]
    again = Occurrences(records)
    assert make(again, 1, 2, before=records[1])[0] == [2, 0]
    assert make(again, 2, 1, 1, before=records[1])[0] == [0, 2, 5], "the lowest first, then new ones"
    assert make(again, 1, 3)[0] == [6, 0]


def test_a_request_that_a_batch_no_longer_makes_leaves_its_number_unused() -> None:
    counted = Occurrences()
    first, second = make(counted, 1)[1], make(counted, 1)[1]
    changed = make(Occurrences([first, second]), 2, before=first)[1]
    assert make(Occurrences([changed, second]), 1)[0] == [2]


def test_several_questions_of_one_batch_are_noted_one_behind_the_other() -> None:
    batch = BatchRequests(Occurrences())
    assert batch.number([digest(1), digest(2)]) == [0, 0]
    assert batch.number([digest(2), digest(1)]) == [1, 1]
    assert read_digests(batch.requests) == [1, 2, 2, 1]
    assert batch.occurrences == {2: 1, 3: 1}
    record = BatchRecord(0, 1, requests=batch.requests, occurrences=batch.occurrences)
    assert numbers_of(record) == {1: [0, 1], 2: [0, 1]}


@pytest.mark.parametrize("merge_at", [1, 2, 3, 7])
def test_merging_forgets_nothing(merge_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MERGE_AT", merge_at)
    counted = Occurrences()
    records = [make(counted, number, number % 4, number)[1] for number in range(40)]
    given = [make(counted, *range(40))[0], make(Occurrences(records), *range(40))[0]]
    assert given[0] == given[1]
    assert given[0] == [12, 12, 12, 12, *[2] * 36]


def test_more_digests_than_are_merged_at_once() -> None:
    counted = Occurrences()
    count = 2 * module._MERGE_AT + 3
    batch = BatchRequests(counted)
    assert set(batch.number([digest(number) for number in range(count)])) == {0}
    assert make(counted, 0, count - 1, count // 2, count)[0] == [1, 1, 1, 0]
    assert batch.occurrences is None
    assert len(batch.requests) == 8 * count


def test_footers_keep_requests_and_refuse_what_cannot_be() -> None:
    _, record = make(Occurrences(), 1, 1, 2**64 - 1)
    (read,) = decode_footer(encode_footer("s", "x", [record]), "s", "x", 0)
    assert (read.requests, read.occurrences) == (record.requests, {1: 1})
    for damaged in (
        replace(record, requests=record.requests[:-1]),
        replace(record, occurrences={3: 1}),
        replace(record, occurrences={0: -1}),
    ):
        with pytest.raises(ValueError, match="footer"):
            decode_footer(encode_footer("s", "x", [damaged]), "s", "x", 0)
