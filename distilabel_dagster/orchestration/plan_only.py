"""A run with `plan_only`: computes what is free, pays nothing, materializes nothing, and says what a run would pay."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.engine.events import RunStopped, StepStopped
from distilabel_dagster.engine.plan import PLAN_TITLES, RunPlan
from distilabel_dagster.orchestration.assets import StepGroup
from distilabel_dagster.orchestration.events import EventLog
from distilabel_dagster.orchestration.metadata import describe_planned_calls, make_markdown_table

PLAN_ONLY = "plan_only"


def read_op_config(run_config: Mapping[str, Any], op_name: str) -> Mapping[str, Any]:
    """Give the config of an op in a run's config."""
    config: Mapping[str, Any] = ((run_config.get("ops") or {}).get(op_name) or {}).get("config") or {}
    return config


def log_plan(context: dg.AssetExecutionContext, group: StepGroup, cache: PipelineCache) -> RunPlan:
    """Compute what is free of the op's steps, count what is left to call, and log it.

    Dagster skips the ops behind one that materializes nothing, so their steps are planned here as well. The log gets a
    Markdown table; each step that calls a model gets an `AssetObservation`.

    Args:
        context: the op's context.
        group: the op's steps.
        cache: the pipeline's place in the cache, for the run's partition.
    """
    log = EventLog(context.log)
    planned: list[str] = []
    for steps in _find_planned_ops(context, group).values():
        planned += steps
        for event in group.pipeline.iter_free(cache, steps=steps):
            # A plan ends where the first call would be made; that isn't the stop that these are about.
            if not isinstance(event, StepStopped | RunStopped):
                log.tell(event)
    plan = group.pipeline.plan_calls(cache).only(planned)
    context.log.info(_describe(plan))
    for step in plan.steps:
        context.log_event(
            dg.AssetObservation(
                asset_key=group.asset_keys[step.step],
                description="What a run would call and pay.",
                partition=context.partition_key,
                metadata=describe_planned_calls(step),
            )
        )
    return plan


def _describe(plan: RunPlan) -> str:
    if not plan.steps:
        return "\n\n".join(plan.remarks)
    table = make_markdown_table(list(PLAN_TITLES), plan.table)
    return "\n\n".join(["What a run would call and pay:", table, *plan.remarks])


def _find_planned_ops(context: dg.AssetExecutionContext, group: StepGroup) -> dict[str, list[str]]:
    """The ops that this one plans -> their selected steps: itself, and those that Dagster skips as it gives nothing.

    One that several planning ops would plan is left to the last of them, which knows most.
    """
    selected = _select(context, group)
    dag, config = group.pipeline.dag, context.run.run_config
    op_of = {step: op for op, steps in selected.items() for step in steps}
    planners: dict[str, str] = {}
    for op, steps in selected.items():
        before = {op_of[each] for name in steps for each in dag.predecessors(name) if each in op_of} - {op}
        found = [planners[each] for each in before if each in planners]
        if found:
            planners[op] = max(found, key=list(selected).index)
        elif op == group.op_name or bool(read_op_config(config, op).get(PLAN_ONLY)):
            planners[op] = op
    mine = {op: steps for op, steps in selected.items() if planners.get(op) == group.op_name}
    return {group.op_name: selected[group.op_name], **mine}


def _select(context: dg.AssetExecutionContext, group: StepGroup) -> dict[str, list[str]]:
    """The ops of the pipeline -> their steps, in order, as far as the run materializes them."""
    of_run = context.run.asset_selection or None  # none named: the whole job
    selected: dict[str, list[str]] = {}
    for op, steps in group.op_names.items():
        keys = context.selected_asset_keys if op == group.op_name else of_run
        found = [name for name in steps if keys is None or group.asset_keys[name] in keys]
        if found:
            selected[op] = found
    return selected
