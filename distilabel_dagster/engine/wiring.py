"""How a step is wired into the graph: the buffer that fits its place, and where its batches go."""

from distilabel_dagster.base.error_texts import tell_error
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.dag.routing import RoutingBatchFunction
from distilabel_dagster.engine.convergence import ConvergenceBuffer
from distilabel_dagster.engine.step_buffer import GlobalBuffer, JoinBuffer, StepBuffer
from distilabel_dagster.errors import RoutingError, StepProcessError


def build_buffer(dag: DAG, name: str) -> tuple[StepBuffer, list[str]]:
    """Make the buffer that fits a step, and name the steps whose batches it has to be told of."""
    predecessors = dag.predecessors(name)
    step = dag.steps[name]
    if step.is_global:
        return GlobalBuffer(name, predecessors), predecessors
    size = int(getattr(step, "input_batch_size", 0) or 1)
    source = dag.convergence_source(name)
    if source is not None:
        return ConvergenceBuffer(name, source, predecessors, size), [*predecessors, source]
    return JoinBuffer(name, predecessors, size, dag.routed_from(name)), predecessors


def choose_route(routing: RoutingBatchFunction, step: str, targets: list[str], seq_no: int) -> list[str]:
    """Call a routing function for a batch.

    Raises:
        StepProcessError: the function raised.
        RoutingError: it chose nothing, or something that doesn't follow the step.
    """
    try:
        return routing.choose(step, targets, seq_no)
    except RoutingError:
        raise
    except Exception as error:
        raise StepProcessError(
            f"The routing function of step `{step}` failed on batch {seq_no}: {tell_error(error)}.",
            step=step,
            seq_no=seq_no,
        ) from error
