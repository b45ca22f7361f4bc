"""A part's checksums: each bit of it counts."""

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.footer import FOOTER_KEY, decode_footer, encode_footer
from distilabel_dagster.cache.part_file import check_part, encode_part, is_ours, read_part, read_part_footer
from distilabel_dagster.cache.pipeline_cache import seal_store
from distilabel_dagster.cache.step_store import StepStore

FIXTURES = Path(__file__).parents[2] / "fixtures"
SIGNATURE = "c" * 40
TABLE = pa.table({"id": [1, 2, 3], "text": ["one", None, "three"], "many": [[1], [], [2, 3]]})


@pytest.fixture(scope="module")
def part() -> bytes:
    footer = encode_footer("work", SIGNATURE, [BatchRecord(0, 2), BatchRecord(1, 1, last_batch=True)])
    return encode_part(TABLE, footer)[0]


def test_a_part_gives_back_what_it_was_made_of(part: bytes) -> None:
    table, footer = read_part(part)
    assert table.equals(TABLE)
    assert [record.size for record in decode_footer(footer, "work", SIGNATURE, 1)] == [2, 1]

    told = read_part_footer(io.BytesIO(part))
    assert (told.schema, told.rows, told.content) == (TABLE.schema, 3, footer)
    assert pq.read_table(io.BytesIO(part)).equals(TABLE), "any reader of Parquet can read it"


def test_the_footer_that_was_written_is_told_with_its_checksums() -> None:
    content, footer = encode_part(TABLE, encode_footer("work", SIGNATURE, [BatchRecord(0, 3)]))
    assert read_part(content)[1] == footer
    assert json.loads(footer)["checksums"] != "0" * 16


def test_every_flipped_bit_is_noticed(part: bytes) -> None:
    length = int.from_bytes(part[-8:-4], "little") + 8
    for place in range(len(part)):
        for bit in range(8):
            flipped = bytearray(part)
            flipped[place] ^= 1 << bit
            with pytest.raises((ValueError, pa.ArrowException)):
                check_part(bytes(flipped))
            if place >= len(part) - length:
                with pytest.raises((ValueError, pa.ArrowException)):
                    read_part_footer(io.BytesIO(flipped))


def test_every_truncation_is_noticed(part: bytes) -> None:
    for length in range(len(part)):
        with pytest.raises((ValueError, pa.ArrowException)):
            read_part_footer(io.BytesIO(part[:length]))
        with pytest.raises((ValueError, pa.ArrowException)):
            read_part(part[:length])


def test_names_that_look_like_checksums_do_no_harm() -> None:
    odd = '{"checksums":"' + "a" * 16 + '"'
    record = BatchRecord(0, 1, errors={0: odd})
    content, footer = encode_part(
        pa.table({odd: [odd]}), encode_footer("work", SIGNATURE, [record, BatchRecord(1, 0)])
    )
    table, again = read_part(content)
    assert table.column_names == [odd]
    assert again == footer
    assert decode_footer(again, "work", SIGNATURE, 1)[0].errors == {0: odd}


@pytest.mark.parametrize("rows", [0, 1, 70_000])
def test_footers_of_any_length_are_read(rows: int) -> None:
    table = pa.table({f"a column with a long name, number {i}": [i] * rows for i in range(60)})
    record = BatchRecord(0, rows, requests=bytes(8) * rows)
    content, footer = encode_part(table, encode_footer("work", SIGNATURE, [record]))
    assert read_part_footer(io.BytesIO(content)).content == footer
    assert read_part(content)[0].equals(table)


def test_what_others_wrote_is_told_apart(part: bytes) -> None:
    sink = io.BytesIO()
    pq.write_table(TABLE.replace_schema_metadata({FOOTER_KEY: b"{}"}), sink)
    with pytest.raises(ValueError, match="wasn't written by this package, or by a version"):
        read_part(sink.getvalue())

    foreign = io.BytesIO()
    pq.write_table(TABLE, foreign)
    assert not is_ours(foreign.getvalue())
    assert not is_ours(b"")
    assert is_ours(part)


def test_parts_of_the_first_layout_are_read_and_go_on(tmp_path: Path) -> None:
    """As the first version wrote them: without checksums, and the footer twice."""
    directory = tmp_path / "steps_data" / f"work_{'a' * 40}"
    shutil.copytree(FIXTURES / "parts_of_layout_1", directory)
    store = StepStore(CacheFileSystem(tmp_path), "work", "a" * 40)
    store.open(for_writing=True)
    assert [record.size for record in store.records] == [2, 1]
    assert store.records[1].errors == {0: "ValueError: no"}
    assert store.read_all().to_pylist() == [
        {"id": 0.0, "text": None},
        {"id": 1.0, "text": "x"},
        {"id": 2.5, "text": None},
    ]
    seal_store(store)
    assert not store.has_lost_parts
    for part in directory.glob("*.parquet"):
        check_part(part.read_bytes())


def test_a_part_does_not_become_one_of_the_first_layout_by_a_lost_checksum(part: bytes) -> None:
    with pytest.raises(ValueError, match="kept no checksums"):
        check_part(part.replace(b'{"checksums":"', b'{"checksumx":"'))
