import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.engine.events import (
    RowsFailed,
    RunFinished,
    RunStopped,
    StepFinished,
    StepStarted,
    StepWarning,
)
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import (
    ColumnTypeError,
    IncompleteRunError,
    StepNameError,
    StepOutputError,
    StepProcessError,
)
from distilabel_dagster.steps import FilterRows, LoadDataFromDicts, Step, StepInput
from tests.integration.bad_input.steps import (
    Broken,
    BrokenGlobal,
    Collect,
    Endless,
    Odd,
    Pulled,
    build,
    ids,
)


@pytest.fixture(autouse=True)
def forget() -> None:
    Broken.on, Broken.batches = set(), []
    Pulled.script = []
    Endless.made = 0


def test_rows_on_which_a_step_fails_are_kept_marked_and_tried_again(tmp_path: Path) -> None:
    Broken.on = {3}
    pipeline = build(tmp_path, Broken(name="broken", input_batch_size=2), Collect(name="collect"))
    events = list(pipeline.iter_run())
    (failed,) = [event for event in events if isinstance(event, RowsFailed)]
    assert (failed.step, failed.seq_no, failed.count) == ("broken", 1, 2)
    assert "ConnectionError: no answer for 3" in failed.error
    finished = {event.step: event for event in events if isinstance(event, StepFinished)}
    assert finished["broken"].rows_failed == 2
    distiset = pipeline.run()
    assert ids(distiset, "collect") == list(range(10))
    texts = [None if number in (2, 3) else f"t{number}" for number in range(10)]
    assert distiset["collect"]["train"]["text"] == texts

    Broken.on, Broken.batches = set(), []
    mended = build(tmp_path, Broken(name="broken", input_batch_size=2), Collect(name="collect")).run()
    assert Broken.batches == [[2, 3]], "just what failed is tried again"
    assert mended["collect"]["train"]["text"] == [f"t{number}" for number in range(10)]


def test_on_error_raise_ends_the_run_and_keeps_what_was_committed(tmp_path: Path) -> None:
    Broken.on = {7}
    pipeline = build(tmp_path, Broken(name="broken", input_batch_size=2))
    with pytest.raises(
        StepProcessError, match=r"Step `broken` failed on batch 3 \(2 rows\): ConnectionError: no ans"
    ):
        pipeline.run(on_error="raise")
    assert Broken.batches == [[0, 1], [2, 3], [4, 5], [6, 7]]
    Broken.on, Broken.batches = set(), []
    assert ids(pipeline.run(on_error="raise"), "broken") == list(range(10))
    assert Broken.batches == [[6, 7], [8, 9]]


def test_a_global_steps_error_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(StepProcessError, match=r"`glob` failed on batch 0.*ZeroDivisionError: global"):
        build(tmp_path, BrokenGlobal(name="glob")).run()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"a": 1}, "yielded a dict, expected a list of rows"),
        ("rows", "yielded a str, expected a list of rows"),
        (None, "yielded a NoneType, expected a list"),
        ([1], "item 0 is a int, expected a dict"),
        ([{}, None], "item 1 is a NoneType, expected a dict"),
        ([{1: "x"}], "the column 1, which isn't a string"),
        ([{}, {}], "gave 2 rows without any column"),
    ],
)
def test_what_is_no_list_of_rows_fails_the_run(tmp_path: Path, made: Any, told: str) -> None:
    Odd.make = staticmethod(lambda rows: made)
    with pytest.raises(StepOutputError, match="Step `odd`") as caught:
        build(tmp_path, Odd(name="odd")).run()
    assert told in str(caught.value)


def test_a_process_that_returns_is_told_to_yield(tmp_path: Path) -> None:
    class Returns(Step):
        def process(self, inputs: StepInput) -> Any:
            return inputs

    with pytest.raises(StepOutputError, match=r"`process\(\)` returned a list, expected a generator"):
        build(tmp_path, Returns(name="returns")).run()


