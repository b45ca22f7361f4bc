"""Signatures of steps and pipelines: a Merkle chain over the graph (scheme in `base.signature`)."""

from typing import Any

from distilabel_dagster.base.signature import SIGNATURE_SCHEME, compute_signature, describe_identity
from distilabel_dagster.dag.dag import DAG


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
        signatures[name] = compute_signature(
            {
                "scheme": SIGNATURE_SCHEME,
                "name": name,
                "step": describe_identity(dag.steps[name]),
                "predecessors": inputs,
            }
        )
    return signatures


def _describe_input(dag: DAG, predecessor: str, signatures: dict[str, str]) -> list[Any]:
    routing = dag.routing.get(predecessor)
    if routing is None:
        return [signatures[predecessor]]
    return [signatures[predecessor], routing.describe_identity(), dag.successors(predecessor)]


def compute_pipeline_signature(name: str, dag: DAG, step_signatures: dict[str, str]) -> str:
    """Give the pipeline's signature, its directory and partition key: from its name and its leaf steps' signatures."""
    leaves = sorted(step_signatures[leaf] for leaf in dag.leaf_steps)
    return compute_signature({"scheme": SIGNATURE_SCHEME, "pipeline": name, "leaf_steps": leaves})
