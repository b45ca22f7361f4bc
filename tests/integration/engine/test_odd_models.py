"""Models whose own code does what no contract says: the run ends, their row fails, and no other answer is lost."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from distilabel_dagster.errors import StepProcessError
from distilabel_dagster.models import LLM, AsyncLLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromDicts
from distilabel_dagster.steps.tasks import TextGeneration

pytestmark = pytest.mark.timeout(60)
ASKED: list[str] = []
ODD: dict[str, Callable[[], Any]] = {}
COUNT = 6
THE_ODD_ONE = "q3"


def raising(error: BaseException) -> Callable[[], Any]:
    def make() -> Any:
        raise error

    return make


ODD |= {
    "none": lambda: None,
    "a list": list,
    "two": lambda: {"generations": ["a", "b"], "statistics": {}},
    "a number": lambda: {"generations": [5], "statistics": {}},
    "no data": lambda: {"generations": ["a"], "statistics": {}, "raw": object()},
    "statistics": lambda: {"generations": ["a"], "statistics": {"input_tokens": 5}},
    "half an emoji": lambda: {"generations": ["a\ud83d"], "statistics": {}},
    "nothing": lambda: {"generations": [None], "statistics": {}},
    "ValueError": raising(ValueError("no JSON: \ud83d")),
    "CancelledError": raising(asyncio.CancelledError()),
    "GeneratorExit": raising(GeneratorExit()),
}
KEPT = {"statistics": "a", "half an emoji": "a\ufffd"}
"""What is an answer all the same."""


def answer(text: str, kind: str) -> Any:
    ASKED.append(text)
    return ODD[kind]() if text == THE_ODD_ONE else {"generations": [f"to {text}"], "statistics": {}}


class LocalOdd(LLM):
    kind: str

    @property
    def model_name(self) -> str:
        return "odd"

    def generate(self, inputs: Any, num_generations: int = 1, **kwargs: Any) -> Any:
        return [answer(messages[-1]["content"], self.kind) for messages in inputs]


class RemoteOdd(AsyncLLM):
    kind: str

    @property
    def model_name(self) -> str:
        return "odd"

    async def agenerate(self, input: Any, num_generations: int = 1, **kwargs: Any) -> Any:  # noqa: A002 (distilabel's name)
        return answer(input[-1]["content"], self.kind)


def run(model: Any, cache_dir: Any, batch: int = 2) -> list[Any]:
    ASKED.clear()
    with Pipeline("odd", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(
            name="load", data=[{"instruction": f"q{n}"} for n in range(COUNT)], batch_size=2
        )
        load >> TextGeneration(name="ask", llm=model, input_batch_size=batch)
    return [row["generation"] for row in pipeline.run()["ask"]["train"]]


LOCAL = sorted(ODD.keys() - {"ValueError", "CancelledError", "GeneratorExit"})


@pytest.mark.parametrize("kind", sorted(ODD))
def test_a_row_of_a_remote_model_fails_alone(kind: str, tmp_path: Any) -> None:
    if kind == "CancelledError" and sys.version_info < (3, 11):
        pytest.skip("before 3.11 a task can't tell who cancelled it")
    model = RemoteOdd(kind=kind, max_retries=0)
    expected = [f"to q{n}" if f"q{n}" != THE_ODD_ONE else KEPT.get(kind) for n in range(COUNT)]
    assert run(model, tmp_path) == expected
    assert sorted(ASKED) == [f"q{n}" for n in range(COUNT)]
    assert run(model, tmp_path) == expected
    assert set(ASKED) <= {THE_ODD_ONE}, "what was answered isn't asked again"
    assert bool(ASKED) == (kind not in KEPT)


@pytest.mark.parametrize("kind", LOCAL)
def test_a_row_of_a_model_in_this_process_fails_alone(kind: str, tmp_path: Any) -> None:
    expected = [f"to q{n}" if f"q{n}" != THE_ODD_ONE else KEPT.get(kind) for n in range(COUNT)]
    assert run(LocalOdd(kind=kind), tmp_path, batch=COUNT) == expected
    assert run(LocalOdd(kind=kind), tmp_path, batch=COUNT) == expected
    assert set(ASKED) <= {THE_ODD_ONE}
    assert bool(ASKED) == (kind not in KEPT)


def test_a_model_in_this_process_that_raises_fails_its_batch(tmp_path: Any) -> None:
    expected = ["to q0", "to q1", None, None, "to q4", "to q5"]
    assert run(LocalOdd(kind="ValueError"), tmp_path) == expected
    assert run(LocalOdd(kind="ValueError"), tmp_path) == expected
    assert set(ASKED) == {"q2", "q3"}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_remote_model_that_wants_to_end_the_process_ends_the_run(
    error: BaseException, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ODD, "exit", raising(error))
    with pytest.raises(StepProcessError, match="a call raised "):
        run(RemoteOdd(kind="exit", max_concurrency=1), tmp_path)
    asked = set(ASKED) - {THE_ODD_ONE}
    with pytest.raises(StepProcessError, match="a call raised "):
        run(RemoteOdd(kind="exit", max_concurrency=1), tmp_path)
    assert not asked & set(ASKED), "what was answered is kept"
