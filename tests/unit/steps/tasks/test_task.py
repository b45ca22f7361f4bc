"""Task: rows and metadata as distilabel makes them, and what becomes of rows that fail."""

import copy
import json
import logging
import pickle
from typing import Any

import pytest

from distilabel_dagster.batch import Row
from distilabel_dagster.models import LLM, ChatType, GenerateOutput
from distilabel_dagster.steps.tasks import Task

CHAT = [{"role": "user", "content": "hi"}]


class Numbered(LLM):
    """Gives `g0`, `g1`, …; None, with or without a reason, and an extra list where the text asks for it."""

    loads: int = 0

    @property
    def model_name(self) -> str:
        return "numbered"

    def load(self) -> None:
        self.loads += 1

    def unload(self) -> None:
        self.loads -= 1

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, extra: bool = False
    ) -> list[GenerateOutput]:
        return [self._answer(str(chat[-1]["content"]), num_generations, extra) for chat in inputs]

    def _answer(self, text: str, count: int, extra: bool) -> GenerateOutput:
        texts: list[str | None] = [f"g{index}" for index in range(count)]
        if text.startswith("silent"):
            texts[0] = None
        output: dict[str, Any] = {
            "generations": texts,
            "statistics": {"input_tokens": [1], "output_tokens": [2] * count},
        }
        if text == "silent with reason":
            output["errors"] = ["it slept"] + [None] * (count - 1)
        if extra:
            output["score"] = [index / 2 for index in range(count)]
        return output  # type: ignore[return-value]


