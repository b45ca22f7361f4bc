"""What a step's next batch is made of: pure bookkeeping over the records of its predecessors' batches.

No rows are held here. A buffer is told of each predecessor's batches in order and answers with plans: which rows of
which batches the next call of the step gets. Its state after a resume follows from the step's committed batches
alone (`skip`).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from distilabel_dagster.batch import BatchRecord, Source
from distilabel_dagster.errors import MisalignedBranchesError, StepRunError


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows `start` to `stop` (excluded) of one batch of a predecessor."""

    seq_no: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class InputPlan:
    """The input of one batch.

    Attributes:
        slices: predecessor -> rows to take, in order; only predecessors whose rows the step gets.
        created_from: the same as it's recorded with the output batch.
        last_batch: whether nothing comes behind it.
        size: rows of the longest input list.
        is_aligned: whether all input lists have equally many rows.
    """

    slices: dict[str, list[Slice]]
    created_from: dict[str, list[Source]]
    last_batch: bool
    size: int = field(init=False)
    is_aligned: bool = field(init=False)

    def __post_init__(self) -> None:
        # Once: the engine asks for the size of all batches in flight whenever anything changes.
        sizes = [sum(each.stop - each.start for each in slices) for slices in self.slices.values()]
        object.__setattr__(self, "size", max(sizes, default=0))
        object.__setattr__(self, "is_aligned", len(set(sizes)) <= 1)


class StepBuffer(Protocol):
    """How the engine sees a step's input."""

    def add(self, predecessor: str, record: BatchRecord) -> None:
        """Tell of the next batch of a predecessor."""
        ...

    def skip(self, record: BatchRecord) -> None:
        """Take what a committed batch of the step took; in order, after all `add` that a resume begins with."""
        ...

    def next_plan(self) -> InputPlan | None:
        """Take the next batch's input if it's there; None if more has to arrive, or nothing comes any more."""
        ...

    def waiting_rows(self, predecessor: str) -> int:
        """How many rows of a predecessor wait to be taken."""
        ...


@dataclass(slots=True)
class InputView:
    """What a step sees of one predecessor: its batches in order, and how far they're taken.

    Attributes:
        name: the predecessor.
        step: the step that looks.
        keeps_batches_apart: a plan never takes rows of two batches (behind a routing function).
    """

    name: str
    step: str
    keeps_batches_apart: bool = False
    finished: bool = False
    arrived: int = 0
    taken: int = 0
    _waiting: deque[BatchRecord] = field(default_factory=deque)
    _start: int = 0
    _arrived_batches: int = 0

    def add(self, record: BatchRecord) -> None:
        """Take in the predecessor's next batch, if it's routed here."""
        self.finished = record.last_batch
        self._arrived_batches = record.seq_no + 1
        if not record.batch_routed_to or self.step in record.batch_routed_to:
            self._waiting.append(record)
            self.arrived += record.size

    @property
    def available(self) -> int:
        """Rows that arrived and aren't taken."""
        return self.arrived - self.taken

    @property
    def next_batch(self) -> BatchRecord | None:
        """The batch whose rows are next to be taken."""
        return self._waiting[0] if self._waiting else None

    @property
    def is_exhausted(self) -> bool:
        """Whether all is taken and nothing comes; batches without rows count too, as those behind may wait for them."""
        return self.finished and not self._waiting

    def ready_rows(self, wanted: int) -> int | None:
        """How many rows a plan that wants `wanted` would take now; None if it should wait for more."""
        if self.keeps_batches_apart and self._waiting:
            return min(wanted, self._waiting[0].size - self._start)
        if self.available >= wanted:
            return wanted
        return self.available if self.finished else None

    def take(
        self, count: int, belongs: Callable[[BatchRecord], bool] | None = None
    ) -> tuple[list[Slice], list[Source]]:
        """Take the next `count` rows, and batches without rows around them.

        Empty batches are recorded as sources too: should one be computed again and have rows then, it's known who
        is to get them.

        Args:
            count: number of rows; they're there.
            belongs: stops before the first batch for which it's False.
        """
        slices, sources = [], []
        self.taken += count
        while self._waiting and (belongs is None or belongs(self._waiting[0])):
            record = self._waiting[0]
            used = min(count, record.size - self._start)
            if used == 0 and record.size:
                break
            if used:
                slices.append(Slice(record.seq_no, self._start, self._start + used))
            sources.append(Source(record.seq_no, record.size, used, record.revision))
            count -= used
            self._advance(used)
            if self.keeps_batches_apart:
                break
        return slices, sources

    def skip(self, sources: list[Source]) -> None:
        """Take just what was recorded."""
        for source in sources:
            if not source.rows_used and source.seq_no < self._next_seq_no:
                continue  # computed again with fewer rows, the batch was used up by the batch before
            if not self._waiting or self._waiting[0].seq_no != source.seq_no:
                raise StepRunError(
                    f"Step `{self.step}`: its cache says that batch {source.seq_no} of `{self.name}` was taken when it "
                    "wasn't its turn. Run it with `use_cache=False` to compute it again.",
                    step=self.step,
                )
            self.taken += source.rows_used
            self._advance(source.rows_used)

    @property
    def _next_seq_no(self) -> int:
        return self._waiting[0].seq_no if self._waiting else self._arrived_batches

    def _advance(self, used: int) -> None:
        self._start += used
        if self._start >= self._waiting[0].size:
            self._waiting.popleft()
            self._start = 0


