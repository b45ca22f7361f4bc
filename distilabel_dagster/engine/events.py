"""What a run tells the outside: frozen values, yielded in order. Nothing else leaves the engine."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from distilabel_dagster.engine.tally import describe_usage
from distilabel_dagster.ledger.usage import Usage


@dataclass(frozen=True, slots=True)
class StepState:
    """How far a step is.

    Attributes:
        batches: committed batches.
        rows: committed rows.
        is_complete: whether its last batch is committed.
    """

    batches: int
    rows: int
    is_complete: bool


def _count(number: int, word: str) -> str:
    """`1 row`, `2 rows`, `2 batches`."""
    plural = f"{word}es" if word.endswith("ch") else f"{word}s"
    return f"{number} {word if number == 1 else plural}"


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Base of all events; `str()` is a line for people."""

    level: ClassVar[str] = "info"

    @property
    def details(self) -> str:
        """What only the log file keeps, such as a traceback; may have several lines."""
        return ""


@dataclass(frozen=True, slots=True)
class WaitingForLease(RunEvent):
    """Another run writes what this one is to write, and that is waited for; told once, when the wait begins.

    Attributes:
        steps: the steps that the run is going to write.
        in_use: the one of them that the other run has.
        host: where it runs; None where that isn't known.
        pid: its process; None where that isn't known.
        since: when it began to; None where that isn't known.
    """

    level: ClassVar[str] = "warning"

    steps: tuple[str, ...]
    in_use: str
    host: str | None
    pid: int | None
    since: datetime | None

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid is not None else "another process"
        if self.host is not None:
            who += f" on host `{self.host}`"
        since = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since is not None else ""
        return (
            f"Waiting: step `{self.in_use}` is being written by {who}{since}. When that has ended, this run goes on from what "
            "it leaves. A stop ends the waiting."
        )


@dataclass(frozen=True, slots=True)
class RunStarted(RunEvent):
    """The run knows what is there and what is left; no step was called yet.

    Attributes:
        steps: each step of the run -> what was committed before.
        to_repair: step -> batches to compute again, since rows failed or what they were made of changed.
    """

    steps: dict[str, StepState]
    to_repair: dict[str, int] = field(default_factory=dict)

    @property
    def is_resume(self) -> bool:
        """Whether anything was committed before."""
        return any(state.batches for state in self.steps.values())

    def __str__(self) -> str:
        if not self.is_resume:
            return f"Start pipeline: {len(self.steps)} steps, nothing in the cache yet"
        done = [name for name, state in self.steps.items() if state.is_complete]
        left = [
            f"`{name}` ({state.rows} rows done)"
            for name, state in self.steps.items()
            if not state.is_complete
        ]
        again = [f"{_count(count, 'batch')} of `{name}`" for name, count in self.to_repair.items()]
        parts = [
            f"done: {', '.join(f'`{name}` ({self.steps[name].rows} rows)' for name in done) or 'no step yet'}"
        ]
        parts.append(f"left: {', '.join(left) or 'nothing'}")
        if again:
            parts.append(f"to compute again: {', '.join(again)}")
        return f"Load pipeline from cache; {'; '.join(parts)}"


@dataclass(frozen=True, slots=True)
class StepStarted(RunEvent):
    """A step was loaded and gets its first batch."""

    step: str
    replicas: int = 1

    def __str__(self) -> str:
        return f"Step `{self.step}`: loaded" + (f", {self.replicas} replicas" if self.replicas > 1 else "")


@dataclass(frozen=True, slots=True)
class RowsFailed(RunEvent):
    """Rows of a batch failed; they stand in their place with the step's outputs None."""

    level: ClassVar[str] = "warning"

    step: str
    seq_no: int
    count: int
    error: str
    trace: str = ""

    @property
    def details(self) -> str:
        """The traceback of the first error."""
        return self.trace

    def __str__(self) -> str:
        return (
            f"Step `{self.step}`: {_count(self.count, 'row')} of batch {self.seq_no} failed and "
            f"{'is' if self.count == 1 else 'are'} kept without outputs; the next run tries again. First error: "
            f"{self.error}"
        )


@dataclass(frozen=True, slots=True)
class StepWarning(RunEvent):
    """Something about a step that a person should know."""

    level: ClassVar[str] = "warning"

    step: str
    message: str

    def __str__(self) -> str:
        return f"Step `{self.step}`: {self.message}"