class Ask(Task):
    @property
    def inputs(self) -> list[str]:
        return ["instruction"]

    @property
    def outputs(self) -> list[str]:
        return ["generation", "model_name"]

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 (distilabel's name)
        if input["instruction"] == "unaskable":
            raise LookupError("nothing to ask")
        return [{"role": "user", "content": input["instruction"]}]

    def format_output(self, output: str | None, input: Row | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        assert output is not None
        assert input is not None
        if input["instruction"] == "unreadable":
            raise json.JSONDecodeError("no JSON", output, 0)
        return {"generation": output}


def run(*instructions: str, rows: list[Row] | None = None, **fields: Any) -> list[Row]:
    inputs = rows or [{"instruction": instruction} for instruction in instructions]
    before = copy.deepcopy(inputs)
    outputs = Ask(name="tg", llm=fields.pop("llm", Numbered()), **fields).run_process(inputs)
    assert inputs == before
    return outputs


def test_a_row_per_generation() -> None:
    rows = run("hi", num_generations=2)
    assert rows[0] == {
        "instruction": "hi",
        "generation": "g0",
        "model_name": "numbered",
        "distilabel_metadata": {
            "raw_output_tg": "g0",
            "raw_input_tg": CHAT,
            "statistics_tg": {"input_tokens": 1, "output_tokens": 2},
        },
    }
    assert [row["generation"] for row in rows] == ["g0", "g1"]


def test_one_row_with_lists_when_grouped() -> None:
    rows = run("hi", "ho", num_generations=2, group_generations=True, add_raw_input=False)
    assert len(rows) == 2
    assert rows[0] == {
        "instruction": "hi",
        "generation": ["g0", "g1"],
        "model_name": "numbered",
        "distilabel_metadata": [
            {"raw_output_tg": "g0", "statistics_tg": {"input_tokens": 1, "output_tokens": 2}},
            {"raw_output_tg": "g1", "statistics_tg": {"input_tokens": 1, "output_tokens": 2}},
        ],
    }


def test_metadata_can_be_left_out_but_for_the_tokens() -> None:
    (row,) = run("hi", add_raw_input=False, add_raw_output=False)
    assert row["distilabel_metadata"] == {"statistics_tg": {"input_tokens": 1, "output_tokens": 2}}


def test_further_lists_of_the_model_become_columns() -> None:
    rows = run("hi", num_generations=2, llm=Numbered(generation_kwargs={"extra": True}))
    assert [row["llm_tg_score"] for row in rows] == [0.0, 0.5]


def test_metadata_of_a_row_is_added_to() -> None:
    rows = run(
        rows=[
            {"instruction": "hi", "distilabel_metadata": {"raw_output_before": "x", "raw_output_tg": "old"}}
        ]
    )
    assert rows[0]["distilabel_metadata"] == {
        "raw_output_before": "x",
        "raw_output_tg": "g0",
        "raw_input_tg": CHAT,
        "statistics_tg": {"input_tokens": 1, "output_tokens": 2},
    }


def test_metadata_of_grouped_generations_is_added_to_as_lists() -> None:
    before = [{"raw_output_before": "a"}, {"raw_output_before": "b", "error_before": "e"}]
    (row,) = run(rows=[{"instruction": "hi", "distilabel_metadata": before}], add_raw_input=False)
    assert row["distilabel_metadata"]["raw_output_before"] == ["a", "b"]
    assert row["distilabel_metadata"]["error_before"] == [None, "e"]
    assert row["distilabel_metadata"]["raw_output_tg"] == "g0"


@pytest.mark.parametrize(
    ("instruction", "told", "raw_output"),
    [
        ("silent", "the model gave no text", None),
        ("silent with reason", "it slept", None),
        ("unreadable", "the answer can't be read: JSONDecodeError: no JSON: line 1 column 1 (char 0)", "g0"),
        ("unaskable", "the prompt can't be made: LookupError: nothing to ask", None),
    ],
)
def test_a_failed_row_stays_in_its_place_with_the_reason(
    instruction: str, told: str, raw_output: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        rows = run("hi", instruction, "ho")
    assert [row["generation"] for row in rows] == ["g0", None, "g0"]
    assert [row["model_name"] for row in rows] == ["numbered"] * 3
    metadata = rows[1]["distilabel_metadata"]
    assert metadata["error_tg"] == told
    assert metadata["raw_output_tg"] == raw_output
    assert (metadata["raw_input_tg"] is None) == (instruction == "unaskable")
    assert ("statistics_tg" in metadata) == (instruction != "unaskable")
    assert [Ask(name="tg", llm=Numbered()).row_error(row) for row in rows] == [None, told, None]
    assert f"1 of 3 rows failed; the first: {told}" in caplog.text


def test_only_the_generation_that_failed_is_failed() -> None:
    task = Ask(name="tg", llm=Numbered())
    rows = run("silent", num_generations=2)
    assert [row["generation"] for row in rows] == [None, "g1"]
    assert [bool(task.row_error(row)) for row in rows] == [True, False]
    (grouped,) = run("silent", num_generations=2, group_generations=True)
    assert grouped["generation"] == [None, "g1"]
    assert task.row_error(grouped) == "the model gave no text"


def test_rows_as_the_cache_gives_them_tell_their_errors() -> None:
    task = Ask(name="tg", llm=Numbered())
    assert task.row_error({"distilabel_metadata": {"error_tg": None}}) is None
    assert task.row_error({"distilabel_metadata": None}) is None
    assert task.row_error({}) is None
    assert task.row_error({"distilabel_metadata": {"error_other": "x"}}) is None
    assert task.row_error({"distilabel_metadata": [{"error_tg": None}, {"error_tg": "x"}]}) == "x"


def test_no_call_is_made_for_rows_without_a_prompt() -> None:
    class Unreachable(Numbered):
        def generate(self, inputs: list[ChatType], num_generations: int = 1, extra: bool = False) -> Any:
            raise AssertionError("called")

    rows = run("unaskable", "unaskable", llm=Unreachable(), num_generations=2)
    assert [row["generation"] for row in rows] == [None] * 4


def test_a_model_that_raises_fails_the_batch() -> None:
    class Broken(Numbered):
        def generate(self, inputs: list[ChatType], num_generations: int = 1, extra: bool = False) -> Any:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run("hi", llm=Broken())


def test_output_mappings_rename_the_tasks_columns() -> None:
    (row,) = run("hi", output_mappings={"generation": "question"})
    assert row["question"] == "g0"
    assert "generation" not in row


def test_the_model_is_loaded_and_unloaded_with_the_task() -> None:
    llm = Numbered()
    first, second = Ask(name="a", llm=llm), Ask(name="b", llm=llm)
    first.load()
    second.load()
    first.unload()
    assert llm.loads == 1


def test_the_models_parameters_are_the_tasks() -> None:
    task = Ask(name="tg", llm=Numbered())
    task.set_runtime_parameters({"num_generations": 3, "llm": {"generation_kwargs": {"extra": True}}})
    (row, *others) = task.run_process([{"instruction": "hi"}])
    assert len(others) == 2
    assert row["llm_tg_score"] == 0.0


def test_a_task_can_be_sent_to_another_process() -> None:
    task = Ask(name="tg", llm=Numbered())
    task.run_process([{"instruction": "hi"}])
    copied = pickle.loads(pickle.dumps(task))
    assert copied.run_process([{"instruction": "hi"}]) == task.run_process([{"instruction": "hi"}])


class Insist(Ask):
    """Asks again, up to twice, about answers that don't say "please"."""

    turns: int = 2

    @property
    def follow_up_turns(self) -> int:
        return self.turns

    def format_output(self, output: str | None, input: Row | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        if "please" not in str(output):
            raise ValueError("how rude")
        return {"generation": output}

    def follow_up(self, messages: ChatType, output: str, error: str) -> ChatType | None:
        if "never" in output:
            return None
        return [*messages, {"role": "assistant", "content": output}, {"role": "user", "content": error}]


def converse(task: Insist, rows: list[Row], *answers: list[list[str | None]]) -> tuple[list[Any], list[Row]]:
    """Go through a conversation with given answers; give the questions of each turn and the rows."""
    talk = task.converse(rows)
    turns = [next(talk)]
    try:
        for answer in answers:
            turns.append(  # noqa: PERF401  (those before the end are looked at)
                talk.send(
                    [
                        {"generations": texts, "statistics": {"output_tokens": [1] * len(texts)}}
                        for texts in answer
                    ]
                )
            )
    except StopIteration as end:
        return turns, end.value
    raise AssertionError("it isn't over")


ROWS: list[Row] = [{"instruction": "a"}, {"instruction": "unaskable"}, {"instruction": "b"}]


def test_what_cannot_be_read_is_followed_up_generation_by_generation() -> None:
    task = Insist(name="tg", llm=Numbered(), num_generations=2)
    turns, rows = converse(
        task,
        ROWS,
        [["please 1", "no"], ["never", None]],
        [["hm"]],
        [["please 2"]],
    )
    assert [[(each.row, each.sample, each.num_generations) for each in turn] for turn in turns] == [
        [(0, None, 2), (2, None, 2)],
        [(0, 1, 1)],
        [(0, 1, 1)],
    ]
    assert [row["generation"] for row in rows] == ["please 1", "please 2", None, None, None, None]
    assert rows[1]["distilabel_metadata"]["statistics_tg"] == {"output_tokens": 3}
    assert rows[1]["distilabel_metadata"]["raw_output_tg"] == "please 2"
    assert [task.row_error(row) is not None for row in rows] == [False, False, True, True, True, True]
    assert "how rude" in str(task.row_error(rows[4]))
    assert task.row_error(rows[5]) == "the model gave no text"


def test_a_follow_up_without_an_answer_leaves_the_one_before() -> None:
    turns, rows = converse(Insist(name="tg", llm=Numbered(), turns=1), ROWS[:1], [["no"]], [[None]])
    assert len(turns) == 2
    assert rows[0]["generation"] is None
    assert rows[0]["distilabel_metadata"]["raw_output_tg"] == "no"
    assert "how rude" in rows[0]["distilabel_metadata"]["error_tg"]


def test_conversations_are_in_the_pipelines_column_names() -> None:
    task = Insist(
        name="tg",
        llm=Numbered(),
        input_mappings={"instruction": "text"},
        output_mappings={"generation": "said"},
    )
    talk = task.converse_mapped([{"text": "a"}])
    (question,) = next(talk)
    assert question.content == [{"role": "user", "content": "a"}]
    with pytest.raises(StopIteration) as end:
        talk.send([{"generations": ["please"]}])
    (row,) = end.value.value
    assert (row["text"], row["said"]) == ("a", "please")
