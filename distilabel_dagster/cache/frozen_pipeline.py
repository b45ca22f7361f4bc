"""What `pipeline.yaml` says of a pipeline's graph, read as data and checked against its own signatures.

No class is imported. The pipeline's signature follows from its name and its leaf steps' signatures, so a file of another
pipeline, or one in which a bit of these was changed, is told from the right one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from distilabel_dagster.base.signature import SIGNATURE_SCHEME, is_signature, sign_pipeline

_STEP_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class FrozenStep:
    """A step of a frozen pipeline.

    Attributes:
        name: the step.
        signature: its signature.
        predecessors: the steps that it follows, in the order of its inputs.
        input_batch_size: rows per call; None for a generator.
        is_convergence: whether it brings routed branches together.
        is_leaf: whether nothing follows it.
    """

    name: str
    signature: str
    predecessors: tuple[str, ...]
    input_batch_size: int | None
    is_convergence: bool
    is_leaf: bool


@dataclass(frozen=True, slots=True)
class FrozenPipeline:
    """A frozen pipeline: its name, and its steps in the order of the file."""

    name: str
    steps: tuple[FrozenStep, ...]

    @property
    def leaf_steps(self) -> tuple[str, ...]:
        """The steps that nothing follows: the Distiset's configs."""
        return tuple(step.name for step in self.steps if step.is_leaf)

    @property
    def step_signatures(self) -> dict[str, str]:
        """Step -> its signature."""
        return {step.name: step.signature for step in self.steps}


def parse_frozen(content: Any, signature: str) -> FrozenPipeline:
    """Read a pipeline file's content.

    Args:
        content: the file as plain data.
        signature: the pipeline's, which its directory is named by.

    Raises:
        ValueError: it's no pipeline, or not the one of that signature; the message says what's wrong.
    """
    pipeline = _mapping(_mapping(content, "the file").get("pipeline"), "`pipeline`")
    signatures = _read_signatures(_mapping(content, "the file").get("signatures"), signature)
    name = _text(pipeline.get("name"), "the pipeline's name")
    fields = _read_fields(pipeline.get("steps"))
    if fields.keys() != signatures.keys():
        odd = ", ".join(f"`{each}`" for each in sorted(fields.keys() ^ signatures.keys()))
        raise ValueError(f"its steps and its signatures aren't those of the same steps: {odd}")
    edges = _read_edges(pipeline.get("connections"), fields)
    sources = {source for source, _ in edges}
    leaves = [each for step, each in signatures.items() if step not in sources]
    scheme = _mapping(content["signatures"], "`signatures`").get("scheme")
    if scheme == SIGNATURE_SCHEME and sign_pipeline(name, leaves) != signature:
        raise ValueError(
            f"its name and the signatures of its leaf steps don't make up the signature {signature}: something in it "
            "was changed"
        )
    routing = _read_routing(pipeline.get("routing_batch_functions"), fields)
    return FrozenPipeline(name, tuple(_build_steps(fields, signatures, edges, routing)))


def _read_signatures(section: Any, signature: str) -> dict[str, str]:
    section = _mapping(section, "`signatures`")
    if section.get("pipeline") != signature:
        raise ValueError(
            f"it holds the pipeline {section.get('pipeline')!r}, expected the one of its directory"
        )
    found = _mapping(section.get("steps"), "`signatures.steps`")
    for name, each in found.items():
        if not (isinstance(name, str) and _STEP_NAME.fullmatch(name)):
            raise ValueError(f"it names a step {name!r}, which none can be called")
        if not (isinstance(each, str) and is_signature(each)):
            raise ValueError(f"step `{name}` has {each!r} where a signature belongs")
    return {str(name): str(each) for name, each in found.items()}


def _read_fields(steps: Any) -> dict[str, Mapping[str, Any]]:
    """Step -> its fields."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in _list(steps, "`pipeline.steps`"):
        entry = _mapping(each, "a step")
        name = _text(entry.get("name"), "a step's name")
        if name in found:
            raise ValueError(f"it has two steps called `{name}`")
        found[name] = _mapping(entry.get("step"), f"step `{name}`")
    return found


def _read_edges(connections: Any, known: Mapping[str, Any]) -> list[tuple[str, str]]:
    edges = []
    for each in _list(connections, "`pipeline.connections`"):
        entry = _mapping(each, "a connection")
        targets = _list(entry.get("to"), "a connection's `to`")
        edges += [(_known(entry.get("from"), known), _known(target, known)) for target in targets]
    return edges


def _read_routing(functions: Any, known: Mapping[str, Any]) -> set[str]:
    """The steps behind which a routing function is."""
    listed = _list(functions, "`pipeline.routing_batch_functions`")
    return {_known(_mapping(entry, "a routing function").get("step"), known) for entry in listed}


def _build_steps(
    fields: Mapping[str, Mapping[str, Any]],
    signatures: Mapping[str, str],
    edges: list[tuple[str, str]],
    routing: set[str],
) -> list[FrozenStep]:
    before = {name: tuple(source for source, target in edges if target == name) for name in fields}
    sources = {source for source, _ in edges}

    def is_convergence(name: str) -> bool:
        routed = {next((each for each in before[branch] if each in routing), None) for branch in before[name]}
        return len(before[name]) > 1 and len(routed) == 1 and None not in routed

    found = []
    for name, values in fields.items():
        size = values.get("input_batch_size")
        if before[name] and not (type(size) is int and size > 0):
            raise ValueError(f"step `{name}` has the input_batch_size {size!r}, expected a count of rows")
        if size is not None and not before[name]:
            raise ValueError(f"step `{name}` takes batches, and there's no step that it follows")
        found.append(
            FrozenStep(
                name=name,
                signature=signatures[name],
                predecessors=before[name],
                input_batch_size=size if before[name] else None,
                is_convergence=is_convergence(name),
                is_leaf=name not in sources,
            )
        )
    return found


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is {_told(value)}, expected a mapping")  # noqa: TRY004  (the file is wrong, not the call)
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is {_told(value)}, expected a list")  # noqa: TRY004 (it's data that is wrong, not a caller)
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is {_told(value)}, expected text")  # noqa: TRY004 (it's data that is wrong, not a caller)
    return value


def _known(name: Any, known: Mapping[str, Any]) -> str:
    if not (isinstance(name, str) and name in known):
        raise ValueError(f"it connects a step {name!r}, which it hasn't")
    return name


def _told(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
