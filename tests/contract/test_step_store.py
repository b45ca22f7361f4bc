from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilabel_dagster.batch import Batch, BatchRecord, Rows, Source
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.errors import ColumnTypeError, IncompleteRunError, StepInUseError
from tests.contract.conftest import Place

SIGNATURE, PIPELINE = "a" * 40, "b" * 40
DIRECTORY, SHOWN = f"steps_data/work_{SIGNATURE}", f"{PIPELINE}/data/work"


def make_batch(seq_no: int, rows: Rows, *, last_batch: bool = False, revision: int = 0) -> Batch:
    record = BatchRecord(
        seq_no=seq_no,
        size=len(rows),
        last_batch=last_batch,
        created_from={"load": [Source(seq_no, 5, 3), Source(seq_no + 1, 5, 0, revision=2)]},
        batch_routed_to=("a", "b") if seq_no % 2 else (),
        revision=revision,
        errors={0: "ValueError: no"} if rows and seq_no == 1 else None,
    )
    return Batch(record, build_table(rows, "work"))


def open_store(fs: CacheFileSystem, *, for_writing: bool = False) -> StepStore:
    store = StepStore(fs, "work", SIGNATURE, leaf_of=PIPELINE)
    store.open(for_writing=for_writing)
    return store


def read_rows(store: StepStore) -> list[Rows]:
    return [store.read(record.seq_no).to_pylist() for record in store.records]


def read_shown(fs: CacheFileSystem) -> Rows:
    """What a plain reader of the folder sees, file by file."""
    rows: Rows = []
    for name in fs.list_names(SHOWN):
        with fs.open_input(f"{SHOWN}/{name}") as file:
            rows += pq.read_table(file).to_pylist()
    return rows


BATCHES = [
    make_batch(0, [{"id": 0}, {"id": 1}]),
    make_batch(1, [{"id": 2, "text": "x"}]),
    make_batch(2, []),
    make_batch(3, [{"id": 3.5, "more": {"a": [1]}}], last_batch=True),
]


def test_what_is_appended_is_there_for_others(fs: CacheFileSystem, place: Place) -> None:
    store = open_store(fs, for_writing=True)
    assert store.records == []
    store.append(BATCHES[:2])
    store.append(BATCHES[2:])
    for each in (store, open_store(place.open())):
        assert [replace(r, part=0, row_offset=0, schema=None) for r in each.records] == [
            b.record for b in BATCHES
        ]
        assert read_rows(each) == [batch.table.to_pylist() for batch in BATCHES]
        assert each.is_complete
        assert each.read_all().num_rows == 4
        assert each.read_all().column_names == ["id", "text", "more"]
    assert place.files() == sorted(
        f"{directory}/{part}"
        for directory in (DIRECTORY, SHOWN)
        for part in ("00001.parquet", "00002.parquet")
    )
    assert [row["id"] for row in read_shown(fs)] == [0, 1, 2, 3.5]


def test_a_batch_is_replaced_in_its_place(fs: CacheFileSystem, place: Place) -> None:
    store = open_store(fs, for_writing=True)
    store.append(BATCHES[:2])
    store.append(BATCHES[2:])
    again = make_batch(0, [{"id": 7, "new": "y"}, {"id": 8}, {"id": 9}], revision=5)
    store.replace([again])
    for each in (store, open_store(place.open())):
        assert read_rows(each)[0] == again.table.to_pylist()
        assert read_rows(each)[1:] == [batch.table.to_pylist() for batch in BATCHES[1:]]
        assert each.records[0].revision == 5
    assert [row["id"] for row in read_shown(fs)] == [7, 8, 9, 2, 3.5]


@pytest.mark.parametrize("count", range(5))
def test_all_but_the_first_batches_are_forgotten(fs: CacheFileSystem, place: Place, count: int) -> None:
    store = open_store(fs, for_writing=True)
    store.append(BATCHES[:3])
    store.append(BATCHES[3:])
    store.truncate(count)
    for each in (store, open_store(place.open())):
        assert read_rows(each) == [batch.table.to_pylist() for batch in BATCHES[:count]]
    store.append(BATCHES[count:])
    store.show_all()
    assert read_rows(open_store(place.open())) == [batch.table.to_pylist() for batch in BATCHES]
    assert [row["id"] for row in read_shown(fs)] == [0, 1, 2, 3.5]


def test_a_reset_leaves_no_part_anywhere(fs: CacheFileSystem, place: Place) -> None:
    cache = PipelineCache(fs, PIPELINE, {"work": SIGNATURE}, ["work"])
    store = cache.stores["work"]
    store.open(for_writing=True)
    store.append(BATCHES)
    cache.seal_step("work")
    store.reset()
    assert place.files() == []
    assert store.records == []
    store.append(BATCHES[:1])
    assert read_rows(open_store(place.open())) == [BATCHES[0].table.to_pylist()]


