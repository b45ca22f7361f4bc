"""Which process a run lives in: noted on the run, so that one that died unseen isn't taken for one that works."""

import json
import multiprocessing
import os
from collections.abc import Collection

import dagster as dg

from distilabel_dagster.ledger.processes import ProcessIdentity, current_host, current_process
from distilabel_dagster.orchestration.metadata import PARTITION_TAG, PROCESS_TAG

_ON: list[dg.DagsterRunStatus] = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def note_run_process(context: dg.AssetExecutionContext) -> None:
    """Note on the run which process it lives in; nothing where that isn't known, as with executors of other packages.

    It's this one, or the one that the multiprocess executor works in and that has started this one. Either has logged its
    number at the run's start.
    """
    parent = multiprocessing.parent_process()
    pids = _find_pids(context, dg.DagsterEventType.ENGINE_EVENT)
    if os.getpid() in pids:
        process = current_process()
    elif parent is not None and parent.pid in pids:
        process = ProcessIdentity(current_host(), parent.pid, "")
    else:
        return
    told = {"run": context.run.run_id, "host": process.host, "pid": process.pid, "start": process.start}
    value = json.dumps(told)
    if context.run.tags.get(PROCESS_TAG) != value:
        context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: value})


def is_op_of_executor(context: dg.AssetExecutionContext) -> bool:
    """Tell whether this process was started by an executor for an op; one that a code server starts for a run isn't."""
    return os.getpid() in _find_pids(context, dg.DagsterEventType.STEP_WORKER_STARTED)


def _find_pids(context: dg.AssetExecutionContext, kind: dg.DagsterEventType) -> set[int]:
    """The processes that events of a kind name."""
    found = set()
    for entry in context.instance.all_logs(context.run.run_id, of_type=kind):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event is not None else None
        if pid is not None and str(pid.value).isdigit():
            found.add(int(str(pid.value)))
    return found


def is_surely_dead(run: dg.DagsterRun) -> bool:
    """Tell whether the process that a run lives in is known to be gone; False wherever that can't be known from here."""
    try:
        told = json.loads(run.tags[PROCESS_TAG])
        if told["run"] != run.run_id:
            return False  # a retry of it, which got its tags
        process = ProcessIdentity(str(told["host"]), int(told["pid"]), str(told["start"]))
    except (KeyError, TypeError, ValueError):
        return False
    return process.is_surely_dead()


def end_dead_runs(instance: dg.DagsterInstance, partitions: Collection[str]) -> None:
    """Have runs of some partitions count as failed whose process was killed, so that they're in nobody's way.

    Dagster itself hears of such an end only where a code server has started the run, and still lives.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=_ON)):
        if run.tags.get(PARTITION_TAG) in partitions and is_surely_dead(run):
            pid = json.loads(run.tags[PROCESS_TAG])["pid"]
            instance.report_run_failed(
                run,
                f"Process {pid}, in which this run was, is gone. The next run goes on from what it has committed.",
            )
