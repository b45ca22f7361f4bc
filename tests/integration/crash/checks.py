"""Whether a cache is what the model says, after each end of a run and at the end of all."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow.parquet as pq
import yaml

from tests.integration.crash.cache_image import CacheImage, Entry, Row, StepImage, UnreadableError, read_part
from tests.integration.crash.findings import Finding, compare_rows
from tests.integration.crash.model import Model, apply, choose_route
from tests.integration.crash.shapes import StepShape

Findings = Iterator[Finding]
_LEDGER_FILES = {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"}


def check_committed(image: CacheImage, model: Model, when: str) -> list[Finding]:
    """Check what is committed at any moment: right rows in order, from batches that are there, in files that agree."""
    return _collect(when, image, model, [_check_steps, _check_shown, _check_markers, _check_snapshot])


def check_finished(image: CacheImage, model: Model, *, is_damaged: bool) -> list[Finding]:
    """Check what must be so when a run has ended well.

    Args:
        image: the cache.
        model: what must be in it.
        is_damaged: whether a file was harmed on the way, so that it stands aside.
    """
    checks = [_check_all_rows, _check_all_shown, _check_all_marked, _check_last_snapshot, _check_frozen]
    findings = _collect("at the end", image, model, checks)
    findings += [Finding("wrong", f"at the end: {told}") for told in _find_leftovers(image, is_damaged)]
    return findings


def _collect(
    when: str, image: CacheImage, model: Model, checks: list[Callable[[CacheImage, Model], Findings]]
) -> list[Finding]:
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += [
                Finding(each.kind, f"{when}: {each.what}", each.count) for each in check(image, model)
            ]
        except UnreadableError as error:
            findings.append(Finding("wrong", f"{when}: {error}"))
    return findings


def _check_steps(image: CacheImage, model: Model) -> Findings:
    for step in image.steps.keys() - model.made.keys():
        yield Finding("wrong", f"there is a step {step}")
    for step, made in model.made.items():
        entries = image.entries(step)
        rows = image.rows(step)
        yield from _compare(model, f"step {step}", rows, made[: len(rows)])
        if [entry.seq_no for entry in entries] != list(range(len(entries))):
            yield Finding("wrong", f"step {step} has the batches {[entry.seq_no for entry in entries]}")
        if any(entry.last_batch for entry in entries[:-1]):
            yield Finding("wrong", f"step {step} goes on behind its last batch")
        if _is_complete(entries) and len(rows) < len(made):
            yield Finding(
                "lost", f"step {step} ended with {len(rows)} of {len(made)} rows", len(made) - len(rows)
            )
        for entry in entries:
            wanted = choose_route(model.shape, step, entry.seq_no)
            if entry.batch_routed_to != wanted:
                yield Finding("wrong", f"step {step}: batch {entry.seq_no} went to {entry.batch_routed_to}")
    for shape in model.shape.steps:
        yield from _check_sources(image, model, shape)


def _compare(model: Model, where: str, rows: list[Row], expected: list[Row]) -> list[Finding]:
    """Compare rows; where batches may have failed so far, and those behind them with them, just which rows they are."""
    if model.shape.is_shaky:
        rows, expected = ([{"key": row["key"]} for row in each] for each in (rows, expected))
    return compare_rows(where, rows, expected)


def _is_complete(entries: list[Entry]) -> bool:
    return bool(entries) and entries[-1].last_batch


def _check_sources(image: CacheImage, model: Model, shape: StepShape) -> Findings:
    """Each batch is what the step makes of the rows that it says it was made of, and these follow on each other."""
    taken: Counter[tuple[str, int]] = Counter()
    given: list[Row] = []
    for entry in image.entries(shape.name):
        where = f"step {shape.name}, batch {entry.seq_no}"
        inputs = []
        for before in shape.before:
            if before not in entry.created_from:
                continue
            rows: list[Row] = []
            for source in entry.created_from[before]:
                problem, piece = _take(image.entries(before), before, source, taken)
                if problem and not (model.shape.is_shaky and "in revision" in problem):
                    yield Finding("wrong", f"{where} {problem}")
                rows += piece
            inputs.append(rows)
        given += inputs[0] if inputs else []
        if len({len(rows) for rows in inputs}) > 1:
            yield Finding("wrong", f"{where} was made of lists of {[len(rows) for rows in inputs]} rows")
        elif not model.shape.is_shaky and entry.rows != (apply(shape, inputs) if any(inputs) else []):
            yield Finding("wrong", f"{where} isn't what the step makes of the rows that it names")
    yield from _compare(
        model, f"the input of step {shape.name}", given, _given(model, shape.name, len(given))
    )


def _given(model: Model, step: str, count: int) -> list[Row]:
    return model.given[step][:count]


def _take(
    entries: list[Entry], before: str, source: list[int], taken: "Counter[tuple[str, int]]"
) -> tuple[str, list[Row]]:
    seq_no, size, used, revision = source
    if seq_no >= len(entries):
        return f"was made of batch {seq_no} of {before}, which isn't committed", []
    found, problem = entries[seq_no], ""
    if (len(found.rows), found.revision) != (size, revision):
        problem = (
            f"was made of batch {seq_no} of {before} with {size} rows in revision {revision}, but that has "
            f"{len(found.rows)} in {found.revision}"
        )
    start = taken[before, seq_no]
    taken[before, seq_no] += used
    return problem, found.rows[start : start + used]


def count_given(image: CacheImage, shape: StepShape) -> int:
    """How many rows of its first predecessor the committed batches of a step were made of."""
    total = 0
    for entry in image.entries(shape.name):
        used = [sum(source[2] for source in sources) for sources in entry.created_from.values()]
        total += max(used, default=0)
    return total


def committed_keys(image: CacheImage, model: Model) -> dict[str, set[str]]:
    """Step -> keys of the rows that it isn't to be given again; of a generator, that it isn't to make again."""
    found = {"load": {row["key"] for row in image.rows("load")}}
    for shape in model.shape.steps:
        found[shape.name] = {row["key"] for row in _given(model, shape.name, count_given(image, shape))}
    return found


def _shown_entries(image: CacheImage, step: str) -> tuple[dict[str, bytes], list[Row]]:
    parts = {name: content for name, content in image.shown(step).items() if not name.startswith(".")}
    rows: list[Row] = []
    step_image = image.steps.get(step)
    for number, (name, content) in enumerate(parts.items(), 1):
        if name != f"{number:05d}.parquet" or step_image is None:
            raise UnreadableError(f"data/{step} holds {list(parts)}")
        rows += [row for entry in read_part(step, step_image, name, content) for row in entry.rows]
    return parts, rows


def _check_shown(image: CacheImage, model: Model) -> Findings:
    """A reader of a leaf's folder sees rows of the front, each once; at most the newest part isn't there yet."""
    for step, made in model.made.items():
        parts, rows = _shown_entries(image, step)
        if step not in model.shape.leaves:
            if parts:
                yield Finding("wrong", f"data/{step} is there, though the step is no leaf")
            continue
        yield from _compare(model, f"data/{step}", rows, made[: len(rows)])
        committed = image.steps[step].parts if step in image.steps else {}
        if not len(committed) - 1 <= len(parts) <= len(committed):
            yield Finding("wrong", f"data/{step} has {len(parts)} parts of {len(committed)}")


def _check_all_shown(image: CacheImage, model: Model) -> Findings:
    for leaf in model.shape.leaves:
        if image.shown(leaf) != image.steps[leaf].parts:
            yield Finding("wrong", f"data/{leaf} isn't what the step's directory holds")


def _check_markers(image: CacheImage, model: Model) -> Findings:
    """Where there's a marker, it says what the parts say."""
    for step, found in image.steps.items():
        if found.marker is None:
            continue
        entries = image.entries(step)
        if not _is_complete(entries):
            yield Finding("wrong", f"step {step} has a marker, and its last batch isn't there")
            continue
        schemas = _read_schemas(found)
        told = {
            "format": found.marker.get("format"),
            "step_name": step,
            "signature": found.signature,
            "rows": len(image.rows(step)),
            "batches": len(entries),
            "schema": schemas[0],
            "failed_rows": sum(entry.failed_rows for entry in entries),
        }
        if found.marker != told or any(schema != schemas[0] for schema in schemas):
            yield Finding(
                "wrong", f"the marker of step {step} says {found.marker}, the parts {told} ({schemas})"
            )