def test_show_all_brings_the_leaf_in_line(fs: CacheFileSystem) -> None:
    store = open_store(fs, for_writing=True)
    store.append(BATCHES[:2])
    store.append(BATCHES[2:])
    fs.remove(f"{SHOWN}/00001.parquet")
    fs.write_bytes(f"{SHOWN}/00002.parquet", b"stale")
    fs.write_bytes(f"{SHOWN}/00003.parquet", b"of another time")
    fs.write_bytes(f"{SHOWN}/notes.txt", b"somebody's")
    store.show_all()
    store.show_all()
    assert fs.list_names(SHOWN) == ["00001.parquet", "00002.parquet", "notes.txt"]
    fs.remove(f"{SHOWN}/notes.txt")
    assert [row["id"] for row in read_shown(fs)] == [0, 1, 2, 3.5]


def test_sealing_gives_all_parts_one_schema_and_a_marker(fs: CacheFileSystem, place: Place) -> None:
    cache = PipelineCache(fs, PIPELINE, {"work": SIGNATURE}, ["work"])
    store = cache.stores["work"]
    store.open(for_writing=True)
    store.append(BATCHES[:2])
    with pytest.raises(IncompleteRunError, match="`work`"):
        cache.seal_step("work")
    store.append(BATCHES[2:])
    reader = open_store(place.open())
    marker = cache.seal_step("work")
    assert marker == {
        "format": 1,
        "step_name": "work",
        "signature": SIGNATURE,
        "rows": 4,
        "batches": 4,
        "schema": {"id": "double", "text": "string", "more": "struct<a: list<item: int64>>"},
        "failed_rows": 1,
    }
    assert cache.read_marker("work") == marker
    schemas = set()
    for name in fs.list_names(SHOWN):
        with fs.open_input(f"{SHOWN}/{name}") as file:
            schemas.add(str(pq.read_schema(file).remove_metadata()))
    assert len(schemas) == 1
    # One who began to read before the parts were written anew goes on, and gets each batch as it was handed on.
    assert read_rows(reader) == [batch.table.to_pylist() for batch in BATCHES]
    assert read_rows(open_store(place.open())) == [batch.table.to_pylist() for batch in BATCHES]
    before = {path: fs._fs.info(f"{fs.root}/{path}") for path in place.files()}
    assert cache.seal_step("work") == marker
    assert {path: fs._fs.info(f"{fs.root}/{path}") for path in place.files()} == before


def test_a_part_that_holds_other_batches_now_is_noticed(fs: CacheFileSystem, place: Place) -> None:
    writer = open_store(fs, for_writing=True)
    writer.append(BATCHES)
    reader = open_store(place.open())
    writer.replace([make_batch(0, [{"id": 7}, {"id": 8}], revision=1)])
    with pytest.raises(OSError, match="another run has written it anew"):
        reader.read(0)


def test_a_type_that_cannot_be_united_changes_nothing(fs: CacheFileSystem, place: Place) -> None:
    store = open_store(fs, for_writing=True)
    store.append(BATCHES[:1])
    files = place.files()
    with pytest.raises(
        ColumnTypeError, match="Step `work`: column `id` is int64 in some batches and string in others"
    ):
        store.append([make_batch(1, [{"id": "text"}])])
    assert place.files() == files
    assert read_rows(store) == [BATCHES[0].table.to_pylist()]


def test_many_bytes_become_several_parts(fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilabel_dagster.cache.step_store._PART_BYTES", 1000)
    store = open_store(fs, for_writing=True)
    batches = [make_batch(number, [{"text": "x" * 400}]) for number in range(5)]
    store.append(batches)
    assert fs.list_names(DIRECTORY) == ["00001.parquet", "00002.parquet", "00003.parquet"]
    assert read_rows(open_store(fs)) == [batch.table.to_pylist() for batch in batches]
    assert isinstance(store.read_all(), pa.Table)


def test_a_writer_whose_lease_is_gone_changes_nothing(fs: CacheFileSystem, place: Place) -> None:
    """Paused at any moment, and awake again when another has taken over."""
    paused = open_store(fs, for_writing=True)
    paused.append(BATCHES[:2])
    successor = open_store(fs, for_writing=True)
    successor.append([BATCHES[2]])
    before = {path: fs.read_bytes(path) for path in place.files()}

    def refuse() -> None:
        raise StepInUseError("taken over")

    paused.guard = refuse
    again = Batch(replace(BATCHES[0].record, revision=9), BATCHES[0].table)
    for change in (
        lambda: paused.append([BATCHES[2]]),
        lambda: paused.replace([again]),
        lambda: paused.truncate(1),
        lambda: paused.show(1),
        lambda: paused.write_beside("complete.json", b"{}"),
        paused.reset,
        lambda: paused.open(for_writing=True),
    ):
        with pytest.raises(StepInUseError):
            change()
    assert {path: fs.read_bytes(path) for path in place.files()} == before
    assert read_rows(open_store(fs)) == [batch.table.to_pylist() for batch in BATCHES[:3]]
