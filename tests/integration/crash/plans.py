"""Histories: what befalls a pipeline, run after run, as a function of a seed."""

import random
from dataclasses import dataclass
from typing import Final, Literal

from distilabel_dagster.base.fault_points import POINTS
from tests.integration.crash.faults import Act, Blow
from tests.integration.crash.shapes import SHAPES, Shape, Store

Way = Literal["run", "job", "multiprocess"]
From = Literal["kill_group", "kill_main", "kill_worker", "terminate", "interrupt"]

MOST: Final = 5
"""Disturbed runs of a history, at most."""
_NUMBERS: Final = (1, 2, 2, 3, 3, 4, 5)
_OFTEN: Final = {
    "file.": 40,
    "link.": 10,
    "put.": 50,
    "round.": 8,
    "snapshot.": 8,
    "seal.": 4,
    "ledger.": 4,
    "lease.": 3,
    "call.": 80,
}
"""Beginning of a point's name -> the most times at which it's aimed; runs with calls reach the ledger's more often."""
_RARELY: Final = {
    "file.removing": 2,
    "file.removed": 2,
    "file.setting_aside": 1,
    "file.set_aside": 1,
    "lease.acquired": 1,
    "lease.releasing": 1,
    "lease.released": 1,
}
_ABOUT: Final = {"": 15, ".parquet": 8, "batch_manager": 8, "complete.json": 2, "pipeline.yaml": 1}
"""Part of a path -> the most times at which writes of such files are aimed at."""
_ERRORS: Final[dict[str, Act]] = {
    "file.opened": "no_space",
    "file.written": "no_space",
    "file.synced": "io_error",
    "file.renamed": "io_error",
    "link.made": "no_space",
    "put.sending": "time_out",
    "put.sent": "time_out",
}
_LOCAL_ONLY: Final = ("file.", "link.")
_DAMAGE_ONLY: Final = ("file.setting_aside", "file.set_aside")


@dataclass(frozen=True, slots=True)
class FromOutside:
    """A signal at some moment, not at a point.

    Attributes:
        what: which; kills of a worker wait until there's one.
        after_s: seconds after the run has begun to work, or after its start.
        is_early: whether they count from its start.
        times: how often the signal is sent, more than half a second apart.
        to_group: whether the whole group gets it, as from a terminal.
    """

    what: From
    after_s: float
    is_early: bool = False
    times: int = 1
    to_group: bool = True


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What befalls one run.

    Attributes:
        cause: a blow at a point, or a signal from outside.
        harms: a part that is cut off when the run has ended, as a number that chooses one; None for none.
    """

    cause: Blow | FromOutside
    harms: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A history: runs that are disturbed, and then one that isn't.

    Attributes:
        seed: what it was drawn with.
        pipeline: a name in `SHAPES`.
        store: where the cache is.
        way: how runs are started; a job alternates with `Pipeline.run` where the cache lets both go on.
        has_ledger: whether there's a database of leases; always beside a local cache.
        heals_at: the first run in which the batches of a shaky step don't fail.
        most: what it was drawn with as well.
        disturbances: one for each run but the last.
    """

    seed: int
    pipeline: str
    store: Store
    way: Way
    has_ledger: bool
    disturbances: tuple[Disturbance, ...]
    heals_at: int = 0
    most: int = MOST

    @property
    def shape(self) -> Shape:
        return SHAPES[self.pipeline]

    def __str__(self) -> str:
        most = "" if self.most == MOST else f" --most {self.most}"
        return f"--seed {self.seed} --pipeline {self.pipeline} --store {self.store}{most}"


def points_of(shape: Shape, store: Store, *, has_ledger: bool) -> list[str]:
    """The points that a pipeline's runs pass on a store, but for those that only damage brings about."""
    left_out: tuple[str, ...] = _DAMAGE_ONLY
    left_out += _LOCAL_ONLY if store == "s3" else ("put.",)
    if not shape.asks:
        left_out += ("call.",) if has_ledger else ("call.", "ledger.", "lease.")
    return [point for point in POINTS if not point.startswith(left_out)]


