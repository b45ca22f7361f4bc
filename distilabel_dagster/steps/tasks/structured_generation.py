"""`StructuredGeneration`: an answer in JSON that follows a schema, checked against it."""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.errors import PydanticInvalidForJsonSchema
from typing_extensions import Self

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.base.serializable import resolve_attribute, type_info_of
from distilabel_dagster.batch import Row
from distilabel_dagster.errors import UntrustedClassError
from distilabel_dagster.models.llm import ChatType
from distilabel_dagster.models.structured_output import check_structured_output, schema_of, validate
from distilabel_dagster.steps.tasks.absent_keys import drop_absent
from distilabel_dagster.steps.tasks.answers import without_reasoning
from distilabel_dagster.steps.tasks.checked_task import CheckedTask
from distilabel_dagster.steps.tasks.template_task import TemplateTask

_CLASS: Final = "pydantic_class"
_COLUMN: Final = "structured_output"
_OWN_COLUMNS: Final = ("generation", "model_name")
_FORM: Final = "Answer with JSON that follows this JSON schema, and with nothing else:"


class StructuredGeneration(TemplateTask, CheckedTask):
    """Generate JSON that follows a schema: one for all rows, or one that each row brings.

    The schema goes with the request to models that can be held to one, and is written below the prompt for others.
    Either way the answer is checked. One that is no JSON or doesn't follow the schema fails its row, with the text
    kept as the raw output, after `repair_turns` chances to correct it.

    A pydantic class is more than its JSON schema: its own validators run, and its defaults are filled in. In
    pipeline.yaml stands where it's defined; to read that, its module must have been imported.

    Attributes:
        schema: a pydantic class or a JSON schema for all rows. Without it, each row has its own in the column
            `structured_output`. As an attribute of the task it's called `output_schema`.
        fields_as_columns: give a column for each property of `schema` too, which must be an object's. Without it a
            row's data are in `generation` alone: schemas of rows may differ, and a column has one type.
        template: the user message; see `TextGeneration`.
        columns: the columns that the template reads; one name or a list.
        system_prompt: the system message of every row; without it, that in the row's column `system_prompt`.
        use_system_prompt: False sends no system message at all.
        use_default_structured_output: False never sends the schema with the request, and writes it below the prompt.
        repair_turns: how often the model is asked to correct an answer that can't be used.

    Runtime parameters:
        - `num_generations`, `add_raw_output`, `add_raw_input`, and those of the model: see `Task`.

    Input columns:
        - dynamic (determined by `columns`, `instruction` by default): what the template reads.
        - system_prompt (`str`, optional): the row's system message.
        - structured_output (`dict[str, Any]` or the same as JSON text, without `schema` only): the row's schema,
            `{"format": "json", "schema": {…}}`, if wanted with `name` and `strict`. Schemas that differ from row to row are better given as text: a
            table gives each dict in a column the keys of all of them, as None. Such keys are taken as absent.

    Output columns:
        - generation (`str`): the answer as JSON text.
        - dynamic (with `fields_as_columns`): the properties of the schema.
        - model_name (`str`): the model that was asked.

    References:
        - [JSON Schema](https://json-schema.org)

    Examples:
        >>> from distilabel_dagster.models import LLM
        >>> class Poet(LLM):
        ...     @property
        ...     def model_name(self):
        ...         return "poet"
        ...     def generate(self, inputs, num_generations=1):
        ...         said = ['{"name": "Ada"}' if len(each) == 1 else '{"name": "Ada", "age": 36}' for each in inputs]
        ...         return [{"generations": [text] * num_generations} for text in said]
        >>> person = {
        ...     "type": "object",
        ...     "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        ...     "required": ["name", "age"],
        ... }
        >>> invent = StructuredGeneration(name="invent", llm=Poet(), schema=person, fields_as_columns=True)
        >>> (row,) = invent.run_process([{"instruction": "Invent a person."}])
        >>> row["generation"], invent.row_error(row)
        (None, "the answer can't be read: ValueError: the answer doesn't follow the schema: 'age' is a required property")

        With a chance to correct it:

        >>> invent.repair_turns = 1
        >>> (row,) = invent.run_process([{"instruction": "Invent a person."}])
        >>> row["generation"], row["age"]
        ('{"name": "Ada", "age": 36}', 36)
    """

    model_config = ConfigDict(populate_by_name=True)

    # pydantic keeps the name `schema` to itself.
    output_schema: type[BaseModel] | dict[str, Any] | None = Field(default=None, alias="schema")
    fields_as_columns: bool = False
    use_default_structured_output: bool = True

    @field_validator("output_schema", mode="before")
    @classmethod
    def _find_class(cls, value: Any) -> Any:
        """Give the class that `dump` wrote the place of, and check a schema."""
        if isinstance(value, Mapping) and set(value) == {_CLASS}:
            return _resolve_class(value[_CLASS])
        if value is None:
            return None
        try:
            schema = schema_of(value)
        except PydanticInvalidForJsonSchema as error:
            raise ValueError(f"`{value.__name__}` has no JSON schema: {error.message}") from error
        return value if isinstance(value, type) else schema

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if not self.fields_as_columns:
            return self
        properties = self._properties()
        if not properties:
            raise ValueError(
                "`fields_as_columns` makes columns of an object's properties, and there's no `schema` of an object with "
                "properties. Pass one, or leave it out"
            )
        taken = next((name for name in _OWN_COLUMNS if name in properties), None)
        if taken is not None:
            raise ValueError(f"the schema's property `{taken}` is called as a column of the task; rename it")
        return self

    def _properties(self) -> list[str]:
        schema = {} if self.output_schema is None else _as_data(self.output_schema)
        return list(schema.get("properties", {})) if schema.get("type") == "object" else []

    def dump(self) -> dict[str, Any]:
        """Give the fields as plain data; of a pydantic class, where it's defined."""
        dumped = super().dump()
        if isinstance(self.output_schema, type):
            dumped["output_schema"] = {_CLASS: dict(type_info_of(self.output_schema))}
        return dumped

    @property
    def inputs(self) -> dict[str, bool]:
        """What the template reads, `system_prompt` where a row has it, and the row's schema if there's no other."""
        columns = super().inputs
        if self.output_schema is None:
            columns[_COLUMN] = True
        return columns

    @property
    def outputs(self) -> StepColumns:
        """The answer, its properties if they're wanted, and which model gave it."""
        properties = self._properties() if self.fields_as_columns else []
        return ["generation", *properties, "model_name"]

    def get_structured_output(self) -> type[BaseModel] | dict[str, Any] | None:
        """Give the schema of all rows."""
        return self.output_schema

    def structure_for(self, row: Row) -> dict[str, Any] | None:
        """Give the schema that goes with the request for a row, and what else the row says of it."""
        if not self.use_default_structured_output:
            return None
        if self.output_schema is not None:
            return {"schema": _as_data(self.output_schema)}
        return _read_structure(row[_COLUMN])

    def _schema_for(self, row: Row) -> type[BaseModel] | dict[str, Any]:
        if self.output_schema is not None:
            return self.output_schema
        schema: dict[str, Any] = _read_structure(row[_COLUMN])["schema"]
        return schema

    @property
    def _is_schema_sent(self) -> bool:
        return self.use_default_structured_output and self.llm.supports_structured_output

    def prompt_words(self) -> list[str]:
        """Give what introduces the schema, where that is written below the prompt."""
        return [] if self._is_schema_sent else [_FORM]

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 (distilabel's name)
        """Fill the template, and write the schema below where it doesn't go with the request.

        Raises:
            ValueError: the row has no schema, or one that isn't valid.
        """
        schema = _as_data(self._schema_for(input))
        messages = self.build_messages(input)
        if self._is_schema_sent:
            return messages
        written = json.dumps(schema, ensure_ascii=False)
        messages[-1]["content"] = f"{messages[-1]['content']}\n\n{_FORM}\n{written}"
        return messages

    def format_output(self, output: str | None, input: Row | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        """Check the answer against the schema, and give it as JSON text.

        Raises:
            ValueError: it's no JSON, or doesn't follow the schema.
        """
        data = validate(without_reasoning(output or ""), self._schema_for(input or {}))
        columns = {"generation": json.dumps(data, ensure_ascii=False)}
        if self.fields_as_columns:
            columns.update({name: data.get(name) for name in self._properties()})
        return columns


def _as_data(schema: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    """Give a class's JSON schema; one that is data was checked when it came."""
    return schema.model_json_schema() if isinstance(schema, type) else schema


def _resolve_class(info: Any) -> Any:
    try:
        found = resolve_attribute(info, "`schema`")
    except UntrustedClassError as error:
        raise ValueError(
            f"its class `{error.module}.{error.name}` isn't known here; import `{error.module}` before the pipeline "
            "is read"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise ValueError(f"`{info['module']}.{info['name']}` is no pydantic class")  # noqa: TRY004 (pydantic takes a validator's ValueError)
    return found


def _read_structure(value: Any) -> dict[str, Any]:
    """Give what a row's column holds, checked: the schema, and if it says so `name` and `strict`."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"column `{_COLUMN}` is text, but no JSON: {error}") from error
    else:
        value = drop_absent(value)
    if not isinstance(value, Mapping):
        raise TypeError(
            f"column `{_COLUMN}` is {'None' if value is None else f'a {type(value).__name__}'}; expected "
            '{"format": "json", "schema": {…}}, or that as JSON text'
        )
    try:
        return check_structured_output(value)
    except ValueError as error:
        raise ValueError(f"column `{_COLUMN}`: {error}") from error
