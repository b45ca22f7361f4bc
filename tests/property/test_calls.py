"""Runs with models that are stopped and killed, again and again, pay for each answer once."""

import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.events import StepFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import DistilabelDagsterError
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.models import LLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps.tasks import GlobalTask
from tests.integration.engine.llm_runs import SERVERS, Ask, LocalLLM, OneByOneLLM, Server, SimLLM
from tests.property.scenarios import CrashingFileSystem, remove_tree
from tests.unit.engine.runs import Numbers

pytestmark = pytest.mark.timeout(280)
RUNS = 5
COUNT = 14
MODELS: dict[str, type[LLM]] = {"network": SimLLM, "one by one": OneByOneLLM, "local": LocalLLM}
ENDS = st.one_of(
    st.tuples(st.just("stop"), st.integers(1, 40)),
    st.tuples(st.just("crash"), st.integers(0, 25)),
    st.tuples(st.just("few calls"), st.integers(0, 12)),
)


class AskAll(GlobalTask, Ask):
    """The same, with all rows at once."""


class Lab:
    """A cache in memory, a ledger on disk, and runs of one pipeline on both."""

    def __init__(self, models: list[str], modulo: int, *, ends_whole: bool, ledger: Path) -> None:
        self.models, self.modulo, self.ends_whole = models, modulo, ends_whole
        self.ledger = ledger
        self.root = f"lab{uuid.uuid4().hex}"
        self.is_finished = False

    def build(self, sizes: list[int]) -> Pipeline:
        first, second, third = (MODELS[name]() for name in self.models)
        last = AskAll if self.ends_whole else Ask
        with Pipeline("calls", cache_dir=f"memory://{self.root}") as pipeline:
            load = Numbers(name="load", count=COUNT, batch_size=sizes[0])
            a = Ask(name="a", llm=first, modulo=self.modulo, input_batch_size=sizes[1])
            b = Ask(
                name="b", llm=second, column="a", prefix="b ", input_batch_size=sizes[2], num_generations=2
            )
            c = last(name="c", llm=third, column="b", prefix="c ")
            d = Ask(name="d", llm=first, modulo=self.modulo, prefix="d", input_batch_size=sizes[3])
            load.connect(a, d)
            a >> b >> c
        return pipeline

    def run(self, sizes: list[int], end: str = "", moment: int = 0) -> bool:
        """Run once; tell whether the plug was pulled."""
        pipeline = self.build(sizes)
        cache = pipeline.open_cache()
        fs = CrashingFileSystem(cache.fs.url, moment if end == "crash" else None, f"{self.root}x")
        cache = PipelineCache(fs, cache.signature, cache.step_signatures, cache.leaf_steps)
        engine = Engine(
            pipeline.dag,
            cache,
            pipeline.get_load_stages(),
            RunOptions(max_new_calls=moment if end == "few calls" else None, max_rows_ahead=6),
            acquire=lambda _: None,
            open_ledger=lambda: ResponseLedger(str(self.ledger)),
        )
        server = SERVERS["main"]
        before = server.calls
        server.on_ask = lambda count: (
            engine.request_stop("the test says so") if end == "stop" and count - before == moment else None
        )
        finished = set()
        watchdog = threading.Timer(30, engine.request_stop, ["it hangs"])
        watchdog.start()
        try:
            for event in engine.run():
                if isinstance(event, StepFinished):
                    finished.add(event.step)
                    cache.seal_step(event.step)
        except DistilabelDagsterError:
            if end != "crash":
                raise
        finally:
            assert watchdog.is_alive(), "the run hangs"
            watchdog.cancel()
        if fs.has_crashed:
            remove_tree(self.root)
            self.root = f"{self.root}x"
        self.is_finished = finished == set(pipeline.dag.steps)
        return fs.has_crashed

    def read(self, sizes: list[int]) -> dict[str, Any]:
        cache = self.build(sizes).open_cache()
        rows = {}
        for name, store in cache.stores.items():
            store.open()
            rows[name] = store.read_all().to_pylist()
        return rows


@pytest.fixture(scope="module")
def make_server() -> Iterator[Callable[[], Server]]:
    def make() -> Server:
        SERVERS["main"] = Server()
        return SERVERS["main"]

    yield make
    SERVERS.clear()


@settings(max_examples=30)
@given(
    shape=st.tuples(
        st.lists(st.sampled_from(sorted(MODELS)), min_size=3, max_size=3),
        st.sampled_from([0, 1, 3]),
        st.booleans(),
    ),
    sizes=st.lists(st.lists(st.integers(1, 7), min_size=4, max_size=4), min_size=RUNS + 1, max_size=RUNS + 1),
    ends=st.lists(ENDS, max_size=RUNS - 1),
)
def test_each_answer_is_paid_once_and_rows_are_those_of_an_undisturbed_run(
    make_server: Callable[[], Server],
    shape: tuple[list[str], int, bool],
    sizes: list[list[int]],
    ends: list[tuple[str, int]],
) -> None:
    server = make_server()
    models, modulo, ends_whole = shape
    with tempfile.TemporaryDirectory() as directory:
        lab = Lab(models, modulo, ends_whole=ends_whole, ledger=Path(directory) / "ledger.sqlite")
        undisturbed = Lab(models, modulo, ends_whole=ends_whole, ledger=lab.ledger)
        try:
            on_the_wire = 0
            for run, (end, moment) in enumerate(ends):
                has_crashed = lab.run(sizes[run], end, moment)
                # A kill loses what's in the air: of models in this process a batch per step, else none here.
                on_the_wire += 2 * COUNT + 2 * sum(sizes[run]) if has_crashed and "local" in models else 0
            lab.run(sizes[len(ends)])
            assert lab.is_finished
            per_row = 2 if models[1] == "one by one" else 1
            wanted = COUNT * (1 + 1 + per_row + 2)
            assert wanted <= server.calls <= wanted + on_the_wire, "each answer is paid once"
            paid = server.calls
            rows = lab.read(sizes[0])
            assert [row["n"] for row in rows["c"]] == [n for n in range(COUNT) for _ in range(2)]
            assert len({row["c"] for row in rows["c"]}) == 2 * COUNT, "no answer served two rows"
            undisturbed.run(sizes[-1])
            assert undisturbed.read(sizes[0]) == rows
            assert server.calls == paid
        finally:
            remove_tree(lab.root)
            remove_tree(undisturbed.root)
