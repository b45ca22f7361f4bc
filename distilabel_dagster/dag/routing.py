"""Routing batch functions: which successors of a step get a batch."""

import inspect
import random
import reprlib
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, Final

from distilabel_dagster.base.code_fingerprint import fingerprint_code
from distilabel_dagster.base.serializable import dump_value, is_trusted, module_name, resolve_attribute
from distilabel_dagster.errors import (
    DistilabelDagsterError,
    PipelineFileError,
    RoutingError,
    SerializationError,
    UntrustedClassError,
    suggest,
)

_FACTORIES: Final[dict[tuple[str, str], None]] = {}
# What a factory raises whose arguments are of types that nobody thought of.
_UNFIT: Final = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class RoutingBatchFunction:
    """A function that chooses, for each batch, which of a step's successors get it.

    Made by `@routing_batch_function()` or by a factory such as `sample_n_steps`; used as
    `step >> function >> [a, b, c]`. Choices are recorded with each batch, and taken from the record on resume, so
    a function may be random or keep state.

    Attributes:
        description: what it does, for people.
        kwargs: arguments of the factory that made it; None where it stands at the top of its module.
    """

    def __init__(
        self,
        function: Callable[..., list[str]],
        description: str | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.function = function
        self.description = description
        self.kwargs = kwargs
        self.source: Any = None
        self._takes_seq_no = len(inspect.signature(function).parameters) > 1
        self._targets: list[str] = []
        self._choices: list[Any] = []

    def bind(self, step: Any) -> "RoutingBatchFunction":
        """Give a routing function of the same kind that stands behind `step` and keeps its own count."""
        bound = RoutingBatchFunction(self.function, self.description, self.kwargs)
        bound.source = step
        return bound

    def choose(self, step: str, targets: list[str], seq_no: int) -> list[str]:
        """Choose the successors that get batch `seq_no` of `step`, in the order of `targets`.

        The function is called once for each batch, in order: where earlier ones were routed in another process, for
        those first, so that one that keeps state goes on from where it was; a batch that is computed again goes where
        it went before.

        Raises:
            RoutingError: the function chose nothing, or something that's no successor.
        """
        if targets != self._targets:
            self._targets, self._choices = list(targets), []
        while len(self._choices) <= seq_no:
            self._choices.append(self._call(targets, len(self._choices)))
        chosen = self._choices[seq_no]
        if not isinstance(chosen, list | tuple | set) or not chosen:
            raise RoutingError(
                f"The routing function of step `{step}` chose {chosen!r} for batch {seq_no}; expected a list with at "
                f"least one of {targets}, since a batch that goes nowhere would be lost."
            )
        unknown = [name for name in chosen if name not in targets]
        if unknown:
            raise RoutingError(
                f"The routing function of step `{step}` chose `{unknown[0]}` for batch {seq_no}, which doesn't follow "
                f"it. Choose among {targets}.{suggest(str(unknown[0]), targets)}"
            )
        return [name for name in targets if name in chosen]

    def _call(self, targets: list[str], seq_no: int) -> list[str]:
        return self.function(list(targets), seq_no) if self._takes_seq_no else self.function(list(targets))

    def __call__(self, steps: list[str]) -> list[str]:
        """Call the bare function."""
        return self.function(steps, 0) if self._takes_seq_no else self.function(steps)

    def __rshift__(self, other: Any) -> Any:
        if self.source is None:
            raise RoutingError(
                "A routing function stands between steps: write `step >> function >> [a, b]`, with the step first."
            )
        self.source.pipeline.connect(self, other)
        return other

    def __rrshift__(self, other: Any) -> Any:
        raise RoutingError(
            f"A routing function follows one step, not {type(other).__name__} of them: write `step >> function >> [a, b]`."
        )

    def describe_identity(self) -> dict[str, Any]:
        """Give what can change its choices: which function, its code, its factory's arguments."""
        return {
            "function": [module_name(self.function), self.function.__qualname__],
            "code": fingerprint_code(self.function),
            "kwargs": self._plain_kwargs(),
        }

    def _plain_kwargs(self) -> dict[str, Any] | None:
        """The factory's arguments as data; None where it had none, or they aren't data.

        A function that was made inside another one just to be near its use has that one's arguments, whatever they
        are. It can't be written to a file then, but run.
        """
        try:
            plain: dict[str, Any] | None = dump_value(self.kwargs, self.function.__qualname__)
        except SerializationError:
            return None
        return plain

    def dump(self) -> dict[str, Any]:
        """Give description and `type_info` as in pipeline.yaml; a factory's arguments stand in `kwargs`."""
        name = self.function.__qualname__.partition(".<locals>")[0]
        info: dict[str, Any] = {"module": module_name(self.function), "name": name}
        kwargs = self._plain_kwargs()
        if kwargs is not None:
            info["kwargs"] = kwargs
        return {"description": self.description, "type_info": info}


def routing_batch_function(
    description: str | None = None,
) -> Callable[[Callable[..., list[str]]], RoutingBatchFunction]:
    """Make a routing function of one that takes the names of the successors and returns those that get the batch.

    A second parameter, if it has one, gets the batch's number; with that alone a choice can be random and yet equal
    in each run. Define it at the top of a module, or inside a factory whose arguments are plain data, so that it can
    be written to pipeline.yaml.

    Args:
        description: what it does, for people.

    Examples:
        >>> @routing_batch_function()
        ... def in_turn(steps: list[str], seq_no: int) -> list[str]:
        ...     return [steps[seq_no % len(steps)]]
        >>> in_turn.choose("load", ["a", "b"], seq_no=3)
        ['b']
    """
    frame = inspect.currentframe()
    caller = frame.f_back if frame else None

    def decorate(function: Callable[..., list[str]]) -> RoutingBatchFunction:
        kwargs = None
        if "<locals>" in function.__qualname__ and caller is not None:
            values = inspect.getargvalues(caller)
            kwargs = {name: values.locals[name] for name in values.args}
            _FACTORIES[module_name(function), function.__qualname__.partition(".<locals>")[0]] = None
        return RoutingBatchFunction(function, description, kwargs)

    return decorate


def sample_n_steps(n: int) -> RoutingBatchFunction:
    """Make a routing function that sends each batch to `n` successors drawn at random.

    The draw depends on the batch's number alone, so that two runs route alike.

    Raises:
        RoutingError: `n` is below 1, or no whole number.
    """
    if not isinstance(n, int):
        raise RoutingError(f"`sample_n_steps` takes a whole number of steps, found a {type(n).__name__}.")
    if n < 1:
        raise RoutingError(f"`sample_n_steps(n={n})` would send batches nowhere. Give 1 or more.")

    @routing_batch_function(description=f"Sample {n} steps from the list of steps.")
    def sample(steps: list[str], seq_no: int) -> list[str]:
        if n > len(steps):
            raise RoutingError(
                f"`sample_n_steps(n={n})` has only {len(steps)} successors to draw from: {steps}. Lower `n`."
            )
        return random.Random(f"sample_n_steps:{n}:{seq_no}").sample(steps, n)

    return sample


def load_routing_batch_function(
    data: Mapping[str, Any], source: str, trusted_modules: Iterable[str] = ()
) -> RoutingBatchFunction:
    """Make the routing function that `dump` gave `data` of.

    Raises:
        PipelineFileError: it can't be made again.
        UntrustedClassError: what's named is neither a routing function nor a factory of one.
    """
    info = data.get("type_info") or {}
    found = resolve_attribute(info, source, trusted_modules)
    if isinstance(found, RoutingBatchFunction):
        return found
    kwargs = info.get("kwargs")
    if not _is_factory(found, info, trusted_modules) or not isinstance(kwargs, Mapping):
        raise UntrustedClassError(source, info["module"], info["name"])
    try:
        made = found(**kwargs)
    except DistilabelDagsterError:
        raise
    except _UNFIT as error:
        told = ", ".join(map(reprlib.repr, kwargs)) or "nothing"
        raise PipelineFileError(
            f"{source}: `{info['name']}` can't be called with what stands there for {told} ({type(error).__name__}).",
            source=source,
        ) from error
    if not isinstance(made, RoutingBatchFunction):
        raise UntrustedClassError(source, info["module"], info["name"])
    return made


def _is_factory(found: Any, info: Mapping[str, Any], trusted_modules: Iterable[str]) -> bool:
    """Tell whether a file may have `found` called: it's known to make routing functions, or is written to.

    To trust a module isn't to have any function in it called, least of all those that it has from elsewhere.
    """
    if not isinstance(found, FunctionType):
        return False
    if found is sample_n_steps or (info["module"], info["name"]) in _FACTORIES:
        return True
    code, scope = found.__code__, found.__globals__
    is_written_to = any(
        name == routing_batch_function.__name__ or scope.get(name) is routing_batch_function
        for name in code.co_names
    )
    return is_written_to and is_trusted(module_name(found), trusted_modules)
