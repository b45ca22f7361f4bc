"""Runs histories and shows what they come to:

    python -m tests.integration.crash                                                  the long form
    python -m tests.integration.crash --seed 7 --pipeline linear --store local         one history, alone

The exit code is 1 if anything was lost, doubled, wrong, hung or paid twice.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console

from tests.integration.crash.history import Outcome, run_history
from tests.integration.crash.plans import MOST, Plan, make_plan
from tests.integration.crash.report import find_unreached, is_clean, show, write_json
from tests.integration.crash.shapes import SHAPES
from tests.integration.crash.stores import S3Server


def choose_plans(arguments: argparse.Namespace) -> list[Plan]:
    """One history, or all pipelines on both stores in turn."""
    if arguments.seed is not None:
        return [make_plan(arguments.seed, arguments.pipeline, arguments.store, arguments.most)]
    pipelines = [arguments.pipeline] if arguments.pipeline else list(SHAPES)
    stores = [arguments.store] if arguments.store else ["local", "s3"]
    first = arguments.first_seed
    numbers = range(first, first + -(-arguments.histories // len(stores)))
    return [
        make_plan(number, pipelines[number % len(pipelines)], store, arguments.most)
        for number in numbers
        for store in stores
    ]


def run_all(plans: list[Plan], workers: int, keep_in: Path | None, console: Console) -> list[Outcome]:
    """Run histories side by side; each tells of itself when it has ended."""
    server = S3Server.start() if any(plan.store == "s3" for plan in plans) else None
    outcomes: list[Outcome] = []
    try:
        with ThreadPoolExecutor(workers) as pool:
            endpoint = server.endpoint if server else ""
            running = [pool.submit(run_history, plan, endpoint, keep_in=keep_in) for plan in plans]
            for done in as_completed(running):
                outcome = done.result()
                outcomes.append(outcome)
                told = _tell(outcome)
                console.print(
                    f"[{len(outcomes)}/{len(plans)}] {outcome.plan} ({outcome.plan.way}): {outcome.kills} kills in "
                    f"{outcome.duration_s:.0f} s, {told}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
    finally:
        if server is not None:
            server.stop()
    return outcomes


def _tell(outcome: Outcome) -> str:
    found = outcome.findings
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    return "; ".join([*(each.short for each in found[:3]), *more]) or "as promised"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.crash")
    parser.add_argument("--seed", type=int, help="one history alone; needs --pipeline and --store")
    parser.add_argument("--pipeline", choices=list(SHAPES))
    parser.add_argument("--store", choices=["local", "s3"])
    parser.add_argument("--most", type=int, default=MOST, help="disturbed runs of a history, at most")
    parser.add_argument("--histories", type=int, default=240, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4, help="histories at the same time")
    parser.add_argument("--json", type=Path, help="where the table is written as JSON as well")
    parser.add_argument("--keep", type=Path, help="where the directories of histories with findings are kept")
    arguments = parser.parse_args()
    if arguments.seed is not None and not (arguments.pipeline and arguments.store):
        parser.error("--seed needs --pipeline and --store")
    console = Console(width=140)
    plans = choose_plans(arguments)
    outcomes = run_all(plans, arguments.workers, arguments.keep, console)
    show(outcomes, console)
    if len(plans) == 1:
        console.print(outcomes[0].log, markup=False, highlight=False, soft_wrap=True)
    if arguments.json is not None:
        write_json(outcomes, arguments.json)
    is_whole = len(plans) == 1 or not find_unreached(outcomes)[0]
    return 0 if is_clean(outcomes) and is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
