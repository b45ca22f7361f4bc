"""The graph of a pipeline: steps, edges in the order they were connected, routing functions."""

from collections import deque
from collections.abc import Iterable

from distilabel_dagster.dag.routing import RoutingBatchFunction
from distilabel_dagster.errors import PipelineDefinitionError, RoutingError, StepNameError, suggest
from distilabel_dagster.steps.step import BaseStep


class DAG:
    """Steps by name, and who follows whom. Orders are those of declaration and connection, so always the same."""

    def __init__(self) -> None:
        self.steps: dict[str, BaseStep] = {}
        self.routing: dict[str, RoutingBatchFunction] = {}
        self.edges: list[tuple[str, str]] = []
        self._successors: dict[str, list[str]] = {}
        self._predecessors: dict[str, list[str]] = {}

    def add_step(self, step: BaseStep) -> None:
        """Take a step in.

        Raises:
            StepNameError: another step has that name, or one that differs in case only (a directory couldn't hold
                both on every file system).
        """
        taken = next((name for name in self.steps if name.lower() == step.name.lower()), None)
        if taken is not None:
            raise StepNameError(
                f"A step called `{step.name}` can't be added: the pipeline already has `{taken}`. Each step needs a "
                "name of its own (upper and lower case don't count): pass `name=`.",
                name=step.name,
            )
        self.steps[step.name] = step
        self._successors[step.name] = []
        self._predecessors[step.name] = []

    def add_edge(self, source: str, target: str) -> None:
        """Make `target` follow `source`; the order of calls is the order of inputs.

        Raises:
            PipelineDefinitionError: they're connected already, it would close a circle, or `target` is a generator.
        """
        if target in self._successors[source]:
            raise PipelineDefinitionError(
                f"Step `{source}` is already connected to `{target}`: connect them once."
            )
        path = self._path(target, source)
        if path:
            circle = " >> ".join(f"`{name}`" for name in [*path, target])
            raise PipelineDefinitionError(
                f"Connecting `{source}` to `{target}` would close a circle: {circle}. Rows can't flow in circles; "
                "leave that connection out."
            )
        if self.steps[target].is_generator:
            raise PipelineDefinitionError(
                f"Step `{target}` is a GeneratorStep, which starts a pipeline, so it can't follow `{source}`. Derive "
                "it from Step, or connect it the other way round."
            )
        self._successors[source].append(target)
        self._predecessors[target].append(source)
        self.edges.append((source, target))

    def set_routing(self, source: str, function: RoutingBatchFunction) -> None:
        """Let `function` choose which successors of `source` get a batch.

        Raises:
            RoutingError: `source` has one already.
        """
        if self.routing.get(source, function) is not function:
            raise RoutingError(f"Step `{source}` has a routing function already; a step can have only one.")
        self.routing[source] = function

    def _path(self, start: str, end: str) -> list[str]:
        """The shortest path from start to end, both included; empty if there's none."""
        paths = deque([[start]])
        seen = {start}
        while paths:
            path = paths.popleft()
            if path[-1] == end:
                return path
            for following in self._successors[path[-1]]:
                if following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
        return []

    def get_step(self, name: str) -> BaseStep:
        """Give the step called `name`.

        Raises:
            StepNameError: there is none.
        """
        if name not in self.steps:
            known = ", ".join(f"`{each}`" for each in self.steps) or "no step"
            raise StepNameError(
                f"There's no step `{name}`.{suggest(name, self.steps)} There's {known}.", name=name
            )
        return self.steps[name]

    def predecessors(self, name: str) -> list[str]:
        """Names of the steps that `name` follows, in the order of its inputs."""
        return list(self._predecessors[name])

    def successors(self, name: str) -> list[str]:
        """Names of the steps that follow `name`, in the order they were connected."""
        return list(self._successors[name])

    @property
    def leaf_steps(self) -> list[str]:
        """Names of the steps that nothing follows: the Distiset's configs."""
        return [name for name in self.steps if not self._successors[name]]

    @property
    def generator_steps(self) -> list[str]:
        """Names of the generator steps."""
        return [name for name, step in self.steps.items() if step.is_generator]

    def ancestors(self, name: str) -> set[str]:
        """Names of all steps that `name` depends on."""
        return self._reach([name], self._predecessors)

    def descendants(self, names: Iterable[str]) -> set[str]:
        """Names of all steps that depend on one of `names`."""
        return self._reach(names, self._successors)

    @staticmethod
    def _reach(names: Iterable[str], edges: dict[str, list[str]]) -> set[str]:
        found: set[str] = set()
        waiting = [following for name in names for following in edges[name]]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += edges[name]
        return found

    def topological_order(self) -> list[str]:
        """Names so that each step stands behind its predecessors; otherwise in the order of declaration."""
        missing = {name: len(predecessors) for name, predecessors in self._predecessors.items()}
        order: list[str] = []
        while len(order) < len(missing):
            ready = next(name for name, count in missing.items() if count == 0 and name not in order)
            order.append(ready)
            for following in self._successors[ready]:
                missing[following] -= 1
        return order

    def routed_from(self, name: str) -> str | None:
        """The predecessor whose routing function decides which batches `name` gets, if there is one."""
        return next((each for each in self._predecessors[name] if each in self.routing), None)

    def convergence_source(self, name: str) -> str | None:
        """The routing step whose branches `name` brings together again, if it's a convergence step."""
        predecessors = self._predecessors[name]
        sources = {self.routed_from(each) for each in predecessors}
        if len(predecessors) < 2 or len(sources) != 1:
            return None
        return sources.pop()
