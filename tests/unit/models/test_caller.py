"""Who makes a model's calls: the running step's caller, also in threads that the step starts."""

import contextvars
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from distilabel_dagster.errors import ModelError
from distilabel_dagster.models import LLM, ChatType, GenerateOutput
from distilabel_dagster.models.caller import calling, find_caller
from distilabel_dagster.models.model import Model


class Plain(LLM):
    @property
    def model_name(self) -> str:
        return "plain"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        return [{"generations": ["of the model"]} for _ in inputs]


class Noted:
    """Answers in place of the model."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.asked: list[tuple[Any, int, dict[str, Any]]] = []

    def answer(
        self, model: Model, inputs: list[Any], num_generations: int, kwargs: Mapping[str, Any]
    ) -> list[Any]:
        self.asked.append((inputs, num_generations, dict(kwargs)))
        return [{"generations": [f"of the caller{self.name}"]} for _ in inputs]


CHAT: ChatType = [{"role": "user", "content": "hi"}]


def in_thread(work: Any) -> Any:
    found: list[Any] = []

    def do() -> None:
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001  (looked at by the test)
            found.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join(10)
    return found[0]


def ask(llm: LLM) -> Any:
    (output,) = llm.generate_outputs([CHAT], num_generations=2, mark="!")
    return output["generations"][0]


def test_outside_of_a_run_the_model_answers() -> None:
    llm = Plain()
    assert find_caller(llm) is None
    assert llm.generate_outputs([CHAT])[0]["generations"] == ["of the model"]


def test_inside_of_a_step_the_caller_does_and_afterwards_no_more() -> None:
    llm, other, caller = Plain(), Plain(), Noted()
    with calling(caller, [llm]):
        assert ask(llm) == ask(other) == "of the caller"
        assert in_thread(lambda: ask(llm)) == "of the caller"
        assert in_thread(lambda: find_caller(other)) is None, "a model that isn't the step's"
    assert caller.asked == [([CHAT], 2, {"mark": "!"})] * 3
    assert find_caller(llm) is None
    assert in_thread(lambda: find_caller(llm)) is None


def test_the_caller_ends_with_an_error_as_well() -> None:
    llm = Plain()
    with pytest.raises(ValueError, match="mine"), calling(Noted(), [llm]):
        raise ValueError("mine")
    assert find_caller(llm) is None
    assert in_thread(lambda: find_caller(llm)) is None


def test_callers_nest() -> None:
    llm, outer, inner = Plain(), Noted(), Noted()
    with calling(outer, [llm]):
        with calling(inner, [llm]):
            assert find_caller(llm) is inner
        assert find_caller(llm) is outer
        assert in_thread(lambda: find_caller(llm)) is outer


def test_a_shared_models_call_in_a_bare_thread_is_nobodys() -> None:
    llm, first, second = Plain(), Noted(" one"), Noted(" two")
    with calling(first, [llm]), calling(second, [llm]):
        told = in_thread(lambda: ask(llm))
        assert isinstance(told, ModelError)
        assert "`plain`" in str(told)
        assert "2 running steps" in str(told)
        assert "copy_context" in str(told)
        context = contextvars.copy_context()
        assert in_thread(lambda: context.run(ask, llm)) == "of the caller two"


def test_steps_that_share_a_model_come_and_go_at_the_same_time() -> None:
    llm = Plain()
    problems: list[BaseException] = []
    begun = threading.Barrier(8)

    def step() -> None:
        try:
            begun.wait(10)
            for _ in range(400):
                caller = Noted()
                with calling(caller, [llm]):
                    assert find_caller(llm) is caller
        except BaseException as error:  # noqa: BLE001  (looked at by the test)
            problems.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=step) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not problems
    assert in_thread(lambda: find_caller(llm)) is None