def _read_schemas(step: StepImage) -> list[dict[str, str]]:
    schemas = [pq.read_schema(io.BytesIO(content)) for content in step.parts.values()]
    return [{column.name: str(column.type) for column in schema} for schema in schemas]


def _check_all_marked(image: CacheImage, model: Model) -> Findings:
    for step in model.made:
        if step not in image.steps or image.steps[step].marker is None:
            yield Finding("wrong", f"step {step} has no marker")


def _check_all_rows(image: CacheImage, model: Model) -> Findings:
    for step, made in model.made.items():
        yield from compare_rows(f"step {step}", image.rows(step), made)
        if not _is_complete(image.entries(step)):
            yield Finding("wrong", f"step {step} isn't complete")
    for shape in model.shape.steps:
        yield from _check_current(image, shape)


def _check_current(image: CacheImage, shape: StepShape) -> Findings:
    """Each batch was made of those that are there now, and none failed."""
    for entry in image.entries(shape.name):
        where = f"step {shape.name}, batch {entry.seq_no}"
        if entry.failed_rows:
            yield Finding("wrong", f"{where} has failed rows")
        for before, sources in entry.created_from.items():
            there = [(found.seq_no, len(found.rows), found.revision) for found in image.entries(before)]
            if any((seq_no, size, revision) not in there for seq_no, size, _, revision in sources):
                yield Finding("wrong", f"{where} was made of batches of {before} that aren't there now")


