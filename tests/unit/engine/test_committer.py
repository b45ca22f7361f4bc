import asyncio

import pyarrow as pa

from distilabel_dagster.batch import Batch, BatchRecord
from distilabel_dagster.engine.committer import Committer
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.engine.run_state import RunOptions, RunState
from tests.unit.engine.runs import Bench, chain


def make_batch(seq_no: int, value: object = 1, *, last: bool = False) -> Batch:
    return Batch(BatchRecord(seq_no, 1, last), pa.table({"n": [value]}))


def test_what_a_round_that_was_given_up_had_written_is_not_written_again() -> None:
    pipeline, cache = Bench(chain()).open()
    log = OutputLog(cache.stores["load"])
    state = RunState({"load": log}, RunOptions())
    for seq_no in range(3):
        log.append(make_batch(seq_no, last=seq_no == 2))
    log.store.append(log.pending[:2])

    async def commit() -> None:
        committer = Committer(pipeline.dag, cache, state)
        await committer.commit()
        committer.close()

    asyncio.run(commit())
    assert (log.committed, log.pending) == (3, [])
    log.store.open()
    assert [record.seq_no for record in log.store.records] == [0, 1, 2]


def test_a_round_that_is_on_is_finished_before_the_end() -> None:
    pipeline, cache = Bench(chain()).open()
    log = OutputLog(cache.stores["load"])
    state = RunState({"load": log}, RunOptions())

    async def run() -> None:
        committer = Committer(pipeline.dag, cache, state)
        committing = asyncio.ensure_future(committer.run())
        await asyncio.sleep(0)
        log.append(make_batch(0))
        committer.finish()
        await asyncio.wait_for(committing, 10)
        committer.close()

    asyncio.run(run())
    assert log.committed == 1


def test_what_steps_have_pending_together_calls_for_a_round() -> None:
    pipeline, cache = Bench(chain("a")).open()
    logs = {name: OutputLog(cache.stores[name]) for name in ("load", "a")}
    size = make_batch(0).table.nbytes
    state = RunState(logs, RunOptions(max_pending_bytes=5 * size))
    committer = Committer(pipeline.dag, cache, state)
    for seq_no in range(3):
        assert not committer._is_urgent()
        for log in logs.values():
            log.append(make_batch(seq_no))
    assert committer._is_urgent()
    committer.close()
