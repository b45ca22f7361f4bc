"""Parts that aren't what their names say: set aside by the writer, left out by readers, never taken for data."""

import datetime as dt
import io
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.footer import CHECKSUMS_BEGIN
from distilabel_dagster.cache.part_file import encode_part, read_part
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.errors import CacheDirectoryError, DamagedFileError

SIGNATURE = "a" * 40
PATH = f"steps_data/work_{SIGNATURE}"


@pytest.fixture
def fs() -> Iterator[CacheFileSystem]:
    made = CacheFileSystem(f"memory://{uuid.uuid4().hex}")
    yield made
    made.remove_all()


def open_store(fs: CacheFileSystem, *, for_writing: bool = False, step: str = "work") -> StepStore:
    store = StepStore(fs, step, SIGNATURE)
    store.open(for_writing=for_writing)
    return store


def batch(seq_no: int, *, last_batch: bool = False) -> Batch:
    return Batch(BatchRecord(seq_no, 2, last_batch), build_table([{"id": seq_no}, {"id": seq_no}], "work"))


@pytest.fixture
def whole(fs: CacheFileSystem) -> StepStore:
    """Three parts of a batch each, the last one complete."""
    store = open_store(fs, for_writing=True)
    for seq_no in range(3):
        store.append([batch(seq_no, last_batch=seq_no == 2)])
    return store


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_footer(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """Change a footer, and make checksums that fit: what a stranger's file may hold, or that of another version."""

    def rewrite(content: bytes) -> bytes:
        table, text = read_part(content)
        footer = {**json.loads(text), "checksums": "0" * 16}
        changed = change(footer)
        return encode_part(table, changed if isinstance(changed, bytes) else dump(footer))[0]

    return rewrite


def dump(footer: dict[str, Any]) -> bytes:
    return json.dumps(footer, separators=(",", ":")).encode()


def begun(rest: bytes) -> bytes:
    return CHECKSUMS_BEGIN + b"0" * 16 + b'",' + rest


def with_batch(**fields: Any) -> Callable[[bytes], bytes]:
    return with_footer(lambda footer: footer["batches"][0].update(fields))


def foreign(_: bytes) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 1]}), sink)
    return sink.getvalue()


