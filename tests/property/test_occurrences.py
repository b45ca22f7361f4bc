"""Equal requests are numbered by their order, however they're split, stopped, and made again."""

from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.engine.occurrences import BatchRequests, Occurrences, read_digests


def digest(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(24)


def number_all(requests: list[int]) -> list[int]:
    return [requests[:index].count(each) for index, each in enumerate(requests)]


def split(requests: list[int], sizes: list[int]) -> list[list[int]]:
    batches, at = [], 0
    while at < len(requests):
        size = sizes[len(batches) % len(sizes)]
        batches.append(requests[at : at + size])
        at += size
    return batches


def make(occurrences: Occurrences, batch: list[int], before: BatchRecord | None = None) -> BatchRecord:
    made = BatchRequests(occurrences, before)
    half = len(batch) // 2
    made.number([digest(each) for each in batch[:half]])
    made.number([digest(each) for each in batch[half:]])
    return BatchRecord(0, len(batch), requests=made.requests, occurrences=made.occurrences)


def numbers_in(record: BatchRecord) -> list[int]:
    numbers = record.occurrences or {}
    return [numbers.get(index, 0) for index in range(len(read_digests(record.requests)))]


REQUESTS = st.lists(st.integers(0, 4), max_size=40)
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(REQUESTS, SIZES, st.lists(st.integers(0, 40), max_size=4))
def test_any_split_and_any_stops_give_the_order(
    requests: list[int], sizes: list[int], stops: list[int]
) -> None:
    occurrences, records = Occurrences(), []
    for index, batch in enumerate(split(requests, sizes)):
        if index in stops:
            make(occurrences, batch)  # made, never committed
            occurrences = Occurrences(records)
        records.append(make(occurrences, batch))
    assert [number for record in records for number in numbers_in(record)] == number_all(requests)


@given(
    REQUESTS,
    SIZES,
    st.lists(
        st.tuples(st.integers(0, 40), st.lists(st.integers(0, 4), max_size=6), st.booleans()), max_size=6
    ),
)
def test_batches_made_again_keep_numbers_and_none_is_given_twice(
    requests: list[int], sizes: list[int], changes: list[tuple[int, list[int], bool]]
) -> None:
    occurrences = Occurrences()
    records: list[BatchRecord] = []
    batches = split(requests, sizes)
    records += [make(occurrences, batch) for batch in batches]
    for index, other, is_new_run in changes:
        if is_new_run:
            occurrences = Occurrences(records)
        if index < len(records):
            before = numbers_in(records[index])
            same = make(occurrences, batches[index], records[index])
            assert sorted(zip(read_digests(same.requests), numbers_in(same), strict=True)) == sorted(
                zip(batches[index], before, strict=True)
            )
            records[index], batches[index] = make(occurrences, other, same), other
        else:
            records.append(make(occurrences, other))
            batches.append(other)
        given = [
            pair
            for record in records
            for pair in zip(read_digests(record.requests), numbers_in(record), strict=True)
        ]
        assert len(given) == len(set(given)), "two rows would share an answer"
