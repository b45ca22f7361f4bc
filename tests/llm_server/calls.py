"""What the server's log tells: calls, and what follows from when they came and ended."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.llm_server.answers import digest_request

# A caller that gives up closes its connection and goes on; the server may see its next call first.
_UNSEEN_S = 0.05


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        number: its place among the arrivals, from 1.
        path: what was asked, such as `/v1/chat/completions`.
        at: when it arrived, as `time.time()` counts.
        key: the API key that came with it.
        request: what was sent.
        headers: those of its headers that the log was asked to keep.
        ended_at: when the answer was sent, or the caller was gone; None while it's on the wire.
        outcome: "answered", the kind of its failure, or "dropped" if the caller went before the answer; None while
            it's on the wire.
        failure: how the server meant to fail it; where that's a hang, its outcome is "dropped".
        occurrence: how often the very same request had come, this one included; None while it's on the wire.
        retry_after_s: the seconds that it was asked to wait.
    """

    number: int
    path: str
    at: float
    key: str
    request: dict[str, Any]
    headers: dict[str, str | None] = field(default_factory=dict)
    ended_at: float | None = None
    outcome: str | None = None
    failure: str | None = None
    occurrence: int | None = None
    retry_after_s: float | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the whole answer was sent to a caller that was still there."""
        return self.outcome == "answered"

    @property
    def text(self) -> str:
        """The last message, the prompt, or the texts to embed."""
        if "messages" in self.request:
            return str(self.request["messages"][-1]["content"])
        return str(self.request.get("prompt", self.request.get("input")))

    @property
    def body(self) -> str:
        """The request as text; equal for equal requests."""
        return json.dumps(self.request, sort_keys=True)

    @property
    def answer_id(self) -> str:
        """The id that its answer has or would have; equal for equal requests."""
        return f"call-{digest_request(self.request)}"

    def was_on_wire(self, moment: float) -> bool:
        """Tell whether it had come and not yet ended at `moment`."""
        return self.at <= moment and (self.ended_at is None or self.ended_at > moment)


def read_calls(log: Path) -> list[Call]:
    """Read the calls in the order of their arrival."""
    arrivals: dict[int, dict[str, Any]] = {}
    for line in log.read_bytes().split(b"\n")[:-1]:
        entry = json.loads(line)
        entry["ended_at" if entry.pop("event") == "end" else "arrived_at"] = entry.pop("at")
        arrivals.setdefault(entry["number"], {}).update(entry)
    return [
        Call(
            number=entry["number"],
            path=entry["path"],
            at=entry["arrived_at"],
            key=entry["key"],
            request=entry["request"],
            headers=entry["headers"],
            ended_at=entry.get("ended_at"),
            outcome=entry.get("outcome"),
            failure=entry.get("failure"),
            occurrence=entry.get("occurrence"),
            retry_after_s=entry.get("retry_after_s"),
        )
        for entry in arrivals.values()
    ]


def count_most_at_once(calls: Iterable[Call]) -> int:
    """Give the most calls that were on the wire at the same time."""
    changes: list[tuple[float, int]] = []
    for call in calls:
        changes.append((call.at, 1))
        if call.ended_at is not None:
            left_at = call.ended_at - _UNSEEN_S if call.outcome == "dropped" else call.ended_at
            changes.append((max(left_at, call.at), -1))
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def find_quiet_times(calls: Iterable[Call]) -> list[tuple[float, float]]:
    """Give the times in which no call should have been begun, since a 429 had asked for it: apart, in order."""
    asked = sorted(
        (call.ended_at, call.ended_at + call.retry_after_s)
        for call in calls
        if call.ended_at is not None and call.retry_after_s is not None
    )
    quiet: list[tuple[float, float]] = []
    for begin, end in asked:
        if quiet and begin <= quiet[-1][1]:
            quiet[-1] = (quiet[-1][0], max(quiet[-1][1], end))
        else:
            quiet.append((begin, end))
    return quiet


def measure_quiet_s(calls: Iterable[Call]) -> float:
    """Give the time for which no call should have been begun, in seconds."""
    return sum(end - begin for begin, end in find_quiet_times(calls))


def measure_ideal_s(calls: list[Call], most_at_once: int) -> float:
    """Give the time in which nobody could have made these calls faster.

    That's the quiet times, in which what has begun goes on, and the rest of the calls with all places taken.
    """
    quiet = find_quiet_times(calls)
    left_s = 0.0
    for call in calls:
        if call.ended_at is not None:
            done_s = sum(max(0.0, min(call.ended_at, end) - max(call.at, begin)) for begin, end in quiet)
            left_s += call.ended_at - call.at - done_s
    return left_s / most_at_once + sum(end - begin for begin, end in quiet)


def measure_span_s(calls: list[Call]) -> float:
    """Give the time from the first arrival to the last end."""
    return max(call.ended_at or call.at for call in calls) - min(call.at for call in calls)
