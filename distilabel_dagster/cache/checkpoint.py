"""The snapshot of a run in distilabel's words: `batch_manager.json` and `batch_manager_steps/<step>.json`.

It's derived from the committed batches and written for people and tools to read. Nothing here is needed to resume:
missing, torn or stale, it's simply written again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem

_MODULE: Final = "distilabel_dagster.cache.checkpoint"


class BatchSnapshot(TypedDict):
    """A batch without its rows, in distilabel's field names."""

    seq_no: int
    step_name: str
    last_batch: bool
    accumulated: bool
    created_from: dict[str, list[list[int]]]
    batch_routed_to: list[str]
    size: int


@dataclass(frozen=True, slots=True)
class StepSnapshot:
    """What the snapshot says of a step.

    Attributes:
        name: the step.
        signature: its signature.
        predecessors: predecessor -> its committed records.
        records: its own committed records.
        input_batch_size: rows per call; None for a generator.
        is_global: whether it takes all rows at once.
        is_convergence: whether it brings routed branches together.
    """

    name: str
    signature: str
    predecessors: Mapping[str, list[BatchRecord]]
    records: list[BatchRecord]
    input_batch_size: int | None
    is_global: bool
    is_convergence: bool


def write_snapshot(fs: CacheFileSystem, pipeline_signature: str, steps: list[StepSnapshot]) -> None:
    """Write the snapshot; each file is whole or absent. Its cost doesn't grow with the number of batches.

    Raises:
        CacheError: a file can't be written.
    """
    for name, content in describe_snapshot(steps).items():
        fs.write_bytes(f"{pipeline_signature}/{name}", json.dumps(content, indent=2).encode())


def describe_snapshot(steps: list[StepSnapshot]) -> dict[str, dict[str, Any]]:
    """Give what each file of the snapshot holds, by its path relative to the pipeline's directory."""
    with_input = [step for step in steps if step.input_batch_size is not None]
    last = {step.name: _describe_batch(step, step.records[-1] if step.records else None) for step in steps}
    manager = {
        "steps": {step.name: layout.batch_manager_step_name(step.name) for step in with_input},
        "last_batch_received": last,
        "last_batch_sent": last,
        "last_batch_flag_sent_to": [],
        "type_info": {"module": _MODULE, "name": "BatchManagerSnapshot"},
    }
    described = {layout.batch_manager_step_name(step.name): _describe_step(step) for step in with_input}
    return {layout.BATCH_MANAGER_FILE: manager, **described}


def _describe_batch(step: StepSnapshot, record: BatchRecord | None) -> BatchSnapshot | None:
    if record is None:
        return None
    sources = {
        name: [[source.seq_no, source.size, source.rows_used] for source in taken[-1:]]
        for name, taken in record.sources.items()
    }
    return {
        "seq_no": record.seq_no,
        "step_name": step.name,
        "last_batch": record.last_batch,
        "accumulated": step.is_global,
        "created_from": sources,
        "batch_routed_to": list(record.batch_routed_to),
        "size": record.size,
    }


def _describe_step(step: StepSnapshot) -> dict[str, Any]:
    record = step.records[-1] if step.records else None
    finished = [name for name, records in step.predecessors.items() if records and records[-1].last_batch]
    offsets = {
        name: [taken[-1].seq_no, taken[-1].rows_used]
        for name, taken in (record.sources if record else {}).items()
        if taken
    }
    return {
        "step_name": step.name,
        "accumulate": step.is_global,
        "input_batch_size": step.input_batch_size,
        "data": {name: [] for name in step.predecessors},
        "seq_no": len(step.records),
        "last_batch_received": finished,
        "convergence_step": step.is_convergence,
        "step_signature": step.signature,
        "step_offset": offsets,
        "type_info": {"module": _MODULE, "name": "BatchManagerStepSnapshot"},
    }
