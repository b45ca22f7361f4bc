"""What calls to models came to, told on the terminal."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.inventory import PipelineEntry
from distilabel_dagster.cli.terminal import print_table
from distilabel_dagster.engine.plan import tell_cost
from distilabel_dagster.engine.tally import describe_usage, is_unused
from distilabel_dagster.ledger.reading import look_up_usage
from distilabel_dagster.ledger.usage import Usage, add_up
from distilabel_dagster.pipeline.execution import find_responses

_TITLES: Final = ("step", "calls", "reused", "tokens in", "tokens out", "cost", "failed attempts")


def read_usages(fs: CacheFileSystem, entry: PipelineEntry, ledger_url: str | None) -> dict[str, Usage]:
    """Read what the calls of a pipeline's steps came to, in all runs; only steps that have called.

    Raises:
        CacheError: the ledger can't be read.
    """
    url = find_responses(ledger_url, fs)
    if url is None:
        return {}
    keys = {step.name: layout.step_dir(step.name, step.signature).rpartition("/")[2] for step in entry.steps}
    found = look_up_usage(url, keys.values())
    return {name: found[key] for name, key in keys.items() if key in found and not is_unused(found[key])}


def print_usages(console: Console, usages: Mapping[str, Usage]) -> None:
    """Print a row per step, and one for all of them where there are several."""
    rows = [(name, *_tell(usage)) for name, usage in usages.items()]
    if len(rows) > 1:
        rows.append(("in all", *_tell(add_up(usages.values()))))
    print_table(console, _TITLES, rows, numbers=(1, 2, 3, 4, 5))


def describe(usage: Usage) -> dict[str, Any]:
    """Give counters as plain data; the cost is None where no price is known."""
    counters = asdict(usage)
    if _is_cost_unknown(usage):
        counters["cost_usd"] = None
    return {**counters, "failures": dict(usage.failures)}


def tell_usage(usage: Usage, in_all: Usage) -> list[str]:
    """Say in lines what a run's calls came to, and all runs' where earlier ones have called as well."""
    if is_unused(usage) and is_unused(in_all):
        return []
    lines = [f"Calls:     {describe_usage(usage)}"]
    if in_all.calls != usage.calls:
        lines.append(f"           {describe_usage(in_all)}, in all runs of these steps")
    return lines


def _is_cost_unknown(usage: Usage) -> bool:
    return bool(usage.calls) and usage.calls == usage.calls_without_price


def _tell(usage: Usage) -> tuple[str, ...]:
    failed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(usage.failures.items()))
    cost = "unknown" if _is_cost_unknown(usage) else tell_cost(usage.cost_usd)
    if usage.calls_without_price and cost != "unknown":
        cost += f" and {usage.calls_without_price:,} calls of unknown price"
    return (
        f"{usage.calls:,}",
        f"{usage.calls_reused:,}",
        f"{usage.input_tokens:,}",
        f"{usage.output_tokens:,}",
        cost,
        failed or "-",
    )
