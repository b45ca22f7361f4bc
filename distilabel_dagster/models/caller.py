"""Who makes a model's calls: a run puts itself between tasks and models, so that what was paid for is kept."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from distilabel_dagster.errors import ModelError
from distilabel_dagster.models.model import Model


class Caller(Protocol):
    """Answers what a step asks a model, from the ledger where it can."""

    def answer(
        self, model: Model, inputs: list[Any], num_generations: int, kwargs: Mapping[str, Any]
    ) -> list[Any]:
        """Give the output of each input, in order; blocks until all are there."""
        ...


_active: ContextVar[Caller | None] = ContextVar("distilabel_dagster_caller", default=None)
_by_model: dict[int, list[Caller]] = {}
_lock = threading.Lock()  # steps that share a model begin and end in threads of their own


def find_caller(model: Model) -> Caller | None:
    """Give who makes the model's calls here; None outside of a run.

    A thread that a step has started doesn't see the step's context. Where just one running step uses the model,
    that's whose call it is.

    Raises:
        ModelError: several steps use the model, and the calling thread was started without their context.
    """
    caller = _active.get()
    if caller is not None:
        return caller
    with _lock:
        found = list(_by_model.get(id(model), ()))
    if len(found) > 1:
        raise ModelError(
            f"Model `{model.model_name}` was called in a thread of a step's own, and {len(found)} running steps use it, so "
            "it can't be told whose call it is. Start the thread's work by `contextvars.copy_context().run(...)`.",
            model=model.model_name,
        )
    return found[0] if found else None


@contextlib.contextmanager
def calling(caller: Caller, models: list[Model]) -> Iterator[None]:
    """Let `caller` make the calls of `models` for the length of the block, in this context and its threads."""
    token = _active.set(caller)
    with _lock:
        for model in models:
            _by_model.setdefault(id(model), []).append(caller)
    try:
        yield
    finally:
        _active.reset(token)
        with _lock:
            for model in models:
                callers = _by_model[id(model)]
                callers.remove(caller)
                if not callers:
                    del _by_model[id(model)]
