"""The short form: a history of each kind on both stores. `make soak` runs hundreds."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.crash.history import Outcome, run_history
from tests.integration.crash.plans import FromOutside, Plan, make_plan
from tests.integration.crash.shapes import SHAPES, Store
from tests.integration.crash.stores import S3Server

_AT_A_TIME = 3
_CHOSEN: dict[Store, dict[str, dict[int, int]]] = {
    "local": {
        "linear": {4: 2, 13: 2},
        "unaligned": {11: 2},
        "two_leaves": {1: 1},
        "diamond": {11: 1},
        "routed": {10: 1},
        "emptying": {8: 2},
        "expanding": {10: 1},
        "global_middle": {10: 2},
        "stateful": {10: 1},
        "replicas": {6: 2},
        "repairing": {12: 2},
        "asking": {3: 1, 8: 2},
    },
    "s3": {
        "linear": {7: 1},
        "two_leaves": {1: 1},
        "routed": {8: 1},
        "emptying": {4: 1},
        "replicas": {10: 1},
        "repairing": {6: 2},
        "asking": {9: 1},
    },
}
"""Store -> pipeline -> seed -> disturbed runs at most: so that each kind of end is among them, and few are jobs."""
PLANS = [
    make_plan(seed, pipeline, store, most)
    for store, pipelines in _CHOSEN.items()
    for pipeline, seeds in pipelines.items()
    for seed, most in seeds.items()
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Each history's outcome; several run at a time, since a run mostly waits."""
    server = S3Server.start()
    try:
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            ended = pool.map(lambda plan: run_history(plan, server.endpoint), PLANS)
            return {str(outcome.plan): outcome for outcome in ended}
    finally:
        server.stop()


@pytest.mark.timeout(1800)  # the first of them waits for all
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.pipeline}-{plan.store}-{plan.seed}")
def test_nothing_is_lost_doubled_wrong_hung_or_paid_twice(plan: Plan, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[str(plan)]
    assert not outcome.findings, "\n".join([*map(str, outcome.findings), outcome.log])


def test_most_histories_are_struck(outcomes: dict[str, Outcome]) -> None:
    """A point that isn't reached strikes nobody, and shows nothing."""
    assert sum(outcome.kills > 0 for outcome in outcomes.values()) >= 0.8 * len(PLANS)


def test_all_pipelines_and_kinds_of_ends_are_among_them() -> None:
    causes = [each.cause for plan in PLANS for each in plan.disturbances]
    from_outside = {cause.what for cause in causes if isinstance(cause, FromOutside)}
    at_points = {cause.act for cause in causes if not isinstance(cause, FromOutside)}
    assert {plan.pipeline for plan in PLANS} == SHAPES.keys()
    assert from_outside == {"kill_group", "kill_main", "kill_worker", "terminate", "interrupt"}
    assert at_points >= {"kill", "kill_group", "terminate", "interrupt"}