def is_current(image: CacheImage, model: Model) -> bool:
    """Whether nothing that's committed has to be computed again."""
    return not any(list(_check_current(image, shape)) for shape in model.shape.steps)


def _check_snapshot(image: CacheImage, model: Model) -> Findings:
    """The snapshot may be behind what is committed, never before it."""
    manager, steps = image.snapshot()
    for step, last in (manager or {}).get("last_batch_received", {}).items():
        if last is not None and last["seq_no"] >= len(image.entries(step)):
            yield Finding(
                "wrong", f"the snapshot tells of batch {last['seq_no']} of {step}, which isn't committed"
            )
    for step, told in steps.items():
        if told["seq_no"] > len(image.entries(step)):
            yield Finding("wrong", f"the snapshot tells of {told['seq_no']} batches of {step}")


def _check_last_snapshot(image: CacheImage, model: Model) -> Findings:
    manager, steps = image.snapshot()
    if manager is None:
        yield Finding("wrong", "there is no batch_manager.json")
        return
    predecessors = {shape.name: shape.before for shape in model.shape.steps}
    for step in model.made:
        entries = image.entries(step)
        last = entries[-1]
        told = manager["last_batch_received"][step]
        seen = (told["seq_no"], told["size"], told["last_batch"], told["batch_routed_to"])
        if seen != (last.seq_no, len(last.rows), True, last.batch_routed_to):
            yield Finding(
                "wrong", f"batch_manager.json says of {step} {told}, its last batch is {last.seq_no}"
            )
        if step in predecessors:
            yield from _check_step_file(step, steps.get(step), entries, list(predecessors[step]))


def _check_step_file(step: str, told: Any, entries: list[Entry], predecessors: list[str]) -> Findings:
    offsets = {name: [used[-1][0], used[-1][2]] for name, used in entries[-1].created_from.items() if used}
    seen = told and (told["seq_no"], sorted(told["last_batch_received"]), told["step_offset"])
    if seen != (len(entries), sorted(predecessors), offsets):
        yield Finding(
            "wrong", f"batch_manager_steps/{step}.json says {told}, the parts {len(entries)}, {offsets}"
        )


def _check_frozen(image: CacheImage, model: Model) -> Findings:
    frozen = [content for path, content in image.files.items() if path.endswith("/pipeline.yaml")]
    if len(frozen) != 1:
        yield Finding("wrong", f"there are {len(frozen)} files pipeline.yaml")
        return
    told = yaml.safe_load(frozen[0])["signatures"]["steps"]
    if told != {step: found.signature for step, found in image.steps.items()}:
        yield Finding("wrong", f"pipeline.yaml has the signatures {told}")


def _find_leftovers(image: CacheImage, is_damaged: bool) -> Iterator[str]:
    """Files that nobody needs: of interrupted writes, set aside, or of unknown origin."""
    for path in image.files:
        directory, _, name = path.rpartition("/")
        if name.startswith("."):
            yield f"{path} is left"
        elif not directory and name not in _LEDGER_FILES:
            yield f"{path} is of unknown origin"
    for step, found in image.steps.items():
        aside = [name for name in found.others if not name.startswith(".")]
        if aside and not is_damaged:
            yield f"step {step} has {aside}, though nothing was harmed"