def make_plan(seed: int, pipeline: str, store: Store, most: int = MOST) -> Plan:
    """Draw a history.

    Its first run is struck at a point that goes round with the seed, so that many histories pass all points.

    Args:
        seed: any number.
        pipeline: a name in `SHAPES`.
        store: where the cache is.
        most: disturbed runs at most.
    """
    draw = random.Random(f"{seed} {pipeline} {store}")
    shape = SHAPES[pipeline]
    way = _draw_way(draw, shape)
    has_ledger = store == "local" or draw.random() < 0.6
    points = points_of(shape, store, has_ledger=has_ledger)
    number = min(draw.choice(_NUMBERS), most, {"run": MOST, "job": 3, "multiprocess": 2}[way])
    made = [Disturbance(_draw_blow(draw, shape, _choose_first(seed, shape, points)))]
    while len(made) < number:
        made.append(_draw_disturbance(draw, shape, way, points))
    if draw.random() < 0.1:
        made = _harm(draw, made, store)
    heals_at = draw.randint(1, number) if shape.is_shaky else 0
    return Plan(seed, pipeline, store, way, has_ledger, tuple(made), heals_at, most)


def _choose_first(seed: int, shape: Shape, points: list[str]) -> str:
    """Go round the points; in every other history with calls round those about calls."""
    if shape.asks and seed % 2:
        points, seed = [point for point in points if point.startswith("call.")], seed // 2
    return points[seed % len(points)]


def _draw_way(draw: random.Random, shape: Shape) -> Way:
    number = draw.random()
    if number < 0.75:
        return "run"
    return "multiprocess" if shape.groups and number > 0.9 else "job"


def _draw_disturbance(draw: random.Random, shape: Shape, way: Way, points: list[str]) -> Disturbance:
    if draw.random() < 0.5:
        return Disturbance(_draw_blow(draw, shape, draw.choice(points)))
    kinds: list[From] = ["kill_group", "kill_group", "kill_main", "terminate", "interrupt"]
    if shape.has_replicas or way == "multiprocess":
        kinds += ["kill_worker", "kill_worker", "kill_main"]
    what = draw.choice(kinds)
    is_signal = what in ("terminate", "interrupt")
    return Disturbance(
        FromOutside(
            what,
            after_s=draw.uniform(0, 2.0),
            is_early=draw.random() < 0.15,
            times=draw.choice((1, 1, 2, 3)) if is_signal else 1,
            to_group=what == "kill_group" or (is_signal and draw.random() < 0.6),
        )
    )


def _draw_blow(draw: random.Random, shape: Shape, point: str) -> Blow:
    about, most = "", _RARELY.get(point) or _often(point, shape)
    if point.startswith("file.") and point not in _RARELY:
        about, most = draw.choice(list(_ABOUT.items()))
    if point.startswith("seal."):
        most = len(shape.steps)
    acts: list[Act] = ["kill"] * 6 + ["kill_group", "kill_group", "terminate", "interrupt"]  # type: ignore[list-item]  # the list's type is that of its use
    if point in _ERRORS:
        acts += [_ERRORS[point]] * 3
    return Blow(point, draw.randint(1, most), draw.choice(acts), about)


def _often(point: str, shape: Shape) -> int:
    if shape.asks and point.startswith(("ledger.", "lease.renewed")):
        return 30
    return next(most for beginning, most in _OFTEN.items() if point.startswith(beginning))


def _harm(draw: random.Random, made: list[Disturbance], store: Store) -> list[Disturbance]:
    """Have a part harmed behind one of the runs; the next may be struck while it sets that aside."""
    at = draw.randrange(len(made))
    harmed = [*made]
    harmed[at] = Disturbance(made[at].cause, harms=draw.randrange(1000))
    if store == "local" and at + 1 < len(made):
        harmed[at + 1] = Disturbance(Blow(draw.choice(_DAMAGE_ONLY), 1, "kill"))
    return harmed
