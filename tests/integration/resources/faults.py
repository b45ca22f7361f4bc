"""Errors of the system at named moments of a process."""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from distilabel_dagster.base import fault_points

_VARIABLE = "FAULTS"


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that each of a kind of moments meets, from some moment on.

    Attributes:
        point: the moment, see `fault_points.POINTS`.
        error: name of the error, such as ENOSPC.
        about: what's to be in what the moment is about; "" for all.
        skip: how many moments of the kind pass first.
    """

    point: str
    error: str
    about: str = ""
    skip: int = 0


def in_environment(faults: Sequence[Fault]) -> dict[str, str]:
    """Give the variable that makes a process which installs faults meet these."""
    return {_VARIABLE: json.dumps([asdict(fault) for fault in faults])}


def install_from_environment() -> None:
    """Have this process meet the faults that its environment names."""
    faults = [Fault(**each) for each in json.loads(os.environ.get(_VARIABLE, "[]"))]
    if not faults:
        return
    seen = dict.fromkeys(faults, 0)

    def meet(point: str, about: str) -> None:
        for fault in faults:
            if point == fault.point and fault.about in about:
                seen[fault] += 1
                if seen[fault] > fault.skip:
                    number = getattr(errno, fault.error)
                    raise OSError(number, os.strerror(number))

    fault_points.install(meet)
