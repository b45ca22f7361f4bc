"""`cache verify`: looks through the cache for damage, and repairs what it can."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any, Final

import click
from rich.console import Console

from distilabel_dagster.base.environment import default_cache_dir
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.findings import Finding, Verification, compare
from distilabel_dagster.cache.verification import Guard, verify_cache
from distilabel_dagster.cli.cache import find_signature
from distilabel_dagster.cli.options import cache_dir_option, debug_option, json_option, ledger_url_option
from distilabel_dagster.cli.terminal import make_console
from distilabel_dagster.errors import CacheError, DamagedFileError, StepInUseError
from distilabel_dagster.ledger.database import parse_url
from distilabel_dagster.ledger.database_errors import describe_url
from distilabel_dagster.ledger.reading import count_responses
from distilabel_dagster.ledger.repair import check_ledger, repair_ledger
from distilabel_dagster.pipeline.execution import acquire_lease, find_responses

_COLOURS: Final = {"damage": "bold red", "note": "dim", "repaired": "green"}


@click.command("verify")
@click.argument("signature", required=False)
@cache_dir_option
@ledger_url_option
@click.option(
    "--repair",
    is_flag=True,
    help="Make right what can be. What can't be used is set aside, never deleted, and computed again by the next run.",
)
@json_option
@debug_option
def verify_command(
    signature: str | None, cache_dir: str | None, ledger_url: str | None, repair: bool, as_json: bool
) -> int:
    """Look through the cache, or through the pipeline with this SIGNATURE, for damage.

    All rows of all parts are read, and the answers that the ledger holds. The first digits of a signature are enough,
    at least 6 of them.

    A line is printed for each thing found. `damage` is what neither a run nor a kill of one leaves behind; a `note`
    does no harm. The exit code is 1 where damage is left.
    """
    fs = CacheFileSystem(cache_dir or default_cache_dir())
    whole = find_signature(fs, signature) if signature else None
    url = find_responses(ledger_url, fs)
    ledger = _look_through_ledger(url, repair=repair)
    lease = (lambda steps: _take_leases(fs, ledger_url, steps)) if repair else None
    result = verify_cache(fs, whole, lease=lease)
    result.findings += ledger.findings
    result.answers = ledger.answers
    if url is not None and not ledger.damage and result.answers < result.answers_needed:
        result.findings.append(_note_other_ledger(url, result))
    console = make_console()
    if as_json:
        console.out(json.dumps(_describe(result), indent=2, ensure_ascii=False), highlight=False)
    else:
        _print(console, result)
    return 1 if result.damage else 0


def _take_leases(
    fs: CacheFileSystem, ledger_url: str | None, steps: list[str]
) -> AbstractContextManager[Guard | None]:
    """Keep runs away for as long as the cache is repaired."""
    return (acquire_lease(ledger_url, fs, steps) if steps else None) or nullcontext()


def _look_through_ledger(url: str | None, *, repair: bool) -> Verification:
    result = Verification()
    if url is None:
        return result
    try:
        result.findings = _find_problems(url)
        if repair and result.findings:
            report = repair_ledger(url)
            result.findings = compare(result.findings, _find_problems(url))
            if report is not None:
                lost = report.responses_lost
                told = "how many were lost can't be told" if lost is None else f"{lost:,} were lost"
                kept = f"was made whole, with {report.responses:,} answers in it; {told}"
                told = f"The old files are kept: {', '.join(report.set_aside)}."
                result.findings.append(Finding(report.location, "ledger", kept, told, "note"))
        if not any(each.severity == "damage" and not each.is_repaired for each in result.findings):
            result.answers = count_responses(url)
    except StepInUseError:
        raise
    except CacheError as error:
        result.findings.append(Finding(str(error.path), "ledger", f"can't be looked through: {error}"))
    return result


def _note_other_ledger(url: str, result: Verification) -> Finding:
    told = f"holds {result.answers:,} answers, and rows were made of {result.answers_needed:,}: some are lost, or it isn't the one of then"
    remedy = "If there's another, name it by --ledger-url, or put it back. What it doesn't hold is paid again when it's needed again; committed rows stay."
    return Finding(describe_url(parse_url(url)), "ledger", told, remedy, "note")


def _find_problems(url: str) -> list[Finding]:
    try:
        return [Finding(each.location, "ledger", each.what, each.remedy) for each in check_ledger(url)]
    except DamagedFileError as error:
        return [Finding(str(error.path), "ledger", f"can't be looked through: {error}")]


def _print(console: Console, result: Verification) -> None:
    for finding in result.findings:
        state = "repaired" if finding.is_repaired else finding.severity
        console.print(f"{state:<9}", style=_COLOURS[state], end=" ")
        told = f"{finding.path} {finding.problem.rstrip('.')}. {finding.remedy}"
        console.print(told.rstrip(), markup=False, soft_wrap=True)
    counts = (
        f"{result.steps:,} step{'' if result.steps == 1 else 's'}",
        f"{result.parts:,} part{'' if result.parts == 1 else 's'}",
        f"{result.rows:,} row{'' if result.rows == 1 else 's'}",
        f"{result.answers:,} answer{'' if result.answers == 1 else 's'}",
    )
    console.print(
        f"checked {', '.join(counts)}: {_sum_up(result.findings, len(result.damage))}", markup=False
    )


def _sum_up(findings: Sequence[Finding], left: int) -> str:
    repaired = sum(each.is_repaired and each.severity == "damage" for each in findings)
    if left:
        told = f"{left:,} damaged" + (f", {repaired:,} repaired" if repaired else "")
        return told if repaired else f"{told}; --repair makes right what can be"
    return f"{repaired:,} repaired, no damage left" if repaired else "no damage"


def _describe(result: Verification) -> dict[str, Any]:
    return {
        "checked": {
            "pipelines": result.pipelines,
            "steps": result.steps,
            "parts": result.parts,
            "rows": result.rows,
            "answers": result.answers,
        },
        "is_damaged": bool(result.damage),
        "findings": [asdict(each) for each in result.findings],
    }
