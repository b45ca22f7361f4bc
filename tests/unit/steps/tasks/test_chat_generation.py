"""ChatGeneration: which conversations are sent, in what form, and which fail their row."""

from typing import Any

import pyarrow as pa
import pytest

from distilabel_dagster.steps.tasks import ChatGeneration
from tests.unit.steps.tasks.models import Scripted

USER = {"role": "user", "content": "Wie geht's? 🦉"}
SYSTEM = {"role": "system", "content": "Be brief."}
ASSISTANT = {"role": "assistant", "content": "Well."}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def make_task(**fields: Any) -> ChatGeneration:
    return ChatGeneration(name="chat", llm=fields.pop("llm", Scripted(answers=["fine"])), **fields)


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [SYSTEM, USER, ASSISTANT, USER],
        [{"role": "developer", "content": "x"}, USER],
        [{"role": "user", "content": [{"type": "text", "text": "{{ 7 * 7 }}"}, {"type": "image_url", "image_url": {"url": "data:,"}}]}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "3", "tool_call_id": "1"}],
    ],
)  # fmt: skip
def test_a_conversation_is_sent_as_it_is(messages: list[dict[str, Any]]) -> None:
    llm = Scripted(answers=["fine"])
    (row,) = make_task(llm=llm).run_process([{"messages": messages, "other": 1}])
    assert (row["generation"], row["model_name"], row["other"]) == ("fine", "scripted", 1)
    assert llm.asked == [messages]


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (None, "`messages` is a NoneType; expected a list of messages"),
        ("hello", "`messages` is a str; expected a list of messages"),
        ([], "`messages` is empty"),
        (["hello"], "message 1 is a str; expected"),
        ([None], "message 1 is a NoneType"),
        ([USER, {"content": "hi"}], "message 2 has the role None; expected one of `system`"),
        ([{"role": "human", "content": "hi"}], "message 1 has the role 'human'"),
        ([{"role": "user"}], "message 1, the `user`'s, has the content None"),
        ([{"role": "user", "content": ""}], "message 1, the `user`'s, has the content ''"),
        ([{"role": "user", "content": []}], "message 1, the `user`'s, has the content []"),
        ([{"role": "user", "content": 3}], "has the content 3"),
        (
            [{"role": "assistant", "content": None}, USER],
            "message 1, the `assistant`'s, has the content None",
        ),
        ([{"role": "user", "content": ["hi"]}], "part 1 of message 1 is 'hi'"),
        ([{"role": "user", "content": [{"text": "hi"}]}], "part 1 of message 1 is {'text': 'hi'}"),
        ([USER, ASSISTANT], "the last message is the `assistant`'s"),
        ([SYSTEM], "the last message is the `system`'s"),
    ],
)
def test_what_is_no_conversation_fails_its_row_without_a_call(messages: Any, told: str) -> None:
    llm = Scripted(answers=["fine"])
    task = make_task(llm=llm)
    rows = task.run_process([{"messages": messages}, {"messages": [USER]}])
    assert [row["generation"] for row in rows] == [None, "fine"]
    assert told in (task.row_error(rows[0]) or "")
    assert llm.asked == [[USER]]


def test_a_conversation_that_went_through_a_table_is_sent_as_it_was() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {"role": "assistant", "content": [{"type": "text", "text": "ho"}], "tool_calls": [CALL]},
        {"role": "tool", "content": [{"type": "text", "text": "3"}], "tool_call_id": "1"},
    ]  # fmt: skip
    read = pa.table({"messages": [messages]}).to_pylist()
    assert read[0]["messages"] != messages
    llm = Scripted(answers=["fine"])
    make_task(llm=llm).run_process(read)
    assert llm.asked == [messages]


@pytest.mark.parametrize("messages", [[USER], [SYSTEM, USER], [{"role": "developer", "content": "x"}, USER]])
def test_the_tasks_system_prompt_counts(messages: list[dict[str, Any]]) -> None:
    task = make_task(system_prompt="Answer in verse.")
    row = {"messages": messages}
    assert task.format_input(row) == [{"role": "system", "content": "Answer in verse."}, USER]
    assert row == {"messages": messages}


def test_several_answers_are_grouped() -> None:
    task = make_task(llm=Scripted(answers=["a", None, "c"]), num_generations=3, group_generations=True)
    (row,) = task.run_process([{"messages": [USER]}])
    assert row["generation"] == ["a", None, "c"]
    assert task.row_error(row) == "the model gave no text"
