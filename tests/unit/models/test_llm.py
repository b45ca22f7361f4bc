"""The contracts of models: what comes back, in which order, and what becomes of a call that fails."""

import asyncio
import threading
from typing import Any

import pytest

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.errors import ModelCallError, ModelOutputError, PipelineDefinitionError
from distilabel_dagster.models import LLM, AsyncLLM, ChatType, GenerateOutput
from distilabel_dagster.models.llm import merge_outputs


def chat(text: str) -> ChatType:
    return [{"role": "user", "content": text}]


class Fixed(LLM):
    """Gives what it's told to, whatever is asked."""

    given: Any = None

    @property
    def model_name(self) -> str:
        return "fixed"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        return self.given  # type: ignore[no-any-return]


class Slow(AsyncLLM):
    """Answers with the text in upper case; `fail…` fails, and earlier inputs take longer than later ones."""

    _now: int = 0
    _most: int = 0
    _closed: int = 0

    @property
    def model_name(self) -> str:
        return "slow"

    async def agenerate(self, input: ChatType, num_generations: int = 1, suffix: str = "") -> GenerateOutput:  # type: ignore[override]  # noqa: A002 (distilabel's name)
        text = str(input[-1]["content"])
        self._now += 1
        self._most = max(self._most, self._now)
        for _ in range(3 if text < "e" else 1):
            await asyncio.sleep(0)
        self._now -= 1
        if text.startswith("fail"):
            raise RuntimeError(f"no {text}")
        return {
            "generations": [text.upper() + suffix] * num_generations,
            "statistics": {"input_tokens": [1] * num_generations, "output_tokens": [2] * num_generations},
        }

    async def aclose(self) -> None:
        self._closed += 1


class SlowOneByOne(Slow):
    one_call_per_generation = True


def test_outputs_are_completed_where_generations_are_missing() -> None:
    llm = Fixed(
        given=[{"generations": ["a", None], "statistics": {"input_tokens": [3]}, "logprobs": [0.5, None]}]
    )
    assert llm.generate_outputs([chat("x")], num_generations=3) == [
        {
            "generations": ["a", None, None],
            "statistics": {"input_tokens": [3]},
            "logprobs": [0.5, None, None],
            "errors": [None, "the model gave no text", "3 generations were asked for and 2 came"],
        }
    ]


def test_whole_outputs_are_left_as_they_are() -> None:
    given = [{"generations": ["a"], "statistics": {}}]
    assert Fixed(given=given).generate_outputs([chat("x")]) == given


def test_nothing_is_asked_for_no_input() -> None:
    assert Fixed(given="not even looked at").generate_outputs([]) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "gave a NoneType, expected a list of 1 outputs"),
        ([], "gave 0 outputs"),
    ],
)
def test_a_broken_contract_is_told(given: Any, told: str) -> None:
    with pytest.raises(ModelOutputError, match="Fixed") as raised:
        Fixed(given=given).generate_outputs([chat("x")])
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (["a"], "['a'] for one input"),
        ({"generations": ["a", "b"]}, "gave 2 generations for one input"),
        ({"generations": [5]}, "gave a generation that is a int, expected text or None"),
    ],
)
def test_an_odd_output_fails_its_input_only(odd: Any, told: str) -> None:
    whole = {"generations": ["a"], "statistics": {}}
    outputs = Fixed(given=[whole, odd]).generate_outputs([chat("x"), chat("y")])
    assert outputs[0] == whole
    assert outputs[1]["generations"] == [None]
    assert told in outputs[1]["errors"][0]


@pytest.mark.parametrize("cls", [Slow, SlowOneByOne])
def test_async_outputs_keep_their_order_and_failures_stay_alone(cls: type[Slow]) -> None:
    llm = cls(max_concurrency=2, generation_kwargs={"suffix": "!"})
    asked = ["a", "fail1", "c", "f", "g"]
    outputs = llm.generate_outputs(
        [chat(text) for text in asked], num_generations=2, **llm.get_generation_kwargs()
    )
    assert [output["generations"] for output in outputs] == [
        ["A!", "A!"],
        [None, None],
        ["C!", "C!"],
        ["F!", "F!"],
        ["G!", "G!"],
    ]
    assert [output.get("errors") for output in outputs] == [
        None,
        ["RuntimeError: no fail1"] * 2,
        None,
        None,
        None,
    ]
    assert outputs[0]["statistics"] == {"input_tokens": [1, 1], "output_tokens": [2, 2]}
    assert llm._most == 2
    assert llm._closed == 1


