import uuid

import pyarrow as pa

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.engine import output_log
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.engine.step_buffer import Slice


def make_log() -> OutputLog:
    return OutputLog(StepStore(CacheFileSystem(f"memory://{uuid.uuid4().hex}"), "step", "a" * 40))


def make_batch(seq_no: int, *values: object, last: bool = False) -> Batch:
    return Batch(BatchRecord(seq_no, len(values), last), pa.table({"n": list(values)}))


def commit(log: OutputLog) -> None:
    pending = list(log.pending)
    log.store.append(pending)
    log.mark_committed(len(pending))


def test_batches_can_be_read_before_and_after_they_are_committed() -> None:
    log = make_log()
    log.append(make_batch(0, 1, 2, 3))
    assert log.read(0, 1, 3).to_pylist() == [{"n": 2}, {"n": 3}]
    commit(log)
    log.append(make_batch(1, 4, last=True))
    assert (log.committed, log.committed_rows, log.rows, log.is_complete) == (1, 3, 4, True)
    assert (log.pending_rows, log.pending_bytes > 0) == (1, True)
    commit(log)
    assert (log.committed_rows, log.pending_rows, log.pending_bytes) == (4, 0, 0)


def test_what_a_reader_has_still_to_take_is_held_up_to_a_limit(monkeypatch) -> None:
    monkeypatch.setattr(output_log, "HELD_BYTES", 200)
    log = make_log()
    log.add_reader("behind")
    for seq_no in range(100):
        log.append(make_batch(seq_no, seq_no, seq_no))
        commit(log)
    assert 100 < log.held_bytes <= 200
    assert [log.read(n, 0, 1).to_pylist()[0]["n"] for n in range(100)] == list(range(100))


def test_what_all_readers_have_taken_is_let_go() -> None:
    log = make_log()
    for step in ("near", "far"):
        log.add_reader(step)
    for seq_no in range(10):
        log.append(make_batch(seq_no, seq_no))
    size = log.held_bytes // 10
    commit(log)
    log.mark_taken("near", 8)
    assert log.held_bytes == 10 * size
    log.mark_taken("far", 3)
    assert log.held_bytes == 7 * size
    log.remove_reader("far")
    assert log.held_bytes == 2 * size
    log.remove_reader("near")
    assert log.held_bytes == 0


def test_committed_rows_that_nobody_reads_take_no_memory() -> None:
    log = make_log()
    log.append(make_batch(0, 1, 2))
    assert log.held_bytes > 0
    commit(log)
    assert log.held_bytes == 0
    assert log.read(0, 0, 2).num_rows == 2
    log.remove_reader("never came")
    assert log.store._tables == {}


def test_a_log_and_its_store_share_the_records_of_committed_batches() -> None:
    log = make_log()
    for seq_no in range(3):
        log.append(make_batch(seq_no, seq_no))
    log.store.append(log.pending[:2])
    log.mark_committed(2)
    assert [record is kept for record, kept in zip(log.records, log.store.records, strict=False)] == [
        True,
        True,
    ]
    assert log.records[2].part == 0


def test_a_row_is_as_large_as_those_of_the_latest_batch() -> None:
    log = make_log()
    assert log.bytes_per_row == 0
    log.append(make_batch(0, 1, 2))
    assert log.bytes_per_row == 8
    log.append(make_batch(1))
    assert log.bytes_per_row == 8


def test_what_is_not_committed_is_never_let_go(monkeypatch) -> None:
    monkeypatch.setattr(output_log, "HELD_BYTES", 0)
    log = make_log()
    for seq_no in range(10):
        log.append(make_batch(seq_no, seq_no))
    log.store.append(log.pending[:4])
    log.mark_committed(4)
    assert [log.read(n, 0, 1).to_pylist()[0]["n"] for n in range(10)] == list(range(10))


def test_rows_of_several_batches_come_together_with_the_columns_of_all() -> None:
    log = make_log()
    log.append(make_batch(0, 1, 2))
    log.append(Batch(BatchRecord(1, 1), pa.table({"text": ["x"]})))
    read = log.read_slices([Slice(0, 1, 2), Slice(1, 0, 1)])
    assert read.to_pylist() == [{"n": 2, "text": None}, {"n": None, "text": "x"}]
    assert log.read_slices([]).num_rows == 0


def test_a_reader_and_whoever_seals_the_step_do_not_get_in_each_other_s_way() -> None:
    """Sealing writes parts anew with the columns that came later; readers may be in the middle of them."""
    log = make_log()
    log.append(make_batch(0, 1, 2))
    commit(log)
    log.append(Batch(BatchRecord(1, 1, last_batch=True), pa.table({"text": ["x"]})))
    commit(log)
    sealing = StepStore(log.store.fs, "step", "a" * 40)
    sealing.open()
    sealing.unite_parts()
    assert log.read(0, 0, 2).to_pylist() == [{"n": 1}, {"n": 2}]
    assert log.read(1, 0, 1).to_pylist() == [{"text": "x"}]