@dataclass(frozen=True, slots=True)
class Progress(RunEvent):
    """How many rows each unfinished step has made, and what its calls came to; at a bounded rate.

    Attributes:
        rows: step -> committed rows.
        usage: step that calls a model -> what the calls of this run came to so far.
    """

    rows: dict[str, int]
    usage: dict[str, Usage] = field(default_factory=dict)

    def __str__(self) -> str:
        told = []
        for step, rows in self.rows.items():
            calls = f" ({describe_usage(self.usage[step])})" if step in self.usage else ""
            told.append(f"`{step}` {rows} rows{calls}")
        return "Progress: " + ", ".join(told)


@dataclass(frozen=True, slots=True)
class StepFinished(RunEvent):
    """A step's last batch is committed.

    Attributes:
        step: its name.
        rows: rows of all its batches.
        batches_computed: batches that this run computed.
        batches_reused: batches that were in the cache.
        rows_failed: rows without outputs, since the step failed on them.
        duration_s: seconds from its first call to its last commit; 0 if it wasn't called.
        usage: what its calls to models came to in all runs; None if it made none.
    """

    step: str
    rows: int
    batches_computed: int
    batches_reused: int
    rows_failed: int
    duration_s: float
    usage: Usage | None = None

    def __str__(self) -> str:
        failed = f", {self.rows_failed} rows failed" if self.rows_failed else ""
        calls = f"; in all runs {describe_usage(self.usage)}" if self.usage is not None else ""
        return (
            f"Step `{self.step}`: finished with {self.rows} rows "
            f"({_count(self.batches_computed, 'batch')} computed, {self.batches_reused} reused{failed}){calls}"
        )


@dataclass(frozen=True, slots=True)
class StopRequested(RunEvent):
    """A stop was asked for: no new batch is begun, what is being computed may finish."""

    level: ClassVar[str] = "warning"

    reason: str
    grace_period_s: float

    def __str__(self) -> str:
        return (
            f"Stop requested ({self.reason}): no new batch is begun; batches being computed get "
            f"{self.grace_period_s:g} s to finish and are committed. A second signal stops at once."
        )


@dataclass(frozen=True, slots=True)
class StepStopped(RunEvent):
    """The stop has reached a step.

    Attributes:
        step: its name.
        rows: rows that are committed.
        given_up: batches that were being computed when the grace period ended; they're computed again next time.
        keeps_answers: whether they wait for calls to a model, whose answers are kept one by one.
    """

    level: ClassVar[str] = "warning"

    step: str
    rows: int
    given_up: int
    keeps_answers: bool = False

    def __str__(self) -> str:
        lost = ""
        if self.given_up:
            lost = f"; {_count(self.given_up, 'batch')} will be computed next time" + (
                ", from the answers that are kept"
                if self.keeps_answers
                else " (they didn't finish in time; a smaller `input_batch_size` loses less)"
            )
        return f"Step `{self.step}`: stop received, {self.rows} rows are committed{lost}"


@dataclass(frozen=True, slots=True)
class RunStopped(RunEvent):
    """The run ended before its steps did; started again, it goes on from here.

    Attributes:
        unfinished: the steps that have more to do.
        left_at: where the run's own thread was when it was left, since it didn't come to an end; empty if it did.
    """

    level: ClassVar[str] = "warning"

    unfinished: tuple[str, ...]
    left_at: str = ""

    def __str__(self) -> str:
        told = ", ".join(f"`{name}`" for name in self.unfinished)
        if self.left_at:
            told += f". The run didn't come to its end and was left, at {self.left_at}"
        return f"Stopped. Not finished: {told}. Start the same pipeline again to go on from here."


@dataclass(frozen=True, slots=True)
class RunFinished(RunEvent):
    """All steps of the run are complete.

    Attributes:
        batches_computed: batches that this run computed, of all steps.
        batches_reused: batches that were in the cache, of all steps.
        rows_failed: rows without outputs, since a step failed on them, of all steps.
        usage: what calls to models came to in this run; None if it made none.
    """

    batches_computed: int
    batches_reused: int
    rows_failed: int = 0
    usage: Usage | None = None

    def __str__(self) -> str:
        failed = ""
        if self.rows_failed:
            failed = (
                f". {_count(self.rows_failed, 'row')} failed and have no outputs; run again to try just these"
            )
        if not self.batches_computed:
            return f"Finished: nothing to compute, all {_count(self.batches_reused, 'batch')} were in the cache{failed}"
        calls = f"; {describe_usage(self.usage)}" if self.usage is not None else ""
        computed = _count(self.batches_computed, "batch")
        return f"Finished: {computed} computed, {self.batches_reused} reused{calls}{failed}"
