"""`pipeline run` and `pipeline info`."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import click

from distilabel_dagster.cache.inventory import describe_pipeline
from distilabel_dagster.cli.calls import tell_usage
from distilabel_dagster.cli.information import print_information
from distilabel_dagster.cli.options import (
    cache_dir_option,
    config_option,
    debug_option,
    ledger_url_option,
    load_groups_option,
    parameters_option,
)
from distilabel_dagster.cli.parameters import read_parameters
from distilabel_dagster.cli.run import run_through_dagster
from distilabel_dagster.cli.terminal import make_console
from distilabel_dagster.dag.load_stages import LoadGroups
from distilabel_dagster.engine.run_state import WhenInUse
from distilabel_dagster.errors import PipelineFileError
from distilabel_dagster.pipeline import Pipeline


@click.group("pipeline")
def pipeline_group() -> None:
    """Run a pipeline, or look at one."""


def load_pipeline(
    config: str, cache_dir: str | None, trusted_modules: Sequence[str], ledger_url: str | None = None
) -> Pipeline:
    """Read a pipeline's file.

    Raises:
        PipelineFileError: it isn't there, or is no pipeline.
        UntrustedClassError: it names a class of a module that isn't trusted.
    """
    if trusted_modules and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # behind the rest, so that nothing there stands in for a library
    for module in trusted_modules:  # a schema's class isn't imported on the way, as steps and models are
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise PipelineFileError(
                f"`--trusted-module {module}`: it can't be imported: {error}. It's looked for in the present folder and "
                "where Python finds modules.",
                source=config,
            ) from error
    read = Pipeline.from_json if config.lower().endswith(".json") else Pipeline.from_yaml
    return read(config, trusted_modules=trusted_modules, cache_dir=cache_dir, ledger_url=ledger_url)


@pipeline_group.command("run")
@config_option
@parameters_option
@cache_dir_option
@ledger_url_option
@click.option(
    "--ignore-cache", is_flag=True, help="Compute all rows anew, from the answers of models that are kept."
)
@click.option(
    "--on-error",
    type=click.Choice(["impute", "raise"]),
    default="impute",
    show_default=True,
    help="Rows on which a step fails: keep them without its outputs, for the next run to try again; or end the run.",
)
@load_groups_option
@click.option(
    "--max-cost-usd",
    type=click.FloatRange(min=0, min_open=True),
    metavar="USD",
    help="US dollars that calls of models may cost under the pipeline's signature, earlier runs included. At the limit the "
    "run ends with exit code 3; with a higher one it goes on from there.",
)
@click.option(
    "--when-in-use",
    type=click.Choice(get_args(WhenInUse)),
    default="raise",
    show_default=True,
    help="When another process writes one of the steps: end and say which it is; or wait for its end, and go on from there.",
)
@click.option(
    "--repo-id", metavar="USER/NAME", help="Push the dataset to this repository of the Hugging Face Hub."
)
@click.option("--private", is_flag=True, help="Make that repository private, if it's new.")
@click.option(
    "--token", metavar="TOKEN", help="Token for it; by default that of `hf auth login` or HF_TOKEN."
)
@debug_option
def run_pipeline(
    *,
    config: str,
    trusted_modules: tuple[str, ...],
    parameters: tuple[str, ...],
    cache_dir: str | None,
    ledger_url: str | None,
    ignore_cache: bool,
    on_error: Literal["impute", "raise"],
    load_groups: LoadGroups | None,
    max_cost_usd: float | None,
    when_in_use: WhenInUse,
    repo_id: str | None,
    private: bool,
    token: str | None,
) -> None:
    """Run a pipeline through Dagster, or go on where an earlier run of it ended.

    Each step becomes a materialization on the partition of the pipeline's signature. They are kept in Dagster's
    instance: DAGSTER_HOME, else what dagster.yaml of the current directory says, else .dagster in the cache directory.
    """
    pipeline = load_pipeline(config, cache_dir, trusted_modules, ledger_url)
    with pipeline.with_parameters(read_parameters(pipeline, parameters)):
        result = run_through_dagster(
            pipeline,
            load_groups=load_groups,
            on_error=on_error,
            use_cache=not ignore_cache,
            max_cost_usd=max_cost_usd,
            when_in_use=when_in_use,
        )
        cache = pipeline.open_cache()
    console = make_console()
    console.print(repr(result.distiset), markup=False)
    for step in describe_pipeline(cache.fs, cache.signature).steps:
        if step.failed_rows:
            console.print(
                f"{step.failed_rows} of {step.rows} rows of step `{step.name}` failed and have no outputs of it. Run "
                "this again to try just these.",
                style="yellow",
                markup=False,
            )
    for line in tell_usage(result.usage, result.usage_in_all):
        console.print(line, markup=False)
    console.print(f"Data:      {cache.data_url}", markup=False)
    console.print(f"Signature: {cache.signature}", markup=False)
    place = result.place
    told = f"{result.run_id} in {place.directory} (see it with: {place.how_to_browse})"
    console.print(f"Run:       {told}", markup=False)
    if repo_id is not None:
        result.distiset.push_to_hub(repo_id, private=private, token=token)
        console.print(f"Pushed to: {repo_id}", markup=False)


@pipeline_group.command("info")
@config_option
@cache_dir_option
@debug_option
def show_pipeline(config: str, trusted_modules: tuple[str, ...], cache_dir: str | None) -> None:
    """Show a pipeline: its steps, their columns and runtime parameters, and how far it is in the cache."""
    print_information(load_pipeline(config, cache_dir, trusted_modules), make_console())
