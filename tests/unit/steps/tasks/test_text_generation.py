"""TextGeneration: templates, system prompts, and which mistakes are seen at once."""

import pickle
from typing import Any

import pytest

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.models import LLM, ChatType, GenerateOutput
from distilabel_dagster.steps.tasks import TextGeneration


class Echo(LLM):
    @property
    def model_name(self) -> str:
        return "echo"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        return [{"generations": [str(chat[-1]["content"])] * num_generations} for chat in inputs]


def make_task(**fields: Any) -> TextGeneration:
    return TextGeneration(name="tg", llm=Echo(), **fields)


def test_the_instruction_is_the_message_by_default() -> None:
    task = make_task()
    assert task.format_input({"instruction": "hi"}) == [{"role": "user", "content": "hi"}]
    assert task.inputs == {"instruction": True, "system_prompt": False}
    assert task.outputs == ["generation", "model_name"]
    (row,) = task.run_process([{"instruction": "hi", "other": 1}])
    assert (row["generation"], row["model_name"], row["other"]) == ("hi", "echo", 1)


def test_templates_are_filled_with_columns() -> None:
    task = make_task(
        template="{% for tag in tags %}[{{ tag | upper }}]{% endfor %} {{ text }}\n{{ range(2) | list }}",
        columns=["text", "tags"],
    )
    content = task.format_input({"text": "<b>", "tags": ["x", "y"]})[0]["content"]
    assert content == "[X][Y] <b>\n[0, 1]"


@pytest.mark.parametrize(
    ("fields", "row", "system"),
    [
        ({}, {}, None),
        ({}, {"system_prompt": "row's"}, "row's"),
        ({}, {"system_prompt": None}, None),
        ({"system_prompt": "task's"}, {"system_prompt": "row's"}, "task's"),
        ({"system_prompt": "task's"}, {}, "task's"),
        ({"system_prompt": "task's", "use_system_prompt": False}, {"system_prompt": "row's"}, None),
    ],
)
def test_which_system_prompt_is_sent(fields: dict[str, Any], row: dict[str, Any], system: str | None) -> None:
    messages = make_task(**fields).format_input({"instruction": "hi", **row})
    assert [m["content"] for m in messages if m["role"] == "system"] == ([system] if system else [])
    assert messages[-1] == {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"template": "{{ instruction "}, "line 1 isn't Jinja2's syntax"),
        ({"template": "a\n{% if %}"}, "line 2 isn't Jinja2's syntax"),
        ({"template": "{{ instruction | nofilter }}"}, "No filter named 'nofilter'"),
        (
            {"template": "{{ text }} {{ txet }}", "columns": ["text"]},
            "reads `txet`, which isn't among its columns `text`. Did you mean `text`?",
        ),
        ({"columns": "text"}, "reads `instruction`, which isn't among its columns `text`"),
        ({"columns": ["instruction", "text"]}, "`columns` names `text`, which the template"),
        ({"columns": []}, "isn't among its columns"),
    ],
)
def test_mistakes_in_a_template_are_told_at_once(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(PipelineDefinitionError) as raised:
        make_task(**fields)
    assert told in str(raised.value)


def test_none_is_no_prompt_unless_the_template_says_so() -> None:
    task = make_task()
    (row,) = task.run_process([{"instruction": None}])
    assert row["generation"] is None
    assert "is None" in (task.row_error(row) or "")
    lenient = make_task(template="{{ instruction or 'nothing' }}")
    assert lenient.run_process([{"instruction": None}])[0]["generation"] == "nothing"


def test_a_row_without_the_column_fails_alone() -> None:
    task = make_task()
    rows = task.run_process([{"other": 1}, {"instruction": "hi"}])
    assert [row["generation"] for row in rows] == [None, "hi"]
    assert "'instruction' is undefined" in (task.row_error(rows[0]) or "")


def test_templates_cant_leave_the_sandbox() -> None:
    task = make_task(template="{{ instruction.__class__.__mro__ }}{{ instruction.append(1) }}")
    (row,) = task.run_process([{"instruction": ["x"]}])
    assert "unsafe" in (task.row_error(row) or "")
    assert row["instruction"] == ["x"]


def test_prompts_are_identity() -> None:
    def signature(**fields: Any) -> str:
        return compute_signature(describe_identity(make_task(**fields)))

    signatures = [
        signature(),
        signature(template="{{ instruction }}!"),
        signature(system_prompt="be brief"),
        signature(num_generations=2),
    ]
    assert len(set(signatures)) == 4
    assert signature(input_batch_size=7) == signatures[0]


def test_a_used_task_can_be_sent_to_another_process() -> None:
    task = make_task(template="{{ instruction }}!")
    task.run_process([{"instruction": "hi"}])
    copied = pickle.loads(pickle.dumps(task))
    assert copied.run_process([{"instruction": "hi"}])[0]["generation"] == "hi!"
