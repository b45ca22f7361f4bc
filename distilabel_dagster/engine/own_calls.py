"""The calls of a task's own code: they block its thread, and models of this process work in it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from distilabel_dagster.engine.answers import Course, Outcome, as_json, describe_response, read_answer
from distilabel_dagster.engine.calls import Request, RequestMaker
from distilabel_dagster.engine.generation import StepCalls
from distilabel_dagster.engine.occurrences import BatchRequests
from distilabel_dagster.ledger.calls import Paid, StoredResponse
from distilabel_dagster.models.limits import CallsStopped
from distilabel_dagster.models.llm import LLM, fail
from distilabel_dagster.models.model import Model, RemoteModel

_FIRST_LOOK_S: Final = 0.1
_LONGEST_LOOK_S: Final = 2.0


class Desk(Protocol):
    """Where whoever makes calls itself asks for them, and hands in what it made; blocks, from any thread."""

    def number(self, digests: Sequence[bytes]) -> list[int]:
        """Number requests of the batch among the equal ones of the step."""
        ...

    def begin(
        self, model_name: str, endpoint: str, keys: Sequence[bytes]
    ) -> tuple[dict[bytes, dict[str, Any]], list[bytes]]:
        """Give responses that are there, and the keys that the asker is to make; for the rest it asks again after that.

        Waits until there's one or the other of at least one key.

        Raises:
            CallsStopped: a stop was asked for.
            CacheError: the ledger can't be read or written.
        """
        ...

    def finish(self, made: Sequence[StoredResponse], failed: Sequence[bytes]) -> None:
        """Keep what was made, and let others make what failed.

        Raises:
            CacheError: the ledger can't be written.
        """
        ...


class BatchDesk:
    """The desk for one batch of a step of this process.

    Args:
        calls: the step's calls.
        batch: the batch's requests.
        loop: the run's event loop, in another thread.
    """

    def __init__(self, calls: StepCalls, batch: BatchRequests, loop: asyncio.AbstractEventLoop) -> None:
        self._calls = calls
        self._batch = batch
        self._loop = loop

    def number(self, digests: Sequence[bytes]) -> list[int]:
        """Number requests of the batch."""
        return self._batch.number(digests)

    def begin(
        self, model_name: str, endpoint: str, keys: Sequence[bytes]
    ) -> tuple[dict[bytes, dict[str, Any]], list[bytes]]:
        """Give responses that are there, and the keys that the asker is to make."""
        begun: tuple[dict[bytes, dict[str, Any]], list[bytes]]
        begun = self._wait(self._begin(model_name, endpoint, keys))
        return begun

    def finish(self, made: Sequence[StoredResponse], failed: Sequence[bytes]) -> None:
        """Keep what was made."""
        self._wait(self._finish(made, failed))

    def answer(self, model: RemoteModel, requests: Sequence[Request]) -> list[Any]:
        """Have a model that's reached over a network answer."""
        answers: list[Any] = self._wait(self._calls.answer(model, requests))
        return answers

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _begin(
        self, model_name: str, endpoint: str, keys: Sequence[bytes]
    ) -> tuple[dict[bytes, dict[str, Any]], list[bytes]]:
        generation = self._calls.generation
        found: dict[bytes, dict[str, Any]] = {}
        own: list[bytes] = []
        claimed: list[bytes] = []
        left, pause_s = list(dict.fromkeys(keys)), _FIRST_LOOK_S
        try:
            # Who has something to make doesn't wait for others, who may be waiting for that.
            while left and not claimed:
                generation.endpoints.check_running()
                left = await self._await_others(left, found)
                own = [key for key in left if key not in generation.under_way]
                for key in own:
                    generation.under_way[key] = asyncio.get_running_loop().create_future()
                begun = await generation.io.begin(self._calls.in_run(model_name, endpoint), own)
                found |= {key: begun.found[key].response for key in own if key in begun.found}
                claimed = [key for key in own if key in begun.claimed]
                self._calls.check_allowed(claimed)
                elsewhere = [key for key in own if key in begun.elsewhere]
                self._hand_on([key for key in own if key not in claimed], found)
                own = claimed
                left = [key for key in left if key not in found]
                if elsewhere and not claimed:
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, _LONGEST_LOOK_S)
        except BaseException:
            self._hand_on(own, found)
            generation.io.release(own)
            raise
        self._calls.tally.reused += len(found)
        return found, claimed

    async def _await_others(self, keys: list[bytes], found: dict[bytes, dict[str, Any]]) -> list[bytes]:
        """Wait for what other steps of the run are making; give what they didn't."""
        under_way = self._calls.generation.under_way
        # Taken together: while one is waited for, others end and are forgotten.
        futures = {key: under_way[key] for key in keys if key in under_way}
        for key, future in futures.items():
            outcome = await asyncio.shield(future)
            if outcome.response is not None:
                found[key] = outcome.response
        return [key for key in keys if key not in found]

    def _hand_on(self, keys: Sequence[bytes], responses: Mapping[bytes, dict[str, Any]]) -> None:
        """Tell steps that wait for calls what came of them."""
        for key in keys:
            future = self._calls.generation.under_way.pop(key)
            if not future.done():
                response = responses.get(key)
                error = None if response is not None else CallsStopped()
                future.set_result(Outcome(response, error))

    async def _finish(self, made: Sequence[StoredResponse], failed: Sequence[bytes]) -> None:
        calls = self._calls
        try:
            for stored in made:
                calls.tally.add_call(stored)
                calls.generation.budget.add(stored.cost_usd)
            await calls.generation.io.store(
                [Paid(stored, calls.in_run(stored.model, stored.endpoint)) for stored in made]
            )
        finally:
            calls.generation.io.release(failed)
            if failed:
                calls.tally.failures["no_text"] += len(failed)
            responses = {stored.key: stored.response for stored in made}
            self._hand_on([*responses, *failed], responses)


