"""The calls of a run: from the ledger where they were paid for, else from the model, each kept before it's used."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from distilabel_dagster.base.fault_points import reach
from distilabel_dagster.batch import BatchRecord
from distilabel_dagster.engine.answers import (
    Course,
    Outcome,
    as_json,
    ask_once,
    describe_response,
    read_answer,
)
from distilabel_dagster.engine.budget import Budget
from distilabel_dagster.engine.calls import Request
from distilabel_dagster.engine.endpoints import Endpoints
from distilabel_dagster.engine.ledger_io import LedgerIO
from distilabel_dagster.engine.occurrences import BatchRequests, Occurrences
from distilabel_dagster.engine.tally import Tally
from distilabel_dagster.engine.worker import ENDS_RUN
from distilabel_dagster.errors import CacheError, CostLimitError, ModelCallError, ModelUnavailableError
from distilabel_dagster.ledger.calls import FailedAttempt, Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.responses import DAMAGED_ANSWER
from distilabel_dagster.models.limits import CallsStopped
from distilabel_dagster.models.model import RemoteModel
from distilabel_dagster.models.retries import call_with_retries

_logger = logging.getLogger("distilabel_dagster.engine")
_AHEAD: Final = 2
_FREE: Final = contextlib.nullcontext()
_FIRST_LOOK_S: Final = 0.1
_LONGEST_LOOK_S: Final = 2.0
_CLOSE_S: Final = 10.0


class Generation:
    """All calls of one run; belongs to the event loop.

    One call is made for a key, whichever steps of the run want it; other runs that want it wait for it, through the
    ledger. What is answered is committed there before anyone sees it, so after a kill only what was on the wire is
    called again.

    Args:
        io: the way to the ledger.
        endpoints: the limits of the models.
        budget: what calls may cost.
        partition: signature of the pipeline.
        run_id: what the run is called in the ledger.
    """

    def __init__(
        self, io: LedgerIO, endpoints: Endpoints, budget: Budget, *, partition: str, run_id: str
    ) -> None:
        self.io = io
        self.endpoints = endpoints
        self.budget = budget
        self.partition = partition
        self.run_id = run_id
        self.under_way: dict[bytes, asyncio.Future[Outcome]] = {}
        self._used: dict[int, RemoteModel] = {}
        self.on_the_wire: set[asyncio.Task[None]] = set()

    def note_use(self, model: RemoteModel) -> None:
        """Remember a model whose connections are to be closed at the end."""
        self._used[id(model)] = model

    def stop(self) -> None:
        """Make no call any more; those on the wire may end."""
        self.endpoints.stop()

    async def drain(self) -> None:
        """Wait until the calls on the wire are answered, and kept."""
        while self.on_the_wire:
            await asyncio.wait(self.on_the_wire)

    async def close(self) -> None:
        """Write what is left to the ledger, and close the models' connections."""
        await self.io.close()
        for model in self._used.values():
            try:
                await asyncio.wait_for(model.aclose(), _CLOSE_S)
            except Exception as error:  # noqa: BLE001  (all answers are in; a connection that won't close costs nothing)
                _logger.warning("The connections of model `%s` didn't close: %s", model.model_name, error)


