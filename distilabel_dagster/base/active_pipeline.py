"""How a step finds the pipeline that it's declared in, without importing it.

`with Pipeline(...)` puts itself here; a step that is made inside the block registers itself there. The variable is
a `ContextVar`, so that two threads or tasks can declare pipelines at the same time.
"""

from contextvars import ContextVar, Token
from typing import Any, Protocol


class StepRegistry(Protocol):
    """What a step needs of a pipeline."""

    def add_step(self, step: Any) -> None:
        """Take `step` in under its name."""
        ...

    def connect(self, source: Any, target: Any) -> Any:
        """Make `target` (a step, a list of steps, or a routing function) follow `source`; return `target`."""
        ...

    def free_step_name(self, prefix: str) -> str:
        """Give a name that starts with `prefix` and no step has yet."""
        ...


_active: ContextVar[StepRegistry | None] = ContextVar("active_pipeline", default=None)


def active_pipeline() -> StepRegistry | None:
    """The pipeline whose `with` block is running, or None."""
    return _active.get()


def activate(pipeline: StepRegistry) -> Token[StepRegistry | None]:
    """Make `pipeline` the active one; give the token to `deactivate` to restore what was before."""
    return _active.set(pipeline)


def deactivate(token: Token[StepRegistry | None]) -> None:
    """Restore the pipeline that was active before `activate` gave this token."""
    _active.reset(token)