class OwnCaller:
    """Makes the calls of models that work in this process, with a desk that knows what is there.

    Args:
        desk: of the batch that is being computed.
        run_id: what the ledger calls the run.
    """

    def __init__(self, desk: Desk, run_id: str) -> None:
        self._desk = desk
        self._run_id = run_id

    def answer(
        self, model: Model, inputs: list[Any], num_generations: int, kwargs: Mapping[str, Any]
    ) -> list[Any]:
        """Give the output of each input, in order; the model is asked for what isn't in the ledger.

        Raises:
            CallsStopped: a stop was asked for.
            CacheError: the ledger can't be read or written.
        """
        requests = RequestMaker(model, num_generations, kwargs).make(inputs, self._desk)
        wanted = {key: request for request in requests for key in request.keys}
        responses: dict[bytes, dict[str, Any]] = {}
        while left := [key for key in wanted if key not in responses]:
            found, claimed = self._desk.begin(model.model_name, model.endpoint, left)
            responses |= found
            if claimed:
                responses |= self._ask(model, {key: wanted[key] for key in claimed})
        outcomes = {key: Outcome(response) for key, response in responses.items()}
        return [read_answer(model, request, outcomes) for request in requests]

    def _ask(self, model: Model, missing: Mapping[bytes, Request]) -> dict[bytes, dict[str, Any]]:
        """Have the model answer; keep what is whole, and give that as the ledger will."""
        begun_at = time.monotonic()
        kept: list[StoredResponse] = []
        try:
            made = _ask_at_once(model, missing)
            course = Course(1, (time.monotonic() - begun_at) / len(missing))
            for key, output in made.items():
                request = missing[key]
                try:
                    # What failed isn't kept, so that the next run tries again.
                    if model.is_paid(output):
                        response = as_json(model, output)
                        kept.append(
                            describe_response(
                                model, request, key, response, course=course, run_id=self._run_id
                            )
                        )
                except Exception as error:  # noqa: BLE001  (an odd answer fails its own row)
                    made[key] = fail(error, request.count)
        finally:
            done = {stored.key for stored in kept}
            self._desk.finish(kept, [key for key in missing if key not in done])
        return {**made, **{stored.key: stored.response for stored in kept}}


class BatchCaller:
    """Makes the calls of a step's own code, in its thread: what `generate_outputs` goes through in a run.

    Args:
        desk: of the batch that is being computed.
        run_id: what the ledger calls the run.
    """

    def __init__(self, desk: BatchDesk, run_id: str) -> None:
        self.desk = desk
        self._own = OwnCaller(desk, run_id)

    def answer(
        self, model: Model, inputs: list[Any], num_generations: int, kwargs: Mapping[str, Any]
    ) -> list[Any]:
        """Give the output of each input, in order; blocks until all are there.

        Raises:
            CallsStopped: a stop was asked for.
            ModelUnavailableError: the endpoint can't be used.
            CacheError: the ledger can't be read or written.
        """
        if not isinstance(model, RemoteModel):
            return self._own.answer(model, inputs, num_generations, kwargs)
        return self.desk.answer(model, RequestMaker(model, num_generations, kwargs).make(inputs, self.desk))


def _ask_at_once(model: Model, missing: Mapping[bytes, Request]) -> dict[bytes, Any]:
    assert isinstance(model, LLM)  # noqa: S101  (other models are remote ones)
    first = next(iter(missing.values()))
    outputs = model.ask([request.content for request in missing.values()], first.count, **first.kwargs)
    return dict(zip(missing, outputs, strict=True))
