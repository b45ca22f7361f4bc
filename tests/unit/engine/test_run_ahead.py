import uuid
from dataclasses import dataclass

import pyarrow as pa
import pytest

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.engine import run_ahead
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.engine.run_ahead import has_room
from distilabel_dagster.engine.run_state import RunOptions, RunState

ROW_BYTES = 8


@dataclass
class Waiting:
    """A consumer with so many rows before it."""

    rows: int
    wanted_rows: int = 50

    def waiting_rows(self, predecessor: str) -> int:
        return self.rows


def make_state(*, held: int = 0, committed: bool = True, **options: int) -> RunState:
    """A step that holds so many rows for a reader."""
    log = OutputLog(StepStore(CacheFileSystem(f"memory://{uuid.uuid4().hex}"), "step", "a" * 40))
    log.add_reader("behind")
    log.append(Batch(BatchRecord(0, held + 1), pa.table({"n": list(range(held + 1))})))
    if committed:
        log.store.append(log.pending)
        log.mark_committed(1)
    return RunState({"step": log}, RunOptions(**options))


def test_without_a_consumer_only_what_waits_to_be_committed_counts() -> None:
    assert has_room("step", [], make_state(held=1000, max_held_bytes=1))
    assert not has_room("step", [], make_state(held=1000, committed=False, max_pending_bytes=1000))


def test_too_much_to_commit_holds_up_everyone() -> None:
    state = make_state(held=1000, committed=False, max_pending_bytes=1000 * ROW_BYTES)
    assert not has_room("step", [Waiting(0)], state)


@pytest.mark.parametrize(("rows", "expected"), [(20_000, True), (20_001, False)])
def test_the_nearest_consumer_counts(rows: int, expected: bool) -> None:
    assert has_room("step", [Waiting(10**6), Waiting(rows)], make_state()) is expected


def test_a_consumer_that_lacks_rows_gets_them_however_much_is_held() -> None:
    state = make_state(held=1000, max_held_bytes=1, max_rows_ahead=0)
    assert has_room("step", [Waiting(100)], state)
    assert not has_room("step", [Waiting(101)], state)
    assert has_room("step", [Waiting(2000, wanted_rows=1000), Waiting(10**6)], state)


def test_bytes_count_as_well_as_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ahead, "HELD_BYTES", 500 * ROW_BYTES)
    assert has_room("step", [Waiting(500)], make_state())
    assert not has_room("step", [Waiting(501)], make_state())
    assert not has_room("step", [Waiting(500)], make_state(held=1000, max_held_bytes=1000))
