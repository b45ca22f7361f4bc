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


def test_memory_stays_bounded_and_what_was_let_go_is_read_from_the_cache(monkeypatch) -> None:
    monkeypatch.setattr(output_log, "_HOT_BYTES", 200)
    log = make_log()
    for seq_no in range(100):
        log.append(make_batch(seq_no, seq_no, seq_no))
        commit(log)
    assert log._hot_bytes <= 200
    assert [log.read(n, 0, 1).to_pylist()[0]["n"] for n in range(100)] == list(range(100))


def test_what_is_not_committed_is_never_let_go(monkeypatch) -> None:
    monkeypatch.setattr(output_log, "_HOT_BYTES", 0)
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
    log._hot.clear()
    sealing = StepStore(log.store.fs, "step", "a" * 40)
    sealing.open()
    sealing.unite_parts()
    assert log.read(0, 0, 2).to_pylist() == [{"n": 1}, {"n": 2}]
    assert log.read(1, 0, 1).to_pylist() == [{"text": "x"}]
