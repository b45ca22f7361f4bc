"""StructuredGeneration: where the schema goes, what is checked, and what is asked again."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel, field_validator

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.errors import PipelineDefinitionError, PipelineFileError
from distilabel_dagster.steps.tasks import StructuredGeneration
from tests.unit.steps.tasks.models import SchemaFollowing, Scripted


class Bird(BaseModel):
    name: str
    legs: int = 2
    seen_on: dt.date | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if value == "bat":
            raise ValueError("a bat is no bird")
        return value


class Unwritable(BaseModel):
    call: Callable[[], None]


BIRD = Bird.model_json_schema()
WREN = '{"name": "wren"}'
PLAIN = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ROW = {"instruction": "Name a bird."}


def make_task(*answers: str | None, **fields: Any) -> StructuredGeneration:
    fields.setdefault("schema", PLAIN)
    llm = fields.pop("llm", None) or Scripted(answers=list(answers) or [WREN])
    return StructuredGeneration(name="invent", llm=llm, **fields)


@pytest.mark.parametrize(
    ("schema", "answer", "generation"),
    [
        (PLAIN, WREN, {"name": "wren"}),
        (PLAIN, '```json\n{"name": "Rotkehlchen 🐦", "more": null}\n```', {"name": "Rotkehlchen 🐦", "more": None}),
        (PLAIN, '<think>A {"name": 3}?</think>\n{"name": "wren"}', {"name": "wren"}),
        (PLAIN, '{"name": "</think>"}', {"name": "</think>"}),
        (PLAIN, 'Hm, {"name": 3}\n</think>{"name": "wren"}', {"name": "wren"}),
        (Bird, WREN, {"name": "wren", "legs": 2, "seen_on": None}),
        (Bird, '{"name": "wren", "seen_on": "2024-05-01"}', {"name": "wren", "legs": 2, "seen_on": "2024-05-01"}),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
    ],
)  # fmt: skip
def test_an_answer_that_follows_the_schema_is_given_as_json(
    schema: Any, answer: str, generation: Any
) -> None:
    (row,) = make_task(answer, schema=schema).run_process([ROW])
    assert json.loads(row["generation"]) == generation
    assert row["distilabel_metadata"]["raw_output_invent"] == answer
    assert "\\u" not in row["generation"]


@pytest.mark.parametrize(
    ("schema", "answer", "told"),
    [
        (PLAIN, "a wren", "the answer isn't JSON"),
        (PLAIN, '{"name": "wr', "the answer isn't JSON"),
        (PLAIN, '{"name": 3}', "`name`: 3 is not of type 'string'"),
        (Bird, "{}", "`name`: Field required"),
        (Bird, '{"name": "bat"}', "a bat is no bird"),
        (Bird, '{"name": "wren", "legs": "many"}', "`legs`: Input should be a valid integer"),
    ],
)
def test_one_that_doesnt_fails_its_row_and_is_kept(schema: Any, answer: str, told: str) -> None:
    task = make_task(answer, WREN, schema=schema)
    rows = task.run_process([ROW, ROW])
    assert [row["generation"] is None for row in rows] == [True, False]
    assert rows[0]["distilabel_metadata"]["raw_output_invent"] == answer
    assert told in (task.row_error(rows[0]) or "")


def test_the_schema_goes_with_the_request_where_the_model_takes_it() -> None:
    llm = SchemaFollowing(answer=WREN)
    make_task(llm=llm, schema=Bird).run_process([ROW])
    assert llm.asked == [([{"role": "user", "content": "Name a bird."}], {"schema": BIRD})]


@pytest.mark.parametrize(
    ("llm", "fields"),
    [
        (Scripted(answers=[WREN]), {}),
        (SchemaFollowing(answer=WREN), {"use_default_structured_output": False}),
    ],
)
def test_and_is_written_below_the_prompt_elsewhere(llm: Any, fields: dict[str, Any]) -> None:
    task = make_task(llm=llm, schema=Bird, system_prompt="You know birds.", **fields)
    (row,) = task.run_process([ROW])
    system, user = row["distilabel_metadata"]["raw_input_invent"]
    assert system == {"role": "system", "content": "You know birds."}
    prompt, _, schema = user["content"].rpartition("\n")
    assert prompt.startswith("Name a bird.\n\n")
    assert json.loads(schema) == BIRD
    if isinstance(llm, SchemaFollowing):
        assert [structure for _, structure in llm.asked] == [None]


def test_rows_are_no_templates() -> None:
    task = make_task(template="About {{ topic }}:", columns="topic")
    (message,) = task.format_input({"topic": "{{ 7 * 7 }}{% raw %}"})
    assert str(message["content"]).startswith("About {{ 7 * 7 }}{% raw %}:")


def test_each_row_may_bring_its_schema() -> None:
    legs = {"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"]}
    structures = [{"format": "json", "schema": PLAIN}, json.dumps({"schema": legs, "name": "legs"})]
    rows = [{**ROW, "structured_output": structure} for structure in structures]
    llm = SchemaFollowing(answer=WREN)
    task = make_task(llm=llm, schema=None)
    assert task.inputs == {"instruction": True, "system_prompt": False, "structured_output": True}
    named, legged = task.run_process(rows)
    assert [structure for _, structure in llm.asked] == [{"schema": PLAIN}, {"schema": legs, "name": "legs"}]
    assert json.loads(named["generation"]) == {"name": "wren"}
    assert legged["generation"] is None
    assert "'legs' is a required property" in (task.row_error(legged) or "")


def test_schemas_of_rows_survive_a_table() -> None:
    other = {"type": "object", "properties": {"legs": {"type": "integer"}}}
    rows = [{**ROW, "structured_output": {"schema": schema}} for schema in (PLAIN, other)]
    read = pa.Table.from_pylist(rows).to_pylist()
    assert read != rows
    llm = SchemaFollowing(answer=WREN)
    make_task(llm=llm, schema=None).run_process(read)
    assert [structure["schema"] for _, structure in llm.asked] == [PLAIN, other]


@pytest.mark.parametrize(
    ("structure", "told"),
    [
        (None, "column `structured_output` is None; expected"),
        (3, "column `structured_output` is a int; expected"),
        ("{", "column `structured_output` is text, but no JSON"),
        ("[]", "column `structured_output` is a list"),
        ({}, "column `structured_output`: it has no `schema`"),
        ({"format": "regex", "schema": "a+"}, "`format` is 'regex'"),
        ({"schema": {"type": "bird"}}, "not a valid JSON schema"),
    ],
)
def test_a_row_without_a_sound_schema_fails_without_a_call(structure: Any, told: str) -> None:
    llm = Scripted(answers=[WREN])
    task = make_task(llm=llm, schema=None)
    sound = {**ROW, "structured_output": {"schema": PLAIN}}
    rows = task.run_process([{**ROW, "structured_output": structure}, sound])
    assert told in (task.row_error(rows[0]) or "")
    assert task.row_error(rows[1]) is None
    assert len(llm.asked) == 1


def test_properties_become_columns_where_that_is_wanted() -> None:
    task = make_task(WREN, "nothing", schema=Bird, fields_as_columns=True)
    assert task.outputs == ["generation", "name", "legs", "seen_on", "model_name"]
    found, failed = task.run_process([ROW, ROW])
    assert (found["name"], found["legs"], found["seen_on"]) == ("wren", 2, None)
    assert (failed["name"], failed["legs"], failed["model_name"]) == (None, None, "scripted")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"schema": None, "fields_as_columns": True}, "there's no `schema` of an object with properties"),
        ({"schema": {"type": "array"}, "fields_as_columns": True}, "there's no `schema` of an object with properties"),
        ({"schema": {"type": "object", "properties": {"generation": {}}}, "fields_as_columns": True}, "property `generation` is called as a column"),
        ({"schema": {"properties": {"a": {}}}, "fields_as_columns": True}, "there's no `schema` of an object with properties"),
        ({"schema": Unwritable}, "`schema`: `Unwritable` has no JSON schema"),
        ({"schema": {"type": "bird"}}, "`schema`: not a valid JSON schema"),
        ({"schema": int}, "`schema`: expected a pydantic class or a JSON schema"),
        ({"schema": "a bird"}, "`schema`: expected a pydantic class or a JSON schema"),
        ({"repair_turns": -1}, "`repair_turns`"),
    ],
)  # fmt: skip
def test_mistakes_are_told_at_once(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(PipelineDefinitionError) as raised:
        make_task(**fields)
    assert told in str(raised.value)


def test_an_answer_is_given_back_with_what_is_wrong() -> None:
    llm = Scripted(answers=['{"name": 3}', WREN])
    task = make_task(llm=llm, repair_turns=2)
    (row,) = task.run_process([ROW])
    assert json.loads(row["generation"]) == {"name": "wren"}
    first, second = llm.asked
    assert second[: len(first)] == first
    assert second[-2] == {"role": "assistant", "content": '{"name": 3}'}
    assert (
        "That answer can't be used: the answer doesn't follow the schema: `name`: 3" in second[-1]["content"]
    )
    metadata = row["distilabel_metadata"]
    assert metadata["statistics_invent"] == {"input_tokens": 20, "output_tokens": 2}
    assert metadata["raw_output_invent"] == WREN
    assert metadata["raw_input_invent"] == first
    assert task.row_error(row) is None


def test_only_failed_answers_are_given_back_and_no_more_often_than_told() -> None:
    llm = Scripted(answers=[WREN, "one", "two", "three", "four"])
    task = make_task(llm=llm, repair_turns=2)
    good, bad = task.run_process([ROW, ROW])
    assert json.loads(good["generation"]) == {"name": "wren"}
    assert bad["generation"] is None
    assert bad["distilabel_metadata"]["raw_output_invent"] == "three"
    assert [messages[-2]["content"] for messages in llm.asked[2:]] == ["one", "two"]
    assert good["distilabel_metadata"]["statistics_invent"]["input_tokens"] == 10
    assert bad["distilabel_metadata"]["statistics_invent"]["input_tokens"] == 30


def test_each_generation_is_mended_by_itself() -> None:
    task = make_task(
        WREN, "bad", '{"name": "owl"}', repair_turns=1, num_generations=2, group_generations=True
    )
    (row,) = task.run_process([ROW])
    assert [json.loads(text)["name"] for text in row["generation"]] == ["wren", "owl"]


def test_a_missing_answer_isnt_given_back() -> None:
    llm = Scripted(answers=[None])
    task = make_task(llm=llm, repair_turns=2)
    (row,) = task.run_process([ROW])
    assert task.row_error(row) == "the model gave no text"
    assert len(llm.asked) == 1


def test_the_schema_with_its_validators_is_identity() -> None:
    def signature(**fields: Any) -> str:
        return compute_signature(describe_identity(make_task(**fields)))

    class Fish(BaseModel):
        name: str

    class Eel(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def _check_name(cls, value: str) -> str:
            return value.strip()

    signatures = [
        signature(),
        signature(schema=Bird),
        signature(schema=BIRD),
        signature(schema=Fish),
        signature(schema=Eel),
        signature(repair_turns=1),
        signature(use_default_structured_output=False),
    ]
    assert len(set(signatures)) == len(signatures)
    assert signature(schema=Bird) == signatures[1]


def test_a_class_is_dumped_as_where_its_defined_and_found_again() -> None:
    task = make_task(schema=Bird)
    dumped = json.loads(json.dumps(task.dump()))
    assert dumped["output_schema"] == {"pydantic_class": {"module": __name__, "name": "Bird"}}
    again = StructuredGeneration.from_dict(dumped)
    assert again.output_schema is Bird
    assert describe_identity(again) == describe_identity(task)


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"module": "never_imported", "name": "Bird"}, "import `never_imported` before the pipeline is read"),
        ({"module": __name__, "name": "make_task"}, "is no pydantic class"),
        ({"module": __name__, "name": "Gone"}, "has no `Gone`"),
        ({"module": "os", "name": "system"}, "is no pydantic class"),
        ("Bird", "expected a `type_info`"),
    ],
)
def test_a_class_that_cant_be_found_is_refused(info: Any, told: str) -> None:
    dumped = {**make_task(schema=Bird).dump(), "output_schema": {"pydantic_class": info}}
    with pytest.raises(PipelineFileError) as raised:
        StructuredGeneration.from_dict(dumped)
    assert told in str(raised.value)
