"""The commands of `distilabel-dagster`."""

import click

from distilabel_dagster.cli.cache import cache_group
from distilabel_dagster.cli.pipeline import pipeline_group
from distilabel_dagster.cli.plan import plan_pipeline
from distilabel_dagster.cli.verify import verify_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distilabel-dagster")
def commands() -> None:
    """Run distilabel's cached, resumable pipelines through Dagster, and look at what the cache holds."""


commands.add_command(pipeline_group)
commands.add_command(plan_pipeline)
commands.add_command(cache_group)
cache_group.add_command(verify_command)