class StepCalls:
    """The calls of one step of the run.

    Args:
        generation: the run's.
        step: the step's name.
        step_key: its directory's name, under which the ledger counts.
        records: its committed batches, whose requests have their numbers.
        tally: counts what is called, reused and paid.
        max_new_calls: calls that may be made beyond what the ledger has; None for any number.
        on_settled: called when a call is settled after `wants_more` said no, so that there may be room.
    """

    def __init__(
        self,
        generation: Generation,
        step: str,
        step_key: str,
        *,
        records: Iterable[BatchRecord],
        tally: Tally,
        max_new_calls: int | None = None,
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        self.generation = generation
        self.tally = tally
        self.step = step
        self._step_key = step_key
        self._in_run: dict[tuple[str, str], StepInRun] = {}
        self._occurrences = Occurrences(records)
        self._open = 0
        self._is_held_back = False
        self._allowance = max_new_calls
        self._on_settled = on_settled
        self._ended_by: Exception | None = None

    def new_batch(self, before: BatchRecord | None = None) -> BatchRequests:
        """Begin to note the requests of a batch.

        Args:
            before: the batch as it was committed, if it's made again.
        """
        return BatchRequests(self._occurrences, before)

    def wants_more(self, model: RemoteModel, preparing: int) -> bool:
        """Tell whether another batch should be begun, so that the endpoint never waits for the step.

        Args:
            model: the model.
            preparing: calls that are about to come.
        """
        most = _AHEAD * self.generation.endpoints.limiter(model).max_concurrency
        is_wanted = self._open + preparing < most
        # Who was told no is told when there may be room; the others needn't look again at each answer.
        self._is_held_back = self._is_held_back or not is_wanted
        return is_wanted

    async def answer(self, model: RemoteModel, requests: Sequence[Request]) -> list[Any]:
        """Get the answers to requests of one batch, in order.

        What fails for good is the failure of its request only; the output says so as `generate_outputs` does.

        Raises:
            CallsStopped: a stop was asked for before all were called; what was called is kept.
            ModelUnavailableError: the endpoint can't be used; what was called is kept.
            CostLimitError: the calls have cost what they may; what was called is kept.
            CacheError: the ledger can't be read or written.
        """
        self.generation.note_use(model)
        outcomes = await self._settle(model, requests)
        return [read_answer(model, request, outcomes) for request in requests]

    async def _settle(self, model: RemoteModel, requests: Sequence[Request]) -> dict[bytes, Outcome]:
        under_way = self.generation.under_way
        wanted = {key: request for request in requests for key in request.keys}
        own = {key: request for key, request in wanted.items() if key not in under_way}
        of_others = {key: under_way[key] for key in wanted if key in under_way}
        self.tally.reused += len(of_others)
        loop = asyncio.get_running_loop()
        under_way.update({key: loop.create_future() for key in own})
        self._open += len(own)
        outcomes: dict[bytes, Outcome] = {}
        try:
            await self._make_calls(model, own)
        finally:
            for key in own:
                self._resolve(key, Outcome(error=CallsStopped()))
                outcomes[key] = under_way.pop(key).result()
        for key, future in of_others.items():
            outcomes[key] = await asyncio.shield(future)
        for outcome in outcomes.values():
            if isinstance(outcome.error, ENDS_RUN):
                raise self._ended_by or outcome.error
        return outcomes

    def _resolve(self, key: bytes, outcome: Outcome) -> None:
        future = self.generation.under_way.get(key)
        # Gone, where a batch was given up while its calls were still ending.
        if future is not None and not future.done():
            future.set_result(outcome)
            self._open -= 1
            if self._is_held_back:
                self._is_held_back = False
                self._on_settled()

    async def _make_calls(self, model: RemoteModel, own: dict[bytes, Request]) -> None:
        """Take from the ledger what is there, call for what nobody else does, and wait for what others call for."""
        left, pause_s = list(own), _FIRST_LOOK_S
        calls: list[asyncio.Task[None]] = []
        try:
            while left:
                begun = await self.generation.io.begin(self.in_run(model.model_name, model.endpoint), left)
                # What has begun is that of all who asked in the same round.
                self.tally.failures[DAMAGED_ANSWER] += len(begun.damaged.intersection(left))
                for key in (key for key in left if key in begun.found):
                    self.tally.reused += 1
                    self._resolve(key, Outcome(begun.found[key].response))
                free = [key for key in left if key in begun.claimed]
                claimed = self.take_allowed(free)
                for key in free[len(claimed) :]:
                    self._resolve(key, Outcome(error=CallsStopped()))
                size = max(1, model.questions_per_call)
                for start in range(0, len(claimed), size):
                    group = {key: own[key] for key in claimed[start : start + size]}
                    calls.append(self._begin_call(model, group))
                left = [key for key in left if key in begun.elsewhere]
                if left:
                    await self.generation.endpoints.limiter(model).pause(pause_s)
                    pause_s = min(pause_s * 2, _LONGEST_LOOK_S)
        except asyncio.CancelledError:
            for call in calls:
                call.cancel()
            raise
        except CallsStopped:
            pass  # what isn't called is resolved as such; what is on the wire is waited for
        finally:
            if calls:
                await asyncio.wait(calls)

    def take_allowed(self, claimed: list[bytes]) -> list[bytes]:
        """Give those of the calls that may be made, the first ones, and give the claims on the others back."""
        if self._allowance is None:
            return claimed
        allowed = claimed[: self._allowance]
        self._allowance -= len(allowed)
        self.generation.io.release(claimed[len(allowed) :])
        return allowed

    def check_allowed(self, claimed: list[bytes]) -> None:
        """Make sure that calls may be made, all of them.

        Raises:
            CallsStopped: some may not.
        """
        if len(self.take_allowed(claimed)) < len(claimed):
            raise CallsStopped

    def in_run(self, model_name: str, endpoint: str) -> StepInRun:
        """Say in the ledger's words who calls."""
        known = self._in_run.get((model_name, endpoint))
        if known is None:
            partition = self.generation.partition
            known = StepInRun(partition, self._step_key, self.step, model_name, endpoint)
            self._in_run[model_name, endpoint] = known
        return known

    def _begin_call(self, model: RemoteModel, group: dict[bytes, Request]) -> "asyncio.Task[None]":
        call = asyncio.ensure_future(self._call(model, group))
        on_the_wire = self.generation.on_the_wire
        on_the_wire.add(call)
        call.add_done_callback(on_the_wire.discard)
        return call

    async def _call(self, model: RemoteModel, group: dict[bytes, Request]) -> None:
        """Make one call, keep what it gives, and hand that on."""
        generation = self.generation
        try:
            answered = await self._attempt(model, group)
        except BaseException as error:
            if isinstance(error, ModelUnavailableError | CostLimitError | CacheError):
                # Seen at once, and not when the batch's turn comes: the others would try it out one by one.
                self._ended_by = self._ended_by or error
                generation.stop()
            generation.io.release(list(group))
            for key in group:
                self._resolve(key, Outcome(error=error))
            if not isinstance(error, Exception | CallsStopped):
                raise
        else:
            for key, response in zip(group, answered, strict=True):
                self._resolve(key, Outcome(response))

    async def _attempt(self, model: RemoteModel, group: dict[bytes, Request]) -> list[dict[str, Any]]:
        """Call until it's answered; an attempt ends, and gives its place in flight free, when its answer is kept.

        So a kill costs what is on the wire at most, however slow the disk is.
        """
        requests = list(group.values())
        generation = self.generation
        estimated = generation.endpoints.estimate_tokens(model, requests)
        attempts = 0

        async def attempt() -> list[dict[str, Any]]:
            nonlocal attempts
            attempts += 1
            taken_over = await self._look_again(model, group) if generation.io.is_silent else None
            if taken_over is not None:
                return taken_over
            async with generation.budget.spending() if generation.budget.is_limited else _FREE:
                begun_at = time.monotonic()
                reach("call.sending", self.step)
                responses = await ask_once(model, requests)
                reach("call.answered", self.step)
            if len(responses) != len(requests):
                raise ModelCallError(
                    f"Model `{model.model_name}` answered {len(responses)} of {len(requests)} questions of one call.",
                    model=model.model_name,
                    endpoint=model.endpoint,
                    kind="malformed",
                )
            course = Course(attempts, time.monotonic() - begun_at)
            return await self._keep(model, group, responses, course, estimated)

        answered = await call_with_retries(
            attempt,
            generation.endpoints.limiter(model),
            max_retries=model.max_retries or 0,
            tokens=estimated,
            on_failure=lambda error: self._note_failure(model, next(iter(group)), error),
        )
        return answered.value

    async def _look_again(
        self, model: RemoteModel, group: dict[bytes, Request]
    ) -> list[dict[str, Any]] | None:
        """Claim calls once more after a long silence; give their answers if others have made them meanwhile."""
        while True:
            begun = await self.generation.io.begin(self.in_run(model.model_name, model.endpoint), list(group))
            if group.keys() <= begun.found.keys():
                return [begun.found[key].response for key in group]
            if not group.keys() & begun.elsewhere:
                return None
            await self.generation.endpoints.limiter(model).pause(_LONGEST_LOOK_S)

    async def _keep(
        self,
        model: RemoteModel,
        group: dict[bytes, Request],
        given: list[dict[str, Any]],
        course: Course,
        estimated: int,
    ) -> list[dict[str, Any]]:
        """Bring what a call gave to the ledger, as far as it's to be kept; give it as the ledger will."""
        generation = self.generation
        responses = [as_json(model, response) for response in given]
        paid = [
            self.count(
                model,
                describe_response(model, request, key, response, course=course, run_id=generation.run_id),
            )
            for (key, request), response in zip(group.items(), responses, strict=True)
            if model.is_paid(response)
        ]
        # Where another run has paid for the same meanwhile, the first answer counts: it's what a resume would read.
        others = await generation.io.store(paid) if paid else {}
        responses = [
            others[key].response if key in others else response
            for key, response in zip(group, responses, strict=True)
        ]
        unpaid = group.keys() - {each.response.key for each in paid}
        if unpaid:
            self.tally.failures["no_text"] += len(unpaid)
            generation.io.release(list(unpaid))
        await generation.endpoints.settle(model, estimated, paid)
        return responses

    def _note_failure(self, model: RemoteModel, key: bytes, error: ModelCallError) -> None:
        if error.kind not in self.tally.failures:
            _logger.warning(
                "Step `%s`: %s Of this kind, only the first failed call is told here.", self.step, error
            )
        self.tally.failures[error.kind] += 1
        attempt = FailedAttempt(
            key=key,
            step=self.in_run(model.model_name, model.endpoint),
            kind=error.kind,
            status_code=error.status_code,
            message=str(error),
            run_id=self.generation.run_id,
            at=time.time(),
        )
        self.generation.io.note_failure(attempt)

    def count(self, model: RemoteModel, stored: StoredResponse) -> Paid:
        """Count what was answered."""
        self.tally.add_call(stored)
        self.generation.budget.add(stored.cost_usd)
        self.generation.endpoints.note_tokens(model, stored)
        return Paid(stored, self.in_run(model.model_name, model.endpoint))
