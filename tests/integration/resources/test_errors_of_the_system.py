"""Errors of the system at any moment of a run: it ends with a clear error, and the next one goes on."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.base import fault_points
from distilabel_dagster.distiset import Distiset
from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep, Step, StepInput

ROWS = 24
BATCH_ROWS = 3
REMEDIES = {
    "ENOSPC": (CacheFullError, "Free some space (or raise the quota) and start the same run again"),
    "EDQUOT": (CacheFullError, "Free some space (or raise the quota) and start the same run again"),
    "EIO": (CacheError, "check the disk"),
    "EMFILE": (CacheError, "`ulimit -n`"),
    "EROFS": (CacheDirectoryError, "Check the path and its permissions, or give another directory"),
}
MOMENTS = ("file.opened", "file.written", "file.synced", "file.fenced", "link.made", "file.removing")

_given: dict[str, list[int]] = {}


class Numbers(GeneratorStep):
    @property
    def outputs(self) -> list[str]:
        return ["id"]

    def process(self, offset: int = 0) -> Any:
        for start in range(offset, ROWS, BATCH_ROWS):
            yield [{"id": number} for number in range(start, start + BATCH_ROWS)], start + BATCH_ROWS >= ROWS


class Square(Step):
    @property
    def outputs(self) -> list[str]:
        return ["square"]

    def process(self, inputs: StepInput) -> Any:
        _given.setdefault(self.name, []).extend(row["id"] for row in inputs)
        yield [{**row, "square": row["id"] ** 2} for row in inputs]


def build(cache_dir: Path) -> Pipeline:
    """Two leaves, so that parts are linked in two places."""
    with Pipeline("errors", cache_dir=str(cache_dir)) as pipeline:
        numbers, first = (
            Numbers(name="numbers", batch_size=BATCH_ROWS),
            Square(name="first", input_batch_size=5),
        )
        (
            numbers
            >> first
            >> [Square(name="left", input_batch_size=2), Square(name="right", input_batch_size=7)]
        )
    return pipeline


def rows_of(distiset: Distiset) -> dict[str, list[dict[str, Any]]]:
    return {leaf: splits["train"].to_list() for leaf, splits in distiset.items()}


EXPECTED = {leaf: [{"id": n, "square": n * n} for n in range(ROWS)] for leaf in ("left", "right")}


class Moments:
    """Counts moments of a run, and lets an error happen at one, or from one on."""

    def __init__(self, error: str = "", at: int = -1, *, once: bool = False) -> None:
        self.reached: list[tuple[str, str]] = []
        self.met: tuple[str, str] | None = None
        self._number = getattr(errno, error) if error else 0
        self._at = at
        self._once = once

    def __call__(self, point: str, about: str) -> None:
        if point not in MOMENTS:
            return
        self.reached.append((point, about))
        place = len(self.reached) - 1
        if self._number and (place == self._at or (place > self._at and not self._once)):
            self.met = self.met or (point, about)
            raise OSError(self._number, os.strerror(self._number))


@contextmanager
def meeting(moments: Moments) -> Iterator[Moments]:
    fault_points.install(moments)
    try:
        yield moments
    finally:
        fault_points.install(None)


def committed(pipeline: Pipeline) -> dict[str, set[int]]:
    cache = pipeline.open_cache()
    for store in cache.stores.values():
        store.open()
    return {name: {row["id"] for row in store.read_all().to_pylist()} for name, store in cache.stores.items()}


def run_into(cache_dir: Path, moments: Moments) -> CacheError | None:
    """Run with errors at some moments; give the error that the run ended with, if any did."""
    with meeting(moments):
        try:
            assert rows_of(build(cache_dir).run()) == EXPECTED
        except CacheError as error:
            return error
    return None


def check(cache_dir: Path, moments: Moments, error: str) -> None:
    """Run into an error, and run again without it."""
    _given.clear()
    raised = run_into(cache_dir, moments)
    if raised is not None:
        error_class, remedy = REMEDIES[error]
        told = " ".join(str(raised).split())
        assert isinstance(raised, error_class), told
        assert remedy in told
        assert str(raised.path).startswith(str(cache_dir)), told
        assert str(raised.path) in told
    done = committed(build(cache_dir))
    _given.clear()
    assert rows_of(build(cache_dir).run()) == EXPECTED
    again = {
        step: sorted(done[step] & set(given)) for step, given in _given.items() if done[step] & set(given)
    }
    assert not again, f"computed again though committed, after {error} at {moments.met}"
    assert not list(cache_dir.rglob(".*.tmp"))
    assert not list(cache_dir.rglob("*.set-aside*"))


def count_moments(cache_dir: Path) -> int:
    with meeting(Moments()) as moments:
        assert rows_of(build(cache_dir).run()) == EXPECTED
    return len(moments.reached)


@pytest.mark.parametrize("error", REMEDIES)
def test_an_error_that_stays(error: str, tmp_path: Path) -> None:
    """At the first write, and among the parts."""
    count = count_moments(tmp_path / "undisturbed")
    for share in (0.0, 0.4, 0.8):
        at = int(count * share)
        moments = Moments(error, at)
        check(tmp_path / f"cache-{at}", moments, error)
        assert moments.met is not None


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("error", ["EDQUOT", "EIO"])
def test_an_error_at_every_moment(error: str, once: bool, tmp_path: Path) -> None:
    for at in range(count_moments(tmp_path / "undisturbed")):
        check(tmp_path / f"cache-{at}", Moments(error, at, once=once), error)
