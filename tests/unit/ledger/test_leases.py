import dataclasses
import pickle
from datetime import datetime, timezone

import pytest
from sqlalchemy import create_engine

from distilabel_dagster.errors import StepInUseError
from distilabel_dagster.ledger.lease_rows import Lease, Moment
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.ledger.processes import ProcessIdentity, current_process

NOW = 1_700_000_000.0
AWAKE = 500_000.0
OURS = current_process()
ELSEWHERE = dataclasses.replace(OURS, host="gpu-7 [boot pid:[1]]", pid=4321)


def lease_of(holder: ProcessIdentity, heartbeat: float = NOW, uptime: float | None = None) -> Lease:
    return Lease(
        key="judge_abc", token="t", holder=holder, since=NOW - 100, heartbeat=heartbeat, uptime=uptime
    )


def unopened() -> Leases:
    return Leases(create_engine("sqlite:////cache/ledger.sqlite"))


HOUR = 3_600
GONE = dataclasses.replace(OURS, pid=2**22 + 1)


@pytest.mark.parametrize(
    ("holder", "silence_s", "silence_awake_s", "is_free"),
    [
        (OURS, 0, 0, False),
        (OURS, 0, 60, False),
        (OURS, 0, 61, True),
        (OURS, HOUR, 10, False),  # the time of day was set forward, or the machine slept
        (OURS, -HOUR, 10, False),
        (OURS, -HOUR, 61, True),
        (OURS, 10, -HOUR, False),  # the machine was started anew, under the same name
        (OURS, 61, -HOUR, True),
        (OURS, 60, None, False),  # a sign of life by an older release
        (OURS, 61, None, True),
        (ELSEWHERE, 60, 0, False),
        (ELSEWHERE, 60, HOUR, False),  # the other machine's clock says nothing here
        (ELSEWHERE, 61, 0, True),
        (ELSEWHERE, -HOUR, 0, False),
        (GONE, 0, 0, True),
    ],
)
def test_a_key_is_free_when_its_holder_is_dead_or_silent(
    holder: ProcessIdentity, silence_s: float, silence_awake_s: float | None, is_free: bool
) -> None:
    uptime = None if silence_awake_s is None else AWAKE - silence_awake_s
    lease = lease_of(holder, NOW - silence_s, uptime)
    assert lease.is_free(Moment(NOW, AWAKE), 60.0) is is_free


def test_error_says_who_writes_and_what_to_do() -> None:
    error = unopened()._build_in_use_error(lease_of(ELSEWHERE, heartbeat=NOW - 20), Moment(NOW, AWAKE))
    assert str(error) == (
        "Step `judge_abc` is being written by process 4321 on host `gpu-7` since 2023-11-14 22:11:40 UTC; its last "
        "sign of life came 20 s ago. Only one process at a time may write a step. Wait until that process has "
        'finished (`when_in_use="wait"` or `--when-in-use wait` does it for you), or stop it; if it\'s gone already, the step '
        "is free 40 s from now, then start this run again."
    )
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, StepInUseError)
    assert tuple(vars(copy)[name] for name in ("key", "host", "pid")) == ("judge_abc", "gpu-7", 4321)
    assert vars(copy)["since"] == datetime(2023, 11, 14, 22, 11, 40, tzinfo=timezone.utc)
    assert copy.path == "/cache/ledger.sqlite"


def test_error_tells_this_process_from_its_neighbours() -> None:
    assert "That is this very process" in str(
        unopened()._build_in_use_error(lease_of(OURS), Moment(NOW, AWAKE))
    )
    neighbour = dataclasses.replace(OURS, pid=OURS.pid + 1)
    told = str(unopened()._build_in_use_error(lease_of(neighbour), Moment(NOW, AWAKE)))
    assert "this very process" not in told
    assert "gone already" not in told


@pytest.mark.parametrize(("expire_after_s", "heartbeat_every_s"), [(10.0, 10.0), (10.0, 0.0), (1.0, 2.0)])
def test_signs_of_life_have_to_come_in_time(expire_after_s: float, heartbeat_every_s: float) -> None:
    engine = create_engine("sqlite:////cache/ledger.sqlite")
    with pytest.raises(ValueError, match="signs of life have to come more often"):
        Leases(engine, expire_after_s=expire_after_s, heartbeat_every_s=heartbeat_every_s)