@pytest.mark.parametrize("batch_size", [1, 10], ids=["between batches", "within a batch"])
def test_types_that_cannot_be_united_name_step_column_and_types(tmp_path: Path, batch_size: int) -> None:
    Odd.make = staticmethod(
        lambda rows: [{**row, "made": "text" if row["id"] > 4 else row["id"]} for row in rows]
    )
    pipeline = build(tmp_path, Odd(name="odd", input_batch_size=batch_size))
    with pytest.raises(ColumnTypeError, match=r"Step `odd`.*column `made`") as caught:
        pipeline.run()
    assert "int" in str(caught.value)
    assert "str" in str(caught.value)

    Odd.make = staticmethod(lambda rows: [{**row, "made": str(row["id"])} for row in rows])
    Odd.make_again = True  # type: ignore[attr-defined]  # another attribute: the step's code stays version "0"
    again = build(tmp_path, Odd(name="odd", input_batch_size=batch_size, code_version="1")).run()
    assert again["odd"]["train"]["made"] == [str(number) for number in range(10)]


def rows_of(*numbers: int) -> list[dict[str, int]]:
    return [{"id": number} for number in numbers]


def test_a_generator_that_never_says_last_ends_with_all_rows(tmp_path: Path) -> None:
    Pulled.script = [(rows_of(0, 1), False), (rows_of(2), False)]
    pipeline = build(tmp_path, Collect(name="collect"), source=Pulled(name="load"))
    assert ids(pipeline.run(), "collect") == [0, 1, 2]
    assert ids(pipeline.run(), "collect") == [0, 1, 2]


def test_a_generator_that_raises_keeps_its_rows_and_goes_on(tmp_path: Path) -> None:
    Pulled.script = [(rows_of(0, 1), False), OSError("source is gone")]
    pipeline = build(tmp_path, Collect(name="collect"), source=Pulled(name="load"))
    with pytest.raises(
        StepProcessError, match="Step `load` failed while it made rows: OSError: source is gone"
    ):
        pipeline.run()
    Pulled.script = [(rows_of(0, 1), False), (rows_of(2), True)]
    assert ids(pipeline.run(), "collect") == [0, 1, 2]


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (rows_of(1), "yielded a list, expected a pair"),
        ((rows_of(1),), "yielded a tuple, expected a pair"),
        (({"id": 1}, True), "yielded a dict, expected a list"),
        (([1], True), "item 0 is a int"),
    ],
)
def test_what_is_no_pair_of_a_generator(tmp_path: Path, item: Any, told: str) -> None:
    Pulled.script = [item]
    with pytest.raises(StepOutputError, match="Step `load`") as caught:
        build(tmp_path, Collect(name="collect"), source=Pulled(name="load")).run()
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "script",
    [[], [([], True)], [([], False)], [([], False), ([], False), ([], True)]],
    ids=["nothing", "empty and last", "empty and not last", "several empty"],
)
def test_a_generator_without_rows_gives_a_distiset_without_rows(tmp_path: Path, script: list[Any]) -> None:
    Pulled.script = script
    pipeline = build(
        tmp_path,
        Broken(name="broken", input_batch_size=2),
        Collect(name="collect"),
        source=Pulled(name="load"),
    )
    events = list(pipeline.iter_run())
    assert isinstance(events[-1], RunFinished)
    assert pipeline.run()["collect"]["train"].num_rows == 0
    assert Broken.batches == []
    if not any(rows for rows, _ in script) and not (script and script[-1][1]):
        assert [event.step for event in events if isinstance(event, StepWarning)] == ["load"]


def test_empty_batches_between_others_lose_nothing(tmp_path: Path) -> None:
    Pulled.script = [([], False), (rows_of(0), False), ([], False), (rows_of(1, 2), False), ([], True)]
    pipeline = build(
        tmp_path,
        Broken(name="broken", input_batch_size=2),
        Collect(name="collect"),
        source=Pulled(name="load"),
    )
    assert ids(pipeline.run(), "collect") == [0, 1, 2]
    assert [number for batch in Broken.batches for number in batch] == [0, 1, 2]


