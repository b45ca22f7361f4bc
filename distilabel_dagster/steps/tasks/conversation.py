"""How a task asks: each row's messages, the answers' columns, and what is asked again where one can't be read."""

from abc import abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, Field, PositiveInt

from distilabel_dagster.base.columns import all_columns, map_inputs, map_outputs
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.batch import Row, Rows
from distilabel_dagster.models.llm import (
    LLM,
    NO_ANSWER,
    ChatInput,
    ChatType,
    GenerateOutput,
    describe_failure,
)
from distilabel_dagster.steps.columns import METADATA_COLUMN
from distilabel_dagster.steps.step import BaseStep, Step, StepInput, StepOutput

_MODEL_NAME = "model_name"
_OWN_KEYS = frozenset(GenerateOutput.__annotations__)


@dataclass(frozen=True, slots=True)
class Question:
    """What a task asks its model about one row.

    Attributes:
        content: the messages, and the structure of the answer where one is asked for.
        num_generations: how many answers are wanted.
        row: index of the row in its batch.
        sample: the generation that is followed up; None for a row's first question.
    """

    content: ChatInput
    num_generations: int
    row: int
    sample: int | None = None


Conversation = Generator[list[Question], list[GenerateOutput], Rows]
"""A batch on its way: gives lists of questions, is sent their answers in order, and returns the output rows."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent for a row, or why nothing is."""

    messages: ChatType | None
    structure: dict[str, Any] | None = None
    error: str | None = None

    @property
    def content(self) -> ChatInput:
        messages = self.messages or []
        return messages if self.structure is None else (messages, self.structure)


@dataclass(frozen=True, slots=True)
class _Generation:
    """One of the answers for a row as it came and as it was read, or why there is none."""

    text: str | None
    error: str | None
    statistics: dict[str, Any]
    extra: dict[str, Any]
    columns: dict[str, Any]


class ModelStep(BaseStep):
    """A step with a language model; derive from `Task`, `GlobalTask` or `GeneratorTask`."""

    llm: LLM
    group_generations: bool = False
    add_raw_output: RuntimeParameter[bool] = Field(
        default=True, description="Whether the model's answer is kept in `distilabel_metadata`."
    )
    add_raw_input: RuntimeParameter[bool] = Field(
        default=True, description="Whether the messages to the model are kept in `distilabel_metadata`."
    )
    num_generations: RuntimeParameter[PositiveInt] = Field(
        default=1, description="The number of answers that are asked for per row."
    )
    use_default_structured_output: bool = False

    def load(self) -> None:
        """Load the model."""
        super().load()
        self.llm.load()

    def unload(self) -> None:
        """Unload the model."""
        self.llm.unload()
        super().unload()

    def get_structured_output(self) -> type[BaseModel] | dict[str, Any] | None:
        """Give the schema that answers follow under `use_default_structured_output`; None where the task has none."""
        return None


