"""Input of a convergence step: routed branches brought together again, batch by batch of the routing step."""

from collections import deque
from dataclasses import dataclass, field

from distilabel_dagster.batch import BatchRecord, Source
from distilabel_dagster.engine.step_buffer import InputPlan, InputView, Slice
from distilabel_dagster.errors import MisalignedBranchesError


@dataclass(slots=True)
class _Branch:
    """One routed step, seen by groups: what it made of each batch of the routing step."""

    view: InputView
    source: str
    rows_made: dict[int, int] = field(default_factory=dict)
    rows_seen: dict[int, int] = field(default_factory=dict)

    def add(self, record: BatchRecord) -> None:
        self.view.add(record)
        for taken in record.sources.get(self.source, []):
            self.rows_made[taken.seq_no] = self.rows_made.get(taken.seq_no, 0) + record.size
            self.rows_seen[taken.seq_no] = self.rows_seen.get(taken.seq_no, 0) + taken.rows_used

    def has_finished(self, group: BatchRecord) -> bool:
        """Whether it has made all that it will make of the group's batch."""
        return self.rows_seen.get(group.seq_no, -1) >= group.size

    def take(self, count: int, group: BatchRecord) -> tuple[list[Slice], list[Source]]:
        """Take the next rows that it made of the group's batch."""
        return self.view.take(count, lambda record: self._is_of(record, group))

    def has_waiting(self, group: BatchRecord) -> bool:
        """Whether a batch that it made of the group's batch, be it without rows, waits to be taken."""
        waiting = self.view.next_batch
        return waiting is not None and self._is_of(waiting, group)

    def _is_of(self, record: BatchRecord, group: BatchRecord) -> bool:
        return any(taken.seq_no == group.seq_no for taken in record.sources.get(self.source, []))


class ConvergenceBuffer:
    """Takes the groups in the order of the routing step's batches, and in each only branches that got the batch.

    So the rows keep the order that they had before they were routed. A plan never takes rows of two groups, and each
    group has at least one plan, if only an empty one.

    Args:
        step: the convergence step.
        source: the routing step.
        predecessors: the routed steps, in the order of the convergence step's inputs.
        input_batch_size: rows per branch that a plan takes at most.
    """

    def __init__(self, step: str, source: str, predecessors: list[str], input_batch_size: int) -> None:
        self._step = step
        self._source = source
        self._size = input_batch_size
        self._branches = {name: _Branch(InputView(name, step), source) for name in predecessors}
        self._groups: deque[BatchRecord] = deque()
        self._source_finished = False
        self._taken_of_group = 0
        self._group_has_plan = False
        self._ended = False

    def add(self, predecessor: str, record: BatchRecord) -> None:
        """Tell of the next batch of a routed step, or of the routing step itself."""
        if predecessor != self._source:
            self._branches[predecessor].add(record)
            return
        self._source_finished = record.last_batch
        if self._members(record):
            self._groups.append(record)

    def skip(self, record: BatchRecord) -> None:
        """Take what a committed batch of the step took."""
        if record.sources:
            self._drop_finished_group()
            self._group_has_plan = True
            for name, sources in record.sources.items():
                self._branches[name].view.skip(sources)
            taken = next(iter(record.sources.values()))
            self._taken_of_group += sum(source.rows_used for source in taken)
        self._ended = record.last_batch

    def next_plan(self) -> InputPlan | None:
        """Take the next rows of the group that's in turn, if they're there.

        Raises:
            MisalignedBranchesError: branches made different numbers of rows of the same batch.
        """
        if self._ended:
            return None
        self._drop_finished_group()
        if not self._groups:
            if not self._source_finished:
                return None
            self._ended = True
            return InputPlan({}, {}, last_batch=True)
        group = self._groups[0]
        branches = self._members(group)
        made = {name: branch.rows_made.get(group.seq_no, 0) for name, branch in branches.items()}
        finished = [made[name] for name, branch in branches.items() if branch.has_finished(group)]
        if finished and max(made.values()) > min(finished):
            # Said as soon as it's known: a branch that is far ahead may be waiting for room, and never finish.
            raise MisalignedBranchesError(self._step, made, f"for batch {group.seq_no} of `{self._source}`")
        count = min(self._size, min(made.values()) - self._taken_of_group)
        if count < self._size and len(finished) < len(branches):
            return None
        return self._take(branches, count, group)

    def _take(self, branches: dict[str, _Branch], count: int, group: BatchRecord) -> InputPlan:
        slices: dict[str, list[Slice]] = {}
        created_from: dict[str, list[Source]] = {}
        for name, branch in branches.items():
            slices[name], created_from[name] = branch.take(count, group)
        self._taken_of_group += count
        self._group_has_plan = True
        self._drop_finished_group()
        self._ended = not self._groups and self._source_finished
        return InputPlan(slices, created_from, last_batch=self._ended)

    def _members(self, group: BatchRecord) -> dict[str, _Branch]:
        routed_to = group.batch_routed_to
        return {name: branch for name, branch in self._branches.items() if not routed_to or name in routed_to}

    def _drop_finished_group(self) -> None:
        if not self._groups or not self._group_has_plan:
            return
        group = self._groups[0]
        branches = self._members(group).values()
        if all(branch.has_finished(group) and not branch.has_waiting(group) for branch in branches):
            self._groups.popleft()
            self._taken_of_group = 0
            self._group_has_plan = False

    def waiting_rows(self, predecessor: str) -> int:
        """How many rows of a branch wait to be taken."""
        return self._branches[predecessor].view.available
