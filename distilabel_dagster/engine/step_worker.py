"""How a step of a run is called: loaded once, in its thread, in replicas, or row by row while its calls are out."""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import pyarrow as pa

from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.cache.foreign_tables import copy_table
from distilabel_dagster.cache.tables import EMPTY_TABLE, table_rows
from distilabel_dagster.engine.calls import Request, RequestMaker
from distilabel_dagster.engine.events import StepStarted, StepWarning
from distilabel_dagster.engine.generation import Generation, StepCalls
from distilabel_dagster.engine.occurrences import BatchRequests
from distilabel_dagster.engine.own_calls import BatchCaller, BatchDesk
from distilabel_dagster.engine.replicas import ReplicaPool
from distilabel_dagster.engine.row_source import RowSource, honours_offset
from distilabel_dagster.engine.run_state import RunState
from distilabel_dagster.engine.step_buffer import InputPlan
from distilabel_dagster.engine.tally import Tally
from distilabel_dagster.engine.worker import (
    Output,
    ThreadWorker,
    find_models,
    handle_failure,
    load_step,
    make_output,
    process_batch,
    unload_step,
)
from distilabel_dagster.models.caller import calling
from distilabel_dagster.models.llm import AsyncLLM
from distilabel_dagster.models.model import RemoteModel
from distilabel_dagster.steps.step import BaseStep, GeneratorStep, Step
from distilabel_dagster.steps.tasks.conversation import Conversation, Question, RowTask

UNLOAD_PATIENCE_S: Final = 300.0
"""Seconds that a step gets to give back what it has; all its rows are made by then."""