def test_async_models_work_where_an_event_loop_runs() -> None:
    async def in_a_notebook() -> list[GenerateOutput]:
        return Slow().generate_outputs([chat("a")])

    assert asyncio.run(in_a_notebook())[0]["generations"] == ["A"]


def test_one_async_model_serves_several_threads() -> None:
    llm = Slow()
    found: dict[int, list[GenerateOutput]] = {}

    def ask(number: int) -> None:
        found[number] = llm.generate_outputs([chat(f"{number}-{each}") for each in range(20)])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [output["generations"] for output in found[number]] == [
            [f"{number}-{each}"] for each in range(20)
        ]


def test_a_stop_isnt_taken_for_a_failed_call() -> None:
    class Stopped(Slow):
        async def agenerate(self, input: ChatType, num_generations: int = 1, suffix: str = "") -> Any:  # noqa: A002 (distilabel's name)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stopped().generate_outputs([chat("a")])


def test_unknown_generation_kwargs_are_refused_with_what_is_near() -> None:
    with pytest.raises(
        PipelineDefinitionError, match=r"`Slow.agenerate` takes no `sufix`. Did you mean `suffix`\?"
    ):
        Slow(generation_kwargs={"sufix": "!"})
    assert Fixed(generation_kwargs={"anything": 1}).get_generation_kwargs() == {"anything": 1}
    assert Slow(generation_kwargs=None).get_generation_kwargs() == {}


def test_identity_has_what_changes_answers_and_nothing_else() -> None:
    def signature(**fields: Any) -> str:
        return compute_signature(describe_identity(Slow(**fields)))

    assert signature() == signature(max_concurrency=1)
    assert signature() != signature(generation_kwargs={"suffix": "?"})


class Passing(Slow):
    """Fails in a way that passes, as often as it's told to."""

    one_call_per_generation = True
    _left: int = 0
    _asked: int = 0

    async def acall(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        self._asked += 1
        if self._left:
            self._left -= 1
            raise ModelCallError("No.", model="slow", endpoint="e", kind="server", retry_after_s=0.01)
        return await super().acall(input, num_generations, **kwargs)

    def read_response(self, response: dict[str, Any]) -> GenerateOutput:
        return {**response, "read": [True] * len(response["generations"])}  # type: ignore[typeddict-item]  # a further key


def test_outside_of_a_run_calls_are_made_again_as_well() -> None:
    llm = Passing(max_retries=3)
    llm._left = 2
    (output,) = llm.generate_outputs([chat("x")], num_generations=2)
    assert output["generations"] == ["X", "X"]
    assert output["read"] == [True, True]  # type: ignore[typeddict-item]  # a further key
    assert llm._asked == 4


def test_without_retries_a_failure_is_the_inputs() -> None:
    llm = Passing(max_retries=0)
    llm._left = 1
    (output,) = llm.generate_outputs([chat("x")], num_generations=2)
    assert sorted(output["generations"], key=str) == [None, "X"] or output["generations"] == ["X", None]
    assert [error for error in output["errors"] if error] == ["No."]


def test_outputs_of_several_calls_are_put_together_in_order() -> None:
    whole: Any = {"generations": ["a"], "statistics": {"input_tokens": [1]}, "score": [0.5]}
    failed: Any = {"generations": [None], "statistics": {}, "errors": ["why"]}
    assert merge_outputs([whole, failed, whole]) == {
        "generations": ["a", None, "a"],
        "statistics": {"input_tokens": [1, 0, 1]},
        "errors": [None, "why", None],
        "score": [0.5, None, 0.5],
    }
    assert merge_outputs([whole]) is whole