def garble_thrift(content: bytes) -> bytes:
    """Damage Parquet's own metadata, behind which its length still stands."""
    length = int.from_bytes(content[-8:-4], "little")
    return content[: -8 - length] + b"\xff" * length + content[-8:]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "torn": (cut, ""),
    "empty": (lambda _: b"", ""),
    "text": (lambda _: b"no parquet at all", ""),
    "garbled": (garble_thrift, ""),
    "foreign": (foreign, "wasn't written by this package"),
    "other step": (with_footer(lambda f: f.update(step_name="other")), "belongs to step 'other'"),
    "other signature": (
        with_footer(lambda f: f.update(signature="b" * 40)),
        "belongs to step 'work' with signature 'b",
    ),
    "other format": (with_footer(lambda f: f.update(format=3)), "has the format 3, expected 2"),
    "no json": (with_footer(lambda _: begun(b"")), ""),
    "other json": (with_footer(lambda f: begun(b'"format":[]}')), "has the format []"),
    "deep": (with_footer(lambda _: begun(b'"x":' + b"[" * 100_000)), "nested too deeply"),
    "not utf-8": (with_footer(lambda _: begun(b"\xff")), ""),
    "no batches": (with_footer(lambda f: f.pop("batches")), "footer is damaged (KeyError"),
    "fewer rows": (with_batch(size=1), "counts other rows than it holds"),
    "rows below zero": (with_batch(size=-2), "holds -2 where a count belongs"),
    "half a row": (with_batch(size=2.5), "holds 2.5 where a count belongs"),
    "a boolean": (with_batch(seq_no=True), "holds True where a count belongs"),
    "text for a number": (with_batch(revision="9"), "holds '9' where a count belongs"),
    "absurd revision": (with_batch(revision=10**30), "where a count belongs"),
    "absurd source": (with_batch(created_from={"load": [[0, 2, 10**40, 0]]}), "where a count belongs"),
    "more taken than there was": (with_batch(created_from={"load": [[0, 2, 3, 0]]}), "more rows taken"),
    "half a source": (with_batch(created_from={"load": [[0]]}), "footer is damaged"),
    "error of no row": (with_batch(errors={"7": "x"}), "failed rows that a batch doesn't have"),
    "unknown schema": (with_batch(schema=3), "footer is damaged (IndexError"),
    "other batch": (with_batch(seq_no=7), "should begin with batch 1"),
    "schema of other columns": (
        with_footer(
            lambda f: (
                f["batches"][0].update(schema=0),
                f.update(schemas=[pa.schema([("x", pa.int8())]).serialize().to_pybytes().hex()]),
            )
        ),
        "names columns that it doesn't hold",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_set_aside_with_those_behind_it(
    fs: CacheFileSystem, whole: StepStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, told = DAMAGES[damage]
    second, third = whole.part_file(2), whole.part_file(3)
    damaged = change(fs.read_bytes(second))
    fs.write_bytes(second, damaged)
    fs.write_bytes(f"{PATH}/complete.json", b"{}")

    with caplog.at_level(logging.WARNING):
        reader = open_store(fs)
    assert [record.seq_no for record in reader.records] == [0]
    assert not reader.is_complete
    assert fs.full_path(second) in caplog.text
    assert told in caplog.text
    assert fs.read_bytes(second) == damaged, "a reader changes nothing"

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        writer = open_store(fs, for_writing=True)
    assert [record.seq_no for record in writer.records] == [0]
    assert writer.has_lost_parts
    assert fs.full_path(f"{second}.set-aside") in caplog.text
    assert fs.full_path(f"{third}.set-aside") in caplog.text
    assert fs.read_bytes(f"{second}.set-aside") == damaged
    assert fs.list_names(PATH) == ["00001.parquet", "00002.parquet.set-aside", "00003.parquet.set-aside"]

    writer.append([batch(1), batch(2, last_batch=True)])
    again = open_store(fs)
    assert again.is_complete
    assert again.has_lost_parts, "what was lost once is known for ever"
    assert again.read_all()["id"].to_pylist() == [0, 0, 1, 1, 2, 2]


def test_a_missing_part_ends_what_counts(fs: CacheFileSystem, whole: StepStore) -> None:
    fs.remove(whole.part_file(1))
    assert open_store(fs).records == []
    writer = open_store(fs, for_writing=True)
    assert writer.records == []
    assert fs.list_names(PATH) == ["00002.parquet.set-aside", "00003.parquet.set-aside"]


def test_a_part_behind_the_last_batch_does_not_count(fs: CacheFileSystem, whole: StepStore) -> None:
    fs.link(whole.part_file(3), f"{PATH}/00004.parquet")
    content = with_batch(seq_no=3)(fs.read_bytes(whole.part_file(3)))
    fs.write_bytes(f"{PATH}/00004.parquet", content)
    writer = open_store(fs, for_writing=True)
    assert len(writer.records) == 3
    assert writer.is_complete
    assert "00004.parquet.set-aside" in fs.list_names(PATH)


def test_other_files_are_left_alone(fs: CacheFileSystem, whole: StepStore) -> None:
    for name in ("notes.txt", "1.parquet", "00001.parquet.bak", "00001.PARQUET"):
        fs.write_bytes(f"{PATH}/{name}", b"somebody's")
    assert len(open_store(fs, for_writing=True).records) == 3
    assert fs.read_bytes(f"{PATH}/1.parquet") == b"somebody's"


def test_a_part_that_goes_while_it_is_read_is_named(fs: CacheFileSystem, whole: StepStore) -> None:
    reader = open_store(fs)
    fs.remove(whole.part_file(2))
    with pytest.raises(DamagedFileError, match=r"00002\.parquet can't be read"):
        reader.read(1)
    assert reader.read(0)["id"].to_pylist() == [0, 0]


def test_rows_damaged_behind_a_whole_footer_are_named_when_read(
    fs: CacheFileSystem, whole: StepStore
) -> None:
    content = bytearray(fs.read_bytes(whole.part_file(2)))
    content[4:40] = bytes(36)
    fs.write_bytes(whole.part_file(2), bytes(content))
    reader = open_store(fs)
    assert len(reader.records) == 3
    with pytest.raises(DamagedFileError, match=r"(?s)00002\.parquet can't be read .*computed again"):
        reader.read(1)
    assert [record.seq_no for record in open_store(fs).records] == [0]
    assert [record.seq_no for record in open_store(fs, for_writing=True).records] == [0]
    assert fs.list_names(PATH) == ["00001.parquet", "00002.parquet.set-aside", "00003.parquet.set-aside"]


def test_a_part_that_cannot_be_got_at_is_no_damaged_part(
    fs: CacheFileSystem, whole: StepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that refuses for a moment must not cost what was paid for."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Forbidden")

    monkeypatch.setattr(fs._fs, "open", refuse)
    with pytest.raises(CacheDirectoryError, match=r"00001\.parquet can't be read: Forbidden"):
        open_store(fs, for_writing=True)
    monkeypatch.undo()
    assert fs.list_names(PATH) == ["00001.parquet", "00002.parquet", "00003.parquet"]


def test_batches_without_rows_need_no_columns(fs: CacheFileSystem) -> None:
    store = open_store(fs, for_writing=True)
    store.append([Batch(BatchRecord(0, 0, last_batch=True), build_table([], "work"))])
    again = open_store(fs)
    assert again.is_complete
    assert again.read(0).num_rows == 0
    assert again.read_all().num_rows == 0


def test_rows_in_a_part_without_columns_are_refused(fs: CacheFileSystem) -> None:
    store = open_store(fs, for_writing=True)
    store.append([Batch(BatchRecord(0, 0, last_batch=True), build_table([], "work"))])
    fs.write_bytes(store.part_file(1), with_batch(size=10**12)(fs.read_bytes(store.part_file(1))))
    assert open_store(fs).records == []


@pytest.mark.parametrize(
    "rows",
    [
        [{"at": dt.timedelta(seconds=3), "tags": ["a"]}],
        [{"at": {"deep": [{"x": b"y"}]}, "tags": []}],
    ],
)
def test_a_resumed_store_takes_more_of_the_same(fs: CacheFileSystem, rows: list[dict[str, Any]]) -> None:
    """The schema read from the file is the one that was written: Parquet's own has fewer types."""
    first = open_store(fs, for_writing=True)
    first.append([Batch(BatchRecord(0, 1), build_table(rows, "work"))])
    again = open_store(fs, for_writing=True)
    assert again.schema.equals(first.schema, check_metadata=True)
    assert str(again.schema) == str(first.schema)
    again.append([Batch(BatchRecord(1, 1, last_batch=True), build_table(rows, "work"))])
    assert [again.read(seq_no).to_pylist() for seq_no in (0, 1)] == [rows, rows]