class JoinBuffer:
    """Input of an ordinary step: equally many rows of each predecessor, aligned by position."""

    def __init__(
        self, step: str, predecessors: list[str], input_batch_size: int, routed_from: str | None
    ) -> None:
        self._step = step
        self._size = input_batch_size
        self._views = {name: InputView(name, step, name == routed_from) for name in predecessors}
        self._ended = False

    def add(self, predecessor: str, record: BatchRecord) -> None:
        """Tell of the next batch of a predecessor."""
        self._views[predecessor].add(record)

    def skip(self, record: BatchRecord) -> None:
        """Take what a committed batch of the step took."""
        for name, sources in record.sources.items():
            self._views[name].skip(sources)
        self._ended = record.last_batch

    def next_plan(self) -> InputPlan | None:
        """Take the next batch's input if it's there.

        Raises:
            MisalignedBranchesError: a predecessor gave its last row, and another has more.
        """
        if self._ended:
            return None
        ready = {name: view.ready_rows(self._size) for name, view in self._views.items()}
        self._check_alignment()
        if any(count is None for count in ready.values()):
            return None
        count = min(count or 0 for count in ready.values())
        taken = {name: view.take(count) for name, view in self._views.items()}
        self._ended = all(view.is_exhausted for view in self._views.values())
        return InputPlan(
            slices={name: slices for name, (slices, _) in taken.items()},
            created_from={name: sources for name, (_, sources) in taken.items()},
            last_batch=self._ended,
        )

    def _check_alignment(self) -> None:
        totals = {name: view.arrived for name, view in self._views.items()}
        ended = [view.arrived for view in self._views.values() if view.finished]
        if ended and max(totals.values()) > min(ended):
            raise MisalignedBranchesError(self._step, totals, "until one of them ended")

    def waiting_rows(self, predecessor: str) -> int:
        """How many rows of a predecessor wait to be taken."""
        return self._views[predecessor].available


class GlobalBuffer:
    """Input of a global step: one plan with all rows, when the last have arrived."""

    def __init__(self, step: str, predecessors: list[str]) -> None:
        self._views = {name: InputView(name, step) for name in predecessors}
        self._ended = False

    def add(self, predecessor: str, record: BatchRecord) -> None:
        """Tell of the next batch of a predecessor."""
        self._views[predecessor].add(record)

    def skip(self, record: BatchRecord) -> None:
        """A committed batch of a global step is its only one."""
        self._ended = record.last_batch

    def next_plan(self) -> InputPlan | None:
        """Take all rows if they're there."""
        if self._ended or not all(view.finished for view in self._views.values()):
            return None
        self._ended = True
        taken = {name: view.take(view.available) for name, view in self._views.items()}
        return InputPlan(
            slices={name: slices for name, (slices, _) in taken.items()},
            created_from={name: sources for name, (_, sources) in taken.items()},
            last_batch=True,
        )

    def waiting_rows(self, predecessor: str) -> int:
        """None, since all are waited for: a global step never holds a predecessor up."""
        return 0