def test_no_rows_behind_a_filter(tmp_path: Path) -> None:
    keep_none = FilterRows(name="keep", column="id", op="<", value=0)
    distiset = build(tmp_path, keep_none, Broken(name="broken"), Collect(name="collect")).run()
    assert distiset["collect"]["train"].num_rows == 0
    assert distiset["default"]["train"].num_rows == 0
    assert Broken.batches == []


def test_no_rows_at_the_start(tmp_path: Path) -> None:
    assert build(tmp_path, Collect(name="collect"), rows=0).run()["collect"]["train"].num_rows == 0


def test_an_endless_generator_waits_for_its_consumer_and_can_be_stopped(tmp_path: Path) -> None:
    taken = threading.Event()
    go_on = threading.Event()

    class Slow(Step):
        def process(self, inputs: StepInput) -> Any:
            taken.set()
            assert go_on.wait(60)
            yield inputs

    options = RunOptions(max_rows_ahead=50, grace_period_s=60)
    pipeline = build(
        tmp_path, Slow(name="slow", input_batch_size=10), source=Endless(name="load", batch_size=10)
    )
    events = pipeline.iter_run(options)
    for event in events:
        if isinstance(event, StepStarted) and event.step == "slow":
            break
    assert taken.wait(60)
    made, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        if Endless.made != made:
            made, since = Endless.made, time.monotonic()
        assert made <= 100, "it runs ahead without bound"
        time.sleep(0.01)
    stopper = threading.Thread(target=events.close)  # type: ignore[attr-defined]  # it's a generator
    stopper.start()
    go_on.set()
    stopper.join(60)
    assert not stopper.is_alive()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # as before the run, though it was left in another thread
    again = build(
        tmp_path, Slow(name="slow", input_batch_size=10), source=Endless(name="load", batch_size=10)
    )
    store = again.open_cache().stores["slow"]
    store.open()
    committed = store.read_all()["id"].to_pylist()
    assert committed == list(range(len(committed)))
    assert len(committed) >= 10
    assert not store.is_complete


def test_a_generator_of_endless_empty_batches_can_be_stopped(tmp_path: Path) -> None:
    has_begun, ended = threading.Event(), threading.Event()

    class Nothing(Pulled):
        def process(self, offset: int = 0) -> Any:
            while True:
                has_begun.set()
                yield [], False

    pipeline = build(tmp_path, Collect(name="collect"), source=Nothing(name="load"))

    def run() -> None:
        events = pipeline.iter_run(RunOptions(grace_period_s=1))
        assert [next(events), next(events)]
        assert has_begun.wait(30)
        events.close()  # type: ignore[attr-defined]  # it's a generator
        ended.set()

    before = {*threading.enumerate()}
    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(60)
    left = [each for each in threading.enumerate() if each not in before and each.name == "step-load"]
    for each in left:  # it would take a core from whatever comes after, for as long as the process lives
        each.join(10)
        assert not each.is_alive()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "a b", "x" * 129, "distiset", "a\n", "\x00", "é"])
def test_a_name_that_cannot_be_a_path(name: str) -> None:
    if name:
        with pytest.raises(StepNameError, match="can't be called"):
            LoadDataFromDicts(name=name, data=[])
    else:
        assert LoadDataFromDicts(name=name, data=[]).name == "load_data_from_dicts_0"


def test_a_run_of_some_steps_needs_those_before_them(tmp_path: Path) -> None:
    pipeline = build(tmp_path, Broken(name="broken"), Collect(name="collect"))
    with pytest.raises(IncompleteRunError, match="Step `collect` needs all rows of `broken`"):
        list(pipeline.iter_run(steps=["collect"]))
    assert Broken.batches == []
    events = list(pipeline.iter_run(steps=["load", "broken"]))
    assert not any(isinstance(event, RunStopped) for event in events)
    list(pipeline.iter_run(steps=["collect"]))
    assert len(Broken.batches) == 1
    assert CacheFileSystem(tmp_path).exists(pipeline.open_cache().stores["collect"].part_file(1))
