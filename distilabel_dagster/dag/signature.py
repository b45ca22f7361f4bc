"""Signatures of steps and pipelines: a Merkle chain over the graph (scheme in `base.signature`)."""

from typing import Any

from distilabel_dagster.base.signature import (
    SIGNATURE_SCHEME,
    compute_signature,
    describe_identity,
    sign_pipeline,
)
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.errors import SerializationError


def compute_step_signatures(dag: DAG) -> dict[str, str]:
    """Give each step's signature: 40 hexadecimal digits.

    A signature covers the step's name, class, code, identity fields and data, the signatures of its predecessors in
    order, and the routing function (with the successors it chooses from) between them. So a change upstream changes
    everything downstream, and a change of a leaf nothing else.

    Raises:
        SerializationError: a field's value isn't data.
    """
    signatures: dict[str, str] = {}
    for name in dag.topological_order():
        inputs = [_describe_input(dag, predecessor, signatures) for predecessor in dag.predecessors(name)]
        identity = describe_identity(dag.steps[name])
        try:
            signatures[name] = compute_signature(
                {"scheme": SIGNATURE_SCHEME, "name": name, "step": identity, "predecessors": inputs}
            )
        except SerializationError as error:
            raise _name_place(name, identity["fields"], error) from error
    return signatures


def _name_place(step: str, fields: dict[str, Any], error: SerializationError) -> SerializationError:
    """Say which field of which step holds what is no data."""
    for field, value in fields.items():
        try:
            compute_signature(value)
        except SerializationError as problem:
            return SerializationError(f"Step `{step}`, field `{field}`: {problem}", step=step, field=field)
    return SerializationError(f"Step `{step}`: {error}", step=step)


def _describe_input(dag: DAG, predecessor: str, signatures: dict[str, str]) -> list[Any]:
    routing = dag.routing.get(predecessor)
    if routing is None:
        return [signatures[predecessor]]
    return [signatures[predecessor], routing.describe_identity(), dag.successors(predecessor)]


def compute_pipeline_signature(name: str, dag: DAG, step_signatures: dict[str, str]) -> str:
    """Give the pipeline's signature, its directory and partition key: from its name and its leaf steps' signatures."""
    return sign_pipeline(name, [step_signatures[leaf] for leaf in dag.leaf_steps])