class StepWorker:
    """Calls one step of a run; belongs to the event loop.

    Args:
        step: the step.
        step_key: its directory's name.
        state: what the steps of the run share.
        generation: the run's calls.
        tally: counts the step's.
    """

    def __init__(
        self, step: BaseStep, step_key: str, state: RunState, generation: Generation, tally: Tally
    ) -> None:
        self._step = step
        self._step_key = step_key
        self._state = state
        self._log = state.logs[step.name]
        self._generation = generation
        self._tally = tally
        self._talks_to = _find_partner(step)
        # Calls wait for someone else: more of them in flight is what replicas would give, without processes.
        waits = any(isinstance(model, RemoteModel) for model in find_models(step))
        self.replicas = 1 if waits else int(step.resources.replicas or 1)
        self._calls: StepCalls | None = None
        self._thread_worker: ThreadWorker | None = None
        self._source: RowSource | None = None
        self._pool: ReplicaPool | None = None
        self._is_loaded = False
        self._preparing = 0
        self._starting: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self.started_at: float | None = None

    @property
    def thread(self) -> ThreadWorker:
        """The step's own thread."""
        if self._thread_worker is None:
            self._thread_worker = ThreadWorker(self._step.name)
        return self._thread_worker

    @property
    def calls(self) -> StepCalls:
        """The step's calls, numbered behind those of its committed batches."""
        if self._calls is None:
            # A generator that is started from the beginning makes all its requests again.
            repeats = isinstance(self._step, GeneratorStep) and not honours_offset(self._step)
            records = [] if repeats else self._log.records
            self._calls = StepCalls(
                self._generation,
                self._step.name,
                self._step_key,
                records=records,
                tally=self._tally,
                max_new_calls=self._state.options.max_new_calls,
                on_settled=self._state.notify,
            )
        return self._calls

    def forget_calls(self) -> None:
        """Number requests anew, behind the batches that are left after some were dropped."""
        self._calls = None

    @property
    def waits_for_calls(self) -> bool:
        """Whether the step's batches wait for calls side by side."""
        return self._talks_to is not None

    def may_begin(self, batches: int, rows: int) -> bool:
        """Tell whether another batch should be begun.

        Args:
            batches: batches that are being computed.
            rows: their rows.
        """
        if self._talks_to is None:
            return batches < self.replicas
        if not batches:
            return True
        # One slow row holds up its own batch only, so there are as many batches as it takes to keep calls going.
        return rows < self._state.options.max_rows_ahead and self.calls.wants_more(
            self._talks_to, self._preparing
        )

    async def start(self) -> None:
        """Load the step, when it's needed for the first time; who comes first goes on first.

        Raises:
            StepLoadError: it can't be.
        """
        async with (
            self._turn
        ):  # without it, one that comes just when the step is loaded overtakes those that wait
            if self._starting is None:
                self._starting = asyncio.ensure_future(self._start())
            await asyncio.shield(self._starting)

    async def _start(self) -> None:
        self.started_at = time.monotonic()
        if self.replicas > 1 and isinstance(self._step, Step):
            self._pool = ReplicaPool(self._step, self.replicas, self._generation.run_id)
        else:
            await self.thread.submit(load_step, self._step)
            self._is_loaded = True
        self._state.emit(StepStarted(self._step.name, self.replicas))
        asked = int(self._step.resources.replicas or 1)
        if asked > self.replicas:
            told = f"{asked} replicas are asked for, but its calls wait for a server: `max_concurrency` of its model counts"
            self._state.emit(StepWarning(self._step.name, told))

    def compute(
        self, plan: InputPlan, seq_no: int, before: BatchRecord | None = None
    ) -> Coroutine[Any, Any, Output]:
        """Read a batch's input and call the step with it; call it for one batch after another.

        Args:
            plan: the input.
            seq_no: the batch's number.
            before: the batch as it was committed, if it's made again.

        Raises:
            StepRunError: the step failed, in a way that isn't kept as failed rows.
            CallsStopped: a stop was asked for, and calls of the batch weren't made.
            ModelUnavailableError, CostLimitError, CacheError: as `process_batch`.
        """
        if self._talks_to is not None:
            # At once, since `may_begin` is asked again before this batch gets its turn.
            self._preparing += plan.size
        return self._compute(plan, seq_no, before)

    async def _compute(self, plan: InputPlan, seq_no: int, before: BatchRecord | None) -> Output:
        if not plan.size:
            return Output(EMPTY_TABLE, {})
        await self.start()
        step, on_error = self._step, self._state.options.on_error
        assert isinstance(step, Step)  # noqa: S101  (for the type checker)
        batch = self.calls.new_batch(before)
        if self._talks_to is not None:
            output = await self._converse(plan, seq_no, batch, self._talks_to)
        elif self._pool is not None:
            # What is pickled for another process is all that a slice is a slice of.
            inputs = await self.thread.submit(lambda: list(map(copy_table, self._read(plan))))
            output = await self._pool.process(inputs, on_error, seq_no, self._caller(batch).desk)
        else:
            caller = self._caller(batch)
            output = await self.thread.submit(
                lambda: process_batch(step, self._read(plan), on_error, seq_no, caller)
            )
        return _with_requests(output, batch)

    def _caller(self, batch: BatchRequests) -> BatchCaller:
        desk = BatchDesk(self.calls, batch, asyncio.get_running_loop())
        return BatchCaller(desk, self._generation.run_id)

    def _read(self, plan: InputPlan) -> list[pa.Table]:
        return [self._state.logs[name].read_slices(slices) for name, slices in plan.slices.items()]

    async def _converse(self, plan: InputPlan, seq_no: int, batch: BatchRequests, model: AsyncLLM) -> Output:
        """Go through a task's conversation about a batch: its code in its thread, its calls beside those of others."""
        step, calls = self._step, self.calls
        assert isinstance(step, Step)  # noqa: S101  (for the type checker)
        talk = _Talk(step, model, batch, self._caller(batch))
        try:
            try:
                # One job of the thread, so that batches number their requests in their order.
                made = await self.thread.submit(lambda: talk.begin(self._read(plan)[0]))
            finally:
                self._preparing -= plan.size
            while not isinstance(made, Output):
                answers = await calls.answer(model, made)
                made = await self.thread.submit(talk.go_on, answers)
            return made
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  (sorted out there)
            return handle_failure(step, [talk.table], self._state.options.on_error, seq_no, error)

    async def open_source(self, offset: int) -> RowSource:
        """Begin a generator step's rows behind the first `offset`."""
        await self.start()
        step = self._step
        assert isinstance(step, GeneratorStep)  # noqa: S101  (for the type checker)
        self._source = await self.thread.submit(RowSource, step, offset)
        return self._source

    async def pull(self, source: RowSource) -> tuple[Output, bool] | None:
        """Get a generator step's next rows, and whether they're the last."""
        batch = self.calls.new_batch()
        made = await self.thread.submit(source.pull, self._caller(batch))
        return None if made is None else (_with_requests(made[0], batch), made[1])

    async def unload(self) -> None:
        """Give back what the step got, before the run goes on to the next stage or ends; not at any price."""
        if self._pool is not None:
            unloading = self.thread.submit(self._pool.finish)
        elif self._is_loaded:
            self._is_loaded = False
            unloading = self.thread.submit(unload_step, self._step)
        else:
            return
        await asyncio.wait({unloading}, timeout=UNLOAD_PATIENCE_S)
        if not unloading.done():
            told = f"{self.tell_place() or '`unload()` has not returned'} for {UNLOAD_PATIENCE_S:g} s; the run goes on"
            self._state.emit(StepWarning(self._step.name, told))

    def tell_place(self) -> str | None:
        """Say, for people, what of the step hasn't returned, and where it is; None if all has."""
        of_processes = self._pool.tell_place() if self._pool is not None else None
        return of_processes or (self._thread_worker.tell_place() if self._thread_worker is not None else None)

    def kill(self) -> None:
        """End the step's processes, from any thread; its thread is left, and ends with this process."""
        if self._pool is not None:
            self._pool.close()

    def close(self) -> None:
        """Let the thread and the processes end; what is being computed is given up."""
        if self._source is not None:
            self._source.give_up()
        if self._pool is not None:
            self._pool.close()
        if self._thread_worker is not None:
            if self._is_loaded:
                self._thread_worker.post(unload_step, self._step)
            self._thread_worker.close()


