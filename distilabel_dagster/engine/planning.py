"""Counts what a run is going to call and pay, as far as can be told from the cache and the ledger.

Rows that are there are asked about just as the run will ask, so their calls are counted exactly. Rows that aren't there
yet, since a model has to make them first, are expected in the proportion of those that are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from distilabel_dagster.batch import DIGEST_BYTES, BatchRecord
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.cache.tables import table_rows
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.calls import RequestMaker, split_generations
from distilabel_dagster.engine.occurrences import BatchRequests, Occurrences
from distilabel_dagster.engine.output_log import OutputLog
from distilabel_dagster.engine.plan import RunPlan, StepPlan
from distilabel_dagster.engine.resume import iter_repairs, usable_batches
from distilabel_dagster.engine.step_buffer import InputPlan
from distilabel_dagster.engine.wiring import build_buffer
from distilabel_dagster.engine.worker import find_models
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.usage import AverageUsage, Usage, add_up, average_usage, read_usage
from distilabel_dagster.models.model import Model
from distilabel_dagster.steps.step import BaseStep
from distilabel_dagster.steps.tasks.conversation import ModelStep, RowTask

_CHARACTERS_PER_TOKEN: Final = 4


@dataclass(slots=True)
class _Count:
    """What was counted of a step's calls.

    Attributes:
        found: calls that are in the ledger.
        lacking: calls that aren't.
        characters: what the latter send.
        guessed: calls that can't be counted, since the step's own code decides what it asks.
    """

    found: int = 0
    lacking: int = 0
    characters: int = 0
    guessed: int = 0

    def add(self, other: "_Count") -> None:
        """Add what was counted of another batch."""
        self.found += other.found
        self.lacking += other.lacking
        self.characters += other.characters
        self.guessed += other.guessed


class Planner:
    """Plans the steps of a pipeline whose free part is computed; what isn't computed is estimated.

    Args:
        dag: the pipeline's graph.
        cache: where its outputs are.
        ledger: the ledger of responses; None where there's none.
    """

    def __init__(self, dag: DAG, cache: PipelineCache, ledger: ResponseLedger | None) -> None:
        self._dag = dag
        self._cache = cache
        self._ledger = ledger
        self._logs: dict[str, OutputLog] = {}
        self._records: dict[str, list[BatchRecord]] = {}
        self._rows: dict[str, int] = {}
        self._again: dict[str, int] = {}
        self._open: set[str] = set()
        self._numbered: dict[str, Occurrences] = {}
        self._asked: set[int] = set()

    def plan(self) -> RunPlan:
        """Count what is left to call.

        Raises:
            CacheError: the cache or the ledger can't be read.
        """
        steps = []
        for name in self._dag.topological_order():
            self._read(name)
            arriving = self._expect_input(name)
            planned = self._plan_step(name, arriving)
            if planned is not None:
                steps.append(planned)
            self._rows[name] = self._expect_output(name, arriving)
        return RunPlan(steps, dict(self._rows))

    def _read(self, name: str) -> None:
        """Read what a step has committed, as far as a run can use it, and note whether more rows may come than one knows."""
        store = self._cache.stores[name]
        store.open()
        log = self._logs[name] = OutputLog(store)
        predecessors = {each: self._records[each] for each in self._dag.predecessors(name)}
        records = self._records[name] = log.records[: usable_batches(name, log.records, predecessors)]
        if not _is_complete(records) and (not predecessors or self._open & predecessors.keys()):
            self._open.add(name)
        self._again[name] = max((self._again[each] for each in predecessors), default=0)

    def _expect_input(self, name: str) -> int:
        """How many rows a step is going to get."""
        source = self._dag.convergence_source(name)
        if source is not None:
            return self._rows[source]
        routed_from = self._dag.routed_from(name)
        if routed_from is not None:
            return self._expect_routed(name, routed_from)
        return max((self._rows[each] for each in self._dag.predecessors(name)), default=0)

    def _expect_routed(self, name: str, source: str) -> int:
        """How many rows a routing function is going to send to a step: the share that it has sent so far."""
        records = self._records[source]
        made = sum(record.size for record in records)
        if not made:
            return -(-self._rows[source] // max(1, len(self._dag.successors(source))))
        sent = sum(each.size for each in records if not each.batch_routed_to or name in each.batch_routed_to)
        return sent + round((self._rows[source] - made) * sent / made)

    def _expect_output(self, name: str, arriving: int) -> int:
        """How many rows a step is going to give: those that it has, and for the rest as many per row as of those."""
        records = self._records[name]
        rows, taken = sum(record.size for record in records), _rows_taken(records)
        if _is_complete(records) or not arriving:
            return rows
        ratio = rows / taken if taken else float(_rows_per_row(self._dag.steps[name]))
        return rows + round(max(0, arriving - taken) * ratio)

    def _plan_step(self, name: str, arriving: int) -> StepPlan | None:
        step, records = self._dag.steps[name], self._records[name]
        models = find_models(step)
        if not models:
            return None
        model, per_row = models[0], _calls_per_row(step, models[0])
        repaired = self._count_repairs(step, model)
        kept = [record for record in records if record.seq_no not in repaired]
        counted = _Count(found=sum(len(each.requests) for each in kept) // DIGEST_BYTES * per_row)
        for each in repaired.values():
            counted.add(each)
        # Rows that are made again here are new to the steps behind; those that are made again in front, to this one.
        expected = self._again[name]
        self._again[name] = max(expected, -(-(counted.lacking + counted.guessed) // per_row))
        if not _is_complete(records):
            unseen = arriving - _rows_taken(records)
            for plan in self._iter_inputs(name):
                unseen -= plan.size
                counted.add(self._count(step, model, plan))
            expected += max(0, unseen)
        calls = counted.lacking + counted.guessed + expected * per_row
        planned = StepPlan(
            step=name,
            model=model.model_name,
            calls=calls,
            calls_in_ledger=counted.found,
            rows_expected=expected,
            is_estimated=bool(expected or counted.guessed),
            is_open=name in self._open,
        )
        return self._price(model, planned, counted)

    def _count_repairs(self, step: BaseStep, model: Model) -> dict[int, _Count]:
        """Count the calls of committed batches that a run is going to make again, since rows failed in them."""
        records = self._records[step.name]
        predecessors = {name: self._records[name] for name in self._dag.predecessors(step.name)}
        if step.is_generator:
            return {}
        return {
            record.seq_no: self._count(step, model, plan, record)
            for record, plan in iter_repairs(records, predecessors, retry_failed=True)
        }

    def _iter_inputs(self, name: str) -> Iterator[InputPlan]:
        """The inputs of the step's batches that aren't committed, as far as their rows are there."""
        if self._dag.steps[name].is_generator:
            return
        buffer, told_of = build_buffer(self._dag, name)
        for each in told_of:
            for record in self._records[each]:
                buffer.add(each, record)
        for record in self._records[name]:
            buffer.skip(record)
        while (plan := buffer.next_plan()) is not None:
            yield plan

    def _count(
        self, step: BaseStep, model: Model, plan: InputPlan, before: BatchRecord | None = None
    ) -> _Count:
        """Count the calls of a batch.

        Args:
            step: the step.
            model: its model.
            plan: the batch's input.
            before: the batch as it was committed, if it's made again.
        """
        if not isinstance(step, RowTask) or type(step).process is not RowTask.process:
            asked = plan.size if before is None else len(before.errors or {})
            return _Count(guessed=asked * _calls_per_row(step, model))
        ((predecessor, slices),) = plan.slices.items()
        counted = _Count()
        if not slices:
            return counted
        rows = table_rows(self._logs[predecessor].read_slices(slices))
        conversation = step.converse_mapped(rows)
        try:
            questions = next(conversation)
        except StopIteration:
            return counted
        finally:
            conversation.close()
        if not questions:
            return counted
        maker = RequestMaker(model, questions[0].num_generations, step.llm.get_generation_kwargs())
        batch = BatchRequests(self._occurrences_of(step.name), before)
        requests = maker.make([question.content for question in questions], batch)
        keys = {key: request for request in requests for key in request.keys}
        found = self._ledger.find_keys(keys) if self._ledger is not None else set()
        # One call is made for a key, whichever steps of the run want it.
        new = {key for key in keys if key not in found and _shorten(key) not in self._asked}
        self._asked |= set(map(_shorten, new))
        counted.found, counted.lacking = len(keys) - len(new), len(new)
        counted.characters = sum(len(str(keys[key].content)) for key in new)
        return counted

    def _occurrences_of(self, name: str) -> Occurrences:
        if name not in self._numbered:
            self._numbered[name] = Occurrences(self._records[name])
        return self._numbered[name]

    def _price(self, model: Model, plan: StepPlan, counted: _Count) -> StepPlan:
        """Add tokens and cost, from calls like them: of the step, else of its model, else from the length of prompts."""
        if not plan.calls:
            return plan
        average = self._average(model, plan.step)
        read = average.input_tokens if average is not None else None
        written = average.output_tokens if average is not None else None
        cost_of_one = average.cost_usd if average is not None else None
        if read is None and counted.lacking:
            read = counted.characters / _CHARACTERS_PER_TOKEN / counted.lacking
        tokens_in = None if read is None else round(read * plan.calls)
        tokens_out = None if written is None else round(written * plan.calls)
        cost = None if cost_of_one is None else cost_of_one * plan.calls
        if cost is None and tokens_in is not None and tokens_out is not None:
            cost = model.cost_usd(tokens_in, tokens_out)
        if plan.is_open:
            cost = None
        return replace(plan, input_tokens=tokens_in, output_tokens=tokens_out, cost_usd=cost)

    def _average(self, model: Model, step: str) -> AverageUsage | None:
        """What a call has used: of the step as it is, else of steps with its name, else of its model."""
        if self._ledger is None:
            return None
        engine, known = self._ledger.engine, (model.endpoint, model.model_name)
        key = layout.step_dir(step, self._cache.step_signatures[step]).rpartition("/")[2]
        own = [
            usage
            for each, usage in read_usage(engine, step_key=key).items()
            if (each.endpoint, each.model) == known
        ]
        return _average(own) or average_usage(engine, *known, step) or average_usage(engine, *known)


def _shorten(key: bytes) -> int:
    """Give what is kept of a key while calls are counted: there may be millions."""
    return int.from_bytes(key[:DIGEST_BYTES], "big")


def _average(usages: list[Usage]) -> AverageUsage | None:
    usage = add_up(usages)
    if not usage.calls:
        return None
    counted, priced = usage.calls - usage.calls_without_tokens, usage.calls - usage.calls_without_price
    return AverageUsage(
        calls=usage.calls,
        input_tokens=usage.input_tokens / counted if counted else None,
        output_tokens=usage.output_tokens / counted if counted else None,
        cost_usd=usage.cost_usd / priced if priced else None,
    )


def _is_complete(records: list[BatchRecord]) -> bool:
    return bool(records) and records[-1].last_batch


def _rows_taken(records: list[BatchRecord]) -> int:
    """Rows that a step's batches were made of, of the predecessor that gave most."""
    taken: dict[str, int] = {}
    for record in records:
        for name, sources in record.sources.items():
            taken[name] = taken.get(name, 0) + sum(source.rows_used for source in sources)
    return max(taken.values(), default=0)


def _rows_per_row(step: BaseStep) -> int:
    if not isinstance(step, ModelStep) or step.group_generations:
        return 1
    return int(step.num_generations or 1)


def _calls_per_row(step: BaseStep, model: Model) -> int:
    wanted = int(step.num_generations or 1) if isinstance(step, ModelStep) else 1
    calls: int = split_generations(model, wanted)[0]
    return calls