class RowTask(ModelStep, Step):
    """What `Task` and `GlobalTask` share: questions made of rows, and rows made of answers."""

    @abstractmethod
    def format_input(self, input: Row) -> ChatType:  # noqa: A002 (distilabel's name)
        """Make the messages for a row; an exception fails this row, without a call."""

    @abstractmethod
    def format_output(self, output: str | None, input: Row | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        """Read the task's output columns from an answer; an exception fails this row and keeps the answer.

        Args:
            output: the model's answer; never None, a missing one fails the row before.
            input: the row that was asked about.
        """

    def structure_for(self, row: Row) -> dict[str, Any] | None:
        """Give the structure that the answer for a row is to have, `{"schema": <JSON schema>}`; None for none.

        By default it's the task's own, where `use_default_structured_output` is set.
        """
        schema = self.get_structured_output() if self.use_default_structured_output else None
        if schema is None:
            return None
        return {"schema": schema.model_json_schema() if isinstance(schema, type) else schema}

    @property
    def follow_up_turns(self) -> int:
        """How often an answer that can't be read is followed up."""
        return 0

    def follow_up(self, messages: ChatType, output: str, error: str) -> ChatType | None:
        """Make the messages that ask again about an answer which can't be read; None lets the row fail.

        Args:
            messages: what was asked.
            output: the answer.
            error: what is wrong with it.
        """
        return None

    def row_error(self, row: Row) -> str | None:
        """Say why this task failed for an output row; None where it didn't.

        Reads `distilabel_metadata`, so it also works for rows that were read from the cache.
        """
        metadata = row.get(METADATA_COLUMN)
        entries = metadata if isinstance(metadata, list) else [metadata]
        errors = [entry.get(self._error_key) for entry in entries if isinstance(entry, dict)]
        return next((str(error) for error in errors if error is not None), None)

    @property
    def _error_key(self) -> str:
        return f"error_{self.name}"

    def process(self, inputs: StepInput) -> StepOutput:  # type: ignore[override]  # a task has one predecessor
        """Ask the model about each row; yields once, the rows in the order of the inputs and their generations."""
        conversation = self.converse(inputs)
        kwargs = self.llm.get_generation_kwargs()
        try:
            questions = next(conversation)
            while True:
                # Questions of one turn want equally many answers.
                wanted = questions[0].num_generations if questions else 1
                answers = self.llm.generate_outputs(
                    [question.content for question in questions], num_generations=wanted, **kwargs
                )
                questions = conversation.send(answers)
        except StopIteration as end:
            yield end.value

    def converse_mapped(self, rows: Rows) -> Conversation:
        """Converse about rows under the pipeline's column names."""
        if not (self.input_mappings or self.output_mappings):
            return (yield from self.converse(rows))
        mapped, covered = map_inputs(rows, self.input_mappings)
        outputs = yield from self.converse(mapped)
        return map_outputs(outputs, self.input_mappings, self.output_mappings, covered)

    def converse(self, rows: Rows) -> Conversation:
        """Ask about rows: one turn for all of them, then turns for answers that can't be read, if any may come.

        The engine goes through it too, and has the answers of several batches under way meanwhile; only the code of
        a task that overrides `process` is called with one batch after another.
        """
        wanted = self.num_generations or 1
        requests = [self._format_request(row) for row in rows]
        asked = [index for index, request in enumerate(requests) if request.messages is not None]
        outputs = yield [Question(requests[index].content, wanted, index) for index in asked]
        made: list[list[_Generation]] = [
            [_Generation(None, request.error, {}, {}, self._no_columns()) for _ in range(wanted)]
            for request in requests
        ]
        for index, output in zip(asked, outputs, strict=True):
            made[index] = [self._read_answer(each, rows[index]) for each in _iter_generations(output)]
        for _ in range(self.follow_up_turns):
            questions = list(self._iter_follow_ups(requests, made))
            if not questions:
                break
            outputs = yield questions
            for question, output in zip(questions, outputs, strict=True):
                before = made[question.row][question.sample or 0]
                (answer,) = _iter_generations(output)
                again = self._read_answer(answer, rows[question.row])
                made[question.row][question.sample or 0] = _join_turns(before, again)
        return self._make_rows(rows, requests, made)

    def _iter_follow_ups(self, requests: list[_Request], made: list[list[_Generation]]) -> Iterator[Question]:
        for row, (request, generations) in enumerate(zip(requests, made, strict=True)):
            for sample, generation in enumerate(generations):
                if generation.error is None or generation.text is None:
                    continue
                messages = self.follow_up(request.messages or [], generation.text, generation.error)
                if messages is not None:
                    yield Question(replace(request, messages=messages).content, 1, row, sample)

    def _make_rows(self, rows: Rows, requests: list[_Request], made: list[list[_Generation]]) -> Rows:
        outputs: Rows = []
        failed: list[str] = []
        for row, request, generations in zip(rows, requests, made, strict=True):
            columns = [self._format_generation(generation, request, row) for generation in generations]
            grouped = self.group_generations
            added = [self._group(row, columns)] if grouped else [{**row, **each} for each in columns]
            failed += [error for error in map(self.row_error, added) if error is not None]
            outputs += added
        if failed:
            self._logger.warning("%d of %d rows failed; the first: %s", len(failed), len(outputs), failed[0])
        return outputs

    def _format_request(self, row: Row) -> _Request:
        try:
            return _Request(self.format_input(row), self.structure_for(row))
        except Exception as error:  # noqa: BLE001 (one row's failure, in code that users write, is that row's only)
            return _Request(None, error=f"the prompt can't be made: {describe_failure(error)}")

    def _no_columns(self) -> dict[str, Any]:
        return dict.fromkeys(all_columns(self.outputs))

    def _read_answer(self, generation: _Generation, row: Row) -> _Generation:
        """Add the columns that `format_output` reads from the answer, or why it can't."""
        if generation.text is None:
            return replace(generation, columns=self._no_columns())
        try:
            return replace(generation, columns=dict(self.format_output(generation.text, row)))
        except Exception as error:  # noqa: BLE001 (one row's failure, in code that users write, is that row's only)
            told = f"the answer can't be read: {describe_failure(error)}"
            return replace(generation, columns=self._no_columns(), error=told)

    def _format_generation(self, generation: _Generation, request: _Request, row: Row) -> dict[str, Any]:
        """Give the columns that one answer adds to its row."""
        columns = dict(generation.columns)
        metadata: dict[str, Any] = {}
        if self.add_raw_output:
            metadata[f"raw_output_{self.name}"] = generation.text
        if self.add_raw_input:
            metadata[f"raw_input_{self.name}"] = request.messages
        if generation.statistics:
            metadata[f"statistics_{self.name}"] = generation.statistics
        if generation.error is not None:
            metadata[self._error_key] = generation.error
        columns[_MODEL_NAME] = self.llm.model_name
        kept = {
            **_as_mapping(row.get(METADATA_COLUMN)),
            **(columns.pop(METADATA_COLUMN, None) or {}),
            **metadata,
        }
        if kept:
            columns[METADATA_COLUMN] = kept
        return {**columns, **{f"llm_{self.name}_{key}": value for key, value in generation.extra.items()}}

    def _group(self, row: Row, made: list[dict[str, Any]]) -> Row:
        names = {name: None for columns in made for name in columns}
        lists: dict[str, Any] = {name: [columns.get(name) for columns in made] for name in names}
        return {**row, **lists, _MODEL_NAME: self.llm.model_name}


def _iter_generations(output: GenerateOutput) -> Iterator[_Generation]:
    errors = output.get("errors")
    for index, text in enumerate(output["generations"]):
        yield _Generation(
            text,
            None if text is not None else (errors[index] if errors else None) or NO_ANSWER,
            # Fewer counts than generations belong to all of them in turn, as in distilabel.
            {
                key: counts[index % len(counts)]
                for key, counts in output.get("statistics", {}).items()
                if counts
            },
            {key: values[index] for key, values in output.items() if key not in _OWN_KEYS},  # type: ignore[index]  # a list per further key, by contract
            {},
        )


def _join_turns(before: _Generation, again: _Generation) -> _Generation:
    """Take the later answer with the tokens of both; the earlier one, where no later one came."""
    names = {**before.statistics, **again.statistics}
    statistics = {name: before.statistics.get(name, 0) + again.statistics.get(name, 0) for name in names}
    return replace(before if again.text is None else again, statistics=statistics)


def _as_mapping(metadata: Any) -> dict[str, Any]:
    """Give a row's metadata as one mapping; a list of them, left by a task that groups, as a mapping of lists."""
    if isinstance(metadata, list):
        entries = [entry or {} for entry in metadata]
        names = {name: None for entry in entries for name in entry}
        return {name: [entry.get(name) for entry in entries] for name in names}
    return dict(metadata or {})
