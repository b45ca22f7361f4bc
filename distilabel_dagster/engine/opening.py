"""How a run gets hold of what it's going to write: reads what is committed, takes the leases, waits for others."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.engine.events import WaitingForLease
from distilabel_dagster.engine.resume import find_stale, usable_batches
from distilabel_dagster.engine.run_state import RunOptions, WriteLease
from distilabel_dagster.errors import IncompleteRunError, StepInUseError

_ASK_EVERY_S: Final = 1.0
_SHARE_OF_LOOKING: Final = 0.05


class Opening:
    """The beginning of a run, up to the first call of a step.

    Args:
        dag: the pipeline's graph.
        cache: where its steps' outputs are.
        steps: the steps of the run, in the graph's order; others are only read.
        options: how the run goes.
        acquire: gives a lease on the steps that the run is going to write, or raises StepInUseError.
        pause: waits for so many seconds and gives True; gives False at once when a stop is asked for.

    Attributes:
        lease: on what the run writes; None before it's taken, where nothing is to be written, and for a cache that has
            none.
        is_taken: whether the run may go on: what it's to write is its own.
    """

    def __init__(
        self,
        dag: DAG,
        cache: PipelineCache,
        steps: list[str],
        options: RunOptions,
        *,
        acquire: Callable[[list[str]], WriteLease | None],
        pause: Callable[[float], bool],
    ) -> None:
        self._dag = dag
        self._cache = cache
        self._steps = steps
        self._options = options
        self._acquire = acquire
        self._pause = pause
        self._look_at = 0.0
        self.lease: WriteLease | None = None
        self.is_taken = False

    def take(self) -> Iterator[WaitingForLease]:
        """Take the leases on what is to be written, and read the stores as they are then.

        With `when_in_use="wait"` this waits until another run has ended, or has made what is wanted, and tells of it
        once. A stop ends the waiting; then nothing is taken.

        Raises:
            IncompleteRunError: a predecessor that isn't part of the run isn't complete.
            StepInUseError: another run writes one of the steps, and that isn't to be waited for.
            CacheError: the cache or the ledger can't be read or written.
        """
        for store in self._cache.stores.values():
            store.guard = _let_pass  # an earlier run's says no, now that it has ended
        has_waited = False
        wanted = self._look()
        while wanted:
            in_use = self._try(wanted, reads_all=has_waited)
            if in_use is None:
                if self.is_taken:
                    return
                wanted = self._look()
                continue
            if self._options.when_in_use == "raise":
                raise in_use
            if not has_waited:
                has_waited = True
                yield self._describe(in_use, wanted)
            if not self._pause(_ASK_EVERY_S):
                return
            if time.monotonic() >= self._look_at:
                wanted = self._look()
        self.is_taken = True

    def _look(self) -> list[str]:
        """Read what is committed, and say which steps are to be written.

        To look at a large cache takes a while, so a run that waits does so for a twentieth of the time.
        """
        begun_at = time.monotonic()
        for store in self._cache.stores.values():
            store.open()
        self._check_predecessors()
        now = time.monotonic()
        self._look_at = now + (now - begun_at) / _SHARE_OF_LOOKING
        return self.find_steps_to_write()

    def _try(self, wanted: list[str], *, reads_all: bool) -> StepInUseError | None:
        """Take the leases, and read again what they're on; give what's in the way, if anything is.

        Nothing is taken either if another run has changed, between the look and the lease, what is to be written.
        """
        try:
            lease = self._acquire(wanted)
        except StepInUseError as error:
            return error
        try:
            for name, store in self._cache.stores.items():
                if name in wanted:
                    store.guard = lease.check if lease is not None else _let_pass
                    store.open(for_writing=True)
                elif reads_all:
                    store.open()
            self.is_taken = set(self.find_steps_to_write()) <= set(wanted)
        except StepInUseError as error:
            return error  # who had the lease before is in the middle of writing, and doesn't come on
        finally:
            if self.is_taken:
                self.lease = lease
            elif lease is not None:
                lease.release()
        return None

    def _describe(self, in_use: StepInUseError, wanted: list[str]) -> WaitingForLease:
        known = vars(in_use)
        key = str(known.get("key") or "").rpartition("/")[2]
        named = (name for name in wanted if self._cache.stores[name].path.endswith(f"/{key}"))
        return WaitingForLease(
            steps=tuple(wanted),
            in_use=next(named, key),
            host=known.get("host"),
            pid=known.get("pid"),
            since=known.get("since"),
        )

    def _check_predecessors(self) -> None:
        for name in self._steps:
            for each in self._dag.predecessors(name):
                if each not in self._steps and not self._cache.stores[each].is_complete:
                    raise IncompleteRunError(
                        f"Step `{name}` needs all rows of `{each}`, which isn't complete in the cache "
                        f"({len(self._cache.stores[each].records)} batches are). Run `{each}` first, or together with it."
                    )

    def find_steps_to_write(self) -> list[str]:
        """The steps that aren't whole: only these are this run's to write, others may run on what is complete."""
        stores = self._cache.stores
        stale = self.find_stale()
        usable = self._count_usable()
        anew = self._steps_to_reset()
        return [
            name
            for name in self._steps
            if stale[name]
            or name in anew
            or usable[name] < len(stores[name].records)
            or not self._cache.is_sealed(name)
        ]

    def drop_unusable(self) -> None:
        """Forget outputs that are to be computed anew, and batches whose inputs aren't there; the last ones first."""
        anew = self._steps_to_reset()
        for name in reversed(self._steps):
            if name in anew:
                self._cache.stores[name].reset()
        usable = self._count_usable()
        for name in self._steps:
            store = self._cache.stores[name]
            if usable[name] < len(store.records):
                store.truncate(usable[name])
            store.show_all()

    def _count_usable(self) -> dict[str, int]:
        """For each step, how many of its committed batches can be used; all of those outside the run."""
        records = {name: store.records for name, store in self._cache.stores.items()}
        for name in self._steps:
            predecessors = {each: records[each] for each in self._dag.predecessors(name)}
            records[name] = records[name][: usable_batches(name, records[name], predecessors)]
        return {name: len(found) for name, found in records.items()}

    def _steps_to_reset(self) -> set[str]:
        """Steps that are to be computed anew, and all of the run behind them."""
        anew = {
            name for name in self._steps if not (self._options.use_cache and self._dag.steps[name].use_cache)
        }
        return anew | (self._dag.descendants(anew) & set(self._steps))

    def find_stale(self) -> dict[str, set[int]]:
        """For each step, the committed batches that no longer hold; none for steps outside the run."""
        stores, usable = self._cache.stores, self._count_usable()
        records = {name: store.records[: usable[name]] for name, store in stores.items()}
        retry = self._options.retry_failed
        stale: dict[str, set[int]] = {name: set() for name in stores}
        for name in self._steps:
            predecessors = {each: records[each] for each in self._dag.predecessors(name)}
            stale[name] = find_stale(records[name], predecessors, stale, retry_failed=retry)
        return stale


def _let_pass() -> None:
    """What a store asks that no lease guards."""