def _find_partner(step: BaseStep) -> AsyncLLM | None:
    """The model that a task with the ordinary `process` talks to over a network; None for any other step."""
    if not isinstance(step, RowTask) or type(step).process is not RowTask.process:
        return None
    if type(step).run_process is not Step.run_process:
        return None
    return step.llm if isinstance(step.llm, AsyncLLM) else None


def _with_requests(output: Output, batch: BatchRequests) -> Output:
    return Output(output.table, output.errors, output.trace, batch.requests, batch.occurrences)


class _Talk:
    """A conversation in terms of requests; its methods are called in the step's thread."""

    def __init__(self, step: Step, model: AsyncLLM, batch: BatchRequests, caller: BatchCaller) -> None:
        self._step = step
        self._model = model
        self._batch = batch
        self._caller = caller
        self._conversation: Conversation | None = None
        self._first: dict[int, Request] = {}
        self.table = EMPTY_TABLE

    def begin(self, table: pa.Table) -> list[Request] | Output:
        """Make the first requests about rows, or their output where there's nothing to ask."""
        assert isinstance(self._step, RowTask)  # noqa: S101  (for the type checker)
        self.table = table
        self._conversation = self._step.converse_mapped(table_rows(table))
        return self._advance(None)

    def go_on(self, answers: list[Any]) -> list[Request] | Output:
        """Take answers in, and make the requests that follow them, or the output when all rows are made."""
        return self._advance(answers)

    def _advance(self, answers: list[Any] | None) -> list[Request] | Output:
        assert self._conversation is not None  # noqa: S101  (`begin` comes first)
        try:
            # What a task's own code asks beside it, of this model or another, goes through the ledger too.
            with calling(self._caller, find_models(self._step)):
                questions = self._conversation.send(answers)  # type: ignore[arg-type]  # None is what starts it
        except StopIteration as end:
            rows = end.value
        else:
            return self._make_requests(questions)
        return make_output(self._step, rows)

    def _make_requests(self, questions: list[Question]) -> list[Request]:
        assert isinstance(self._step, RowTask)  # noqa: S101  (for the type checker)
        kwargs: Mapping[str, Any] = self._step.llm.get_generation_kwargs()
        if not questions:
            return []
        maker = RequestMaker(self._model, questions[0].num_generations, kwargs)
        if questions[0].sample is None:
            requests = maker.make([question.content for question in questions], self._batch)
            self._first |= {
                question.row: request for question, request in zip(questions, requests, strict=True)
            }
            return requests
        return [
            maker.follow_up(question.content, question.sample or 0, self._first[question.row])
            for question in questions
        ]
