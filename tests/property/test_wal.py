"""The checksums of a WAL, all at once, are those that SQLite's own loop gives."""

import random
import tempfile
from struct import pack, unpack

from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.ledger.wal import (
    FRAME_HEADER_BYTES,
    WAL_HEADER_BYTES,
    WalFrames,
    read_frames,
    sum_words,
)

PAGE_SIZES = [2**power for power in range(9, 17)]
ORDERS = "<>"


def add(order: str, content: bytes, sums: bytes = bytes(8)) -> bytes:
    """As https://www.sqlite.org/fileformat2.html#checksum_algorithm has it."""
    first, second = unpack(">II", sums)
    words = iter(unpack(f"{order}{len(content) // 4}I", content))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return pack(">II", first, second)


def build_wal(order: str, pages: list[bytes], commits: list[bool], salts: bytes = b"saltSALT") -> bytes:
    size = len(pages[0]) if pages else 512
    header = pack(">IIII", 0x377F0682 | (order == ">"), 3_007_000, size, 0) + salts
    sums = add(order, header)
    wal = header + sums
    for number, (page, is_commit) in enumerate(zip(pages, commits, strict=True), start=1):
        start = pack(">II", number, number if is_commit else 0)
        sums = add(order, page, add(order, start, sums))
        wal += start + salts + sums + page
    return wal


def read(wal: bytes) -> WalFrames | None:
    with tempfile.TemporaryFile() as file:
        file.write(wal)
        file.seek(0)
        return read_frames(file)


def count_by_loop(wal: bytes) -> tuple[int, int]:
    """Count the frames that SQLite reads and the transactions that it doesn't, frame by frame."""
    order = ">" if wal[3] & 1 else "<"
    step = FRAME_HEADER_BYTES + int.from_bytes(wal[8:12], "big")
    sums = add(order, wal[:24])
    is_whole = unpack(">I", wal[:4])[0] in (0x377F0682, 0x377F0683) and sums == wal[24:32]
    whole = hidden = 0
    for start in range(WAL_HEADER_BYTES, len(wal) - step + 1, step):
        frame = wal[start : start + step]
        sums = add(order, frame[FRAME_HEADER_BYTES:], add(order, frame[:8], sums))
        is_whole = is_whole and frame[8:16] == wal[16:24] and sums == frame[16:24]
        whole += is_whole
        hidden += not is_whole and any(frame[4:8])
    return whole, hidden


@given(
    st.sampled_from(ORDERS),
    st.binary(min_size=8, max_size=8),
    st.sampled_from([8, 24, *(size + 8 for size in PAGE_SIZES)]),
    st.randoms(use_true_random=False),
)
def test_the_sum_of_words_is_that_of_the_loop(
    order: str, sums: bytes, size: int, chosen: random.Random
) -> None:
    content = chosen.choice([chosen.randbytes(size), b"\xff" * size, bytes(size)])
    assert sum_words(order, content, sums) == add(order, content, sums)


@st.composite
def wals(draw: st.DrawFn) -> bytes:
    size = draw(st.sampled_from(PAGE_SIZES))
    commits = draw(st.lists(st.booleans(), min_size=1, max_size=8 if size < 8_192 else 3))
    chosen = draw(st.randoms(use_true_random=False))
    pages = [chosen.randbytes(size) for _ in commits]
    return build_wal(draw(st.sampled_from(ORDERS)), pages, commits)


@given(wals(), st.integers(0, 2**32))
def test_where_sqlite_stops_is_found_as_by_the_loop(wal: bytes, place: int) -> None:
    step = FRAME_HEADER_BYTES + int.from_bytes(wal[8:12], "big")
    frames = read(wal)
    assert frames is not None
    assert (frames.whole, frames.count_hidden()) == ((len(wal) - WAL_HEADER_BYTES) // step, 0)
    # Any bit of a page, or of what a frame says of itself, the page sizes and salts of the WAL's own header not included.
    flipped = bytearray(wal)
    bit = WAL_HEADER_BYTES * 8 + place % ((len(wal) - WAL_HEADER_BYTES) * 8)
    flipped[bit // 8] ^= 1 << bit % 8
    frames = read(bytes(flipped))
    assert frames is not None
    whole, hidden = count_by_loop(bytes(flipped))
    is_of_last = bit // 8 >= len(wal) - step
    in_salts = 8 <= (bit // 8 - WAL_HEADER_BYTES) % step < 16
    # The last frame with other salts looks like one from before.
    assert (frames.whole, frames.count_hidden()) == (whole, 0 if is_of_last and in_salts else hidden)


@given(wals(), st.integers(1, 5_000))
def test_a_torn_tail_hides_nothing(wal: bytes, cut: int) -> None:
    frames = read(wal[:-cut])
    assert frames is None or frames.count_hidden() == 0


@given(st.sampled_from(ORDERS), st.integers(1, 3), st.integers(0, 4))
def test_frames_from_before_the_wal_was_begun_anew_are_not_hidden(order: str, new: int, old: int) -> None:
    before = build_wal(order, [bytes([n]) * 512 for n in range(new + old)], [True] * (new + old), b"beforeIT")
    after = build_wal(order, [bytes([n + 99]) * 512 for n in range(new)], [True] * new)
    frames = read(after + before[len(after) :])
    assert frames is not None
    assert (frames.whole, frames.count_hidden()) == (new, 0)
    assert [frame.page for frame in frames.list_committed()] == list(range(1, new + 1))


def test_many_frames_are_read_in_parts() -> None:
    pages = [bytes([n % 256]) * 65_536 for n in range(70)]
    wal = bytearray(build_wal("<", pages, [n % 3 == 2 for n in range(70)]))
    frames = read(bytes(wal))
    assert frames is not None
    assert (frames.whole, frames.count_hidden(), frames.find_last_seen()) == (70, 0, 68)
    step = FRAME_HEADER_BYTES + 65_536
    wal[WAL_HEADER_BYTES + 50 * step + 100] ^= 4
    frames = read(bytes(wal))
    assert frames is not None
    assert (frames.whole, frames.count_hidden(), frames.find_last_seen()) == (50, 7, 47)
    assert [frame.page for frame in frames.list_committed()] == list(range(1, 70))
