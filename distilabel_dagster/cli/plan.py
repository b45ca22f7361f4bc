"""`plan`: what a run is going to call and pay, before it does."""

import contextlib
import json
import sys
from typing import Final

import click

from distilabel_dagster.cli.options import (
    cache_dir_option,
    config_option,
    debug_option,
    json_option,
    ledger_url_option,
    load_groups_option,
    parameters_option,
)
from distilabel_dagster.cli.parameters import read_parameters
from distilabel_dagster.cli.pipeline import load_pipeline
from distilabel_dagster.cli.progress import PlainView, RunView, listen
from distilabel_dagster.cli.signals import SignalWatch, StoppedBySignal
from distilabel_dagster.cli.terminal import LogConsole, make_console, open_log_stream, print_table
from distilabel_dagster.dag.load_stages import LoadGroups
from distilabel_dagster.engine import events
from distilabel_dagster.engine.plan import PLAN_TITLES, RunPlan, describe_plan
from distilabel_dagster.pipeline import Pipeline

# A plan ends where the first call would be made; that isn't the stop that these events are about.
_NOT_OF_A_PLAN: Final = (events.RunStarted, events.StepStopped, events.RunStopped)


class _PlanView:
    """Shows what is computed for a plan."""

    def __init__(self, view: RunView) -> None:
        self._view = view

    def show(self, event: events.RunEvent) -> None:
        """Show what happened."""
        if not isinstance(event, _NOT_OF_A_PLAN):
            self._view.show(event)

    def tell(self, text: str, *, is_warning: bool) -> None:
        """Show a line that is no event."""
        self._view.tell(text, is_warning=is_warning)


@click.command("plan")
@config_option
@parameters_option
@cache_dir_option
@ledger_url_option
@load_groups_option
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Let each step make up to N calls, about the first rows, to learn what a call uses. They are paid, and kept for "
    "the run to come.",
)
@json_option
@debug_option
def plan_pipeline(
    *,
    config: str,
    trusted_modules: tuple[str, ...],
    parameters: tuple[str, ...],
    cache_dir: str | None,
    ledger_url: str | None,
    load_groups: LoadGroups | None,
    sample: int,
    as_json: bool,
) -> None:
    """Say how many calls each step of a run would make, how many are answered already, and what they would cost.

    Nothing is paid, except for a --sample. What comes before the first model is computed and kept, for the run to
    come; calls for rows that a model has to make first are estimated.
    """
    pipeline = load_pipeline(config, cache_dir, trusted_modules, ledger_url)
    with pipeline.with_parameters(read_parameters(pipeline, parameters)):
        plan = _plan(pipeline, load_groups, sample)
    console = make_console()
    if as_json:
        content = {"pipeline": pipeline.name, **describe_plan(plan)}
        console.out(json.dumps(content, indent=2, ensure_ascii=False), highlight=False)
        return
    if plan.steps:
        print_table(console, PLAN_TITLES, plan.table, numbers=range(2, len(PLAN_TITLES)))
        console.print()
    for remark in plan.remarks:
        console.print(remark, markup=False)


def _plan(pipeline: Pipeline, load_groups: LoadGroups | None, sample: int) -> RunPlan:
    """Make the plan, and show what is computed for it.

    Raises:
        StoppedBySignal: Ctrl+C or SIGTERM; what was computed is kept.
    """
    watch = SignalWatch(lambda: None)
    with open_log_stream() as stream, watch, contextlib.redirect_stdout(sys.stderr):
        # What steps print isn't part of the plan.
        view = _PlanView(PlainView(LogConsole(file=stream, highlight=False)))
        try:
            with listen(view):
                return pipeline.plan(load_groups=load_groups, sample=sample)
        except KeyboardInterrupt:
            if watch.number is None:
                raise
            raise StoppedBySignal(watch.number) from None
