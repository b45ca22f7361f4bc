"""Load stages: which steps run side by side, and which wait until others are done and unloaded."""

from typing import Final, Literal

from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.errors import LoadGroupError, suggest

SEQUENTIAL: Final = "sequential_step_execution"
LoadGroups = list[list[str]] | Literal["sequential_step_execution"]


def normalize_load_groups(dag: DAG, load_groups: LoadGroups | None) -> list[list[str]]:
    """Check `load_groups` and give them as lists of names.

    Raises:
        LoadGroupError: unknown step, a step in two groups, a global step with others, an empty group, another word.
    """
    if load_groups is None:
        return []
    if isinstance(load_groups, str):
        if load_groups == SEQUENTIAL:
            return [[name] for name in dag.topological_order()]
        raise LoadGroupError(
            f"`load_groups={load_groups!r}` isn't known. Give lists of step names, or '{SEQUENTIAL}'."
        )
    groups = [[str(getattr(step, "name", step)) for step in group] for group in load_groups]
    seen: set[str] = set()
    for group in groups:
        if not group:
            raise LoadGroupError("`load_groups` holds an empty group. Leave it out.")
        for name in group:
            if name not in dag.steps:
                raise LoadGroupError(
                    f"`load_groups` names `{name}`, which is no step.{suggest(name, dag.steps)}"
                )
            if name in seen:
                raise LoadGroupError(f"`load_groups` names step `{name}` twice. A step can be in one group.")
            if dag.steps[name].is_global and len(group) > 1:
                raise LoadGroupError(
                    f"`load_groups` puts the global step `{name}` in a group with others. A global step runs when "
                    "its predecessors are done: give it a group of its own, or none."
                )
            seen.add(name)
    return groups


def compute_load_stages(dag: DAG, load_groups: LoadGroups | None = None) -> list[list[str]]:
    """Split the steps into stages that run one after another; those of one stage stream side by side.

    A global step is a stage boundary on both sides, and so is each load group's edge; a load group shares its stage
    with no other step.

    Returns:
        Stages in order, each with its steps in topological order.

    Raises:
        LoadGroupError: see `normalize_load_groups`; or rows would leave a group and come back to it.
    """
    group_of = {
        name: index for index, group in enumerate(normalize_load_groups(dag, load_groups)) for name in group
    }
    level: dict[str, int] = {}
    for name in dag.topological_order():
        is_global = dag.steps[name].is_global
        level[name] = max(
            (
                level[each]
                + int(is_global or dag.steps[each].is_global or group_of.get(each) != group_of.get(name))
                for each in dag.predecessors(name)
            ),
            default=0,
        )
    _raise_groups(dag, group_of, level)
    stages: dict[tuple[int, int], list[str]] = {}
    for name in dag.topological_order():
        stages.setdefault((level[name], group_of.get(name, -1)), []).append(name)
    return [stages[key] for key in sorted(stages)]


def _raise_groups(dag: DAG, group_of: dict[str, int], level: dict[str, int]) -> None:
    """Bring the members of a group to one level, and what follows them behind it."""
    order = dag.topological_order()
    for _ in range(len(order) + 1):
        before = dict(level)
        for name in order:
            if name in group_of:
                level[name] = max(level[each] for each in order if group_of.get(each) == group_of[name])
            for each in dag.predecessors(name):
                crosses = dag.steps[name].is_global or dag.steps[each].is_global
                crosses = crosses or group_of.get(each) != group_of.get(name)
                level[name] = max(level[name], level[each] + int(crosses))
        if level == before:
            return
    torn = sorted({name for name in group_of if level[name] > len(order)})
    raise LoadGroupError(
        f"`load_groups` can't run one after another: rows leave the group of {torn or sorted(group_of)} and come back "
        "to it through other steps. Put the steps between into the group, or split it."
    )
