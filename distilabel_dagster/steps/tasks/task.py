"""`Task`: a step that asks a language model about each row."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field, PositiveInt

from distilabel_dagster.base.columns import all_columns
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.batch import Row, Rows
from distilabel_dagster.models.llm import LLM, NO_ANSWER, ChatType, GenerateOutput, describe_failure
from distilabel_dagster.steps.columns import METADATA_COLUMN
from distilabel_dagster.steps.step import Step, StepInput, StepOutput

_MODEL_NAME = "model_name"
_OWN_KEYS = frozenset(GenerateOutput.__annotations__)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent for a row, or why nothing is."""

    messages: ChatType | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Generation:
    """One of the answers for a row, or why there is none."""

    text: str | None
    error: str | None
    statistics: dict[str, Any]
    extra: dict[str, Any]


class Task(Step):
    """A step that asks a language model about each row; override `inputs`, `outputs` and the two formats.

    Each row gives `num_generations` rows, or one with lists if `group_generations`. What a row had in
    `distilabel_metadata` is kept and added to. Where something fails for a row (its prompt can't be made, the call
    fails, the answer can't be read), the task's outputs are None, the raw answer is kept, and the reason stands
    under `error_<step>` in the row's `distilabel_metadata`; the other rows aren't touched.

    Attributes:
        llm: the model that is asked; tasks may share one.
        group_generations: one row per input with a list per output column, instead of a row per generation.
        add_raw_output: keep the model's answer as `raw_output_<step>` in `distilabel_metadata`.
        add_raw_input: keep the messages as `raw_input_<step>` in `distilabel_metadata`.
        num_generations: how many answers are asked for per row.

    Runtime parameters:
        - `num_generations`, `add_raw_output`, `add_raw_input`: see above.
        - `llm`: those of the model.

    Output columns:
        - distilabel_metadata (`dict`, a list of them if `group_generations`): raw input and output, token counts as
          `statistics_<step>`, and `error_<step>` where the row failed.
        - model_name (`str`): the model that was asked; declare it in `outputs`.
        - llm_<step>_<key>: for each further list that the model gave.

    References:
        - [distilabel](https://github.com/argilla-io/distilabel)

    Examples:
        >>> from distilabel_dagster.models import LLM
        >>> class Parrot(LLM):
        ...     @property
        ...     def model_name(self):
        ...         return "parrot"
        ...     def generate(self, inputs, num_generations=1):
        ...         return [{"generations": [messages[-1]["content"]] * num_generations} for messages in inputs]
        >>> class Repeat(Task):
        ...     @property
        ...     def inputs(self):
        ...         return ["text"]
        ...     @property
        ...     def outputs(self):
        ...         return ["repeated", "model_name"]
        ...     def format_input(self, input):
        ...         return [{"role": "user", "content": input["text"]}]
        ...     def format_output(self, output, input=None):
        ...         return {"repeated": output}
        >>> repeat = Repeat(name="repeat", llm=Parrot(), add_raw_input=False)
        >>> repeat.run_process([{"text": "hey"}])
        [{'text': 'hey', 'repeated': 'hey', 'model_name': 'parrot', 'distilabel_metadata': {'raw_output_repeat': 'hey'}}]
    """

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

    def load(self) -> None:
        """Load the model."""
        super().load()
        self.llm.load()

    def unload(self) -> None:
        """Unload the model."""
        self.llm.unload()
        super().unload()

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
        requests = [self._format_request(row) for row in inputs]
        sent = [request.messages for request in requests if request.messages is not None]
        answers = iter(
            self.llm.generate_outputs(
                sent, num_generations=self.num_generations or 1, **self.llm.get_generation_kwargs()
            )
        )
        outputs: Rows = []
        failed: list[str] = []
        for row, request in zip(inputs, requests, strict=True):
            generations = list(
                self._iter_generations(request, None if request.messages is None else next(answers))
            )
            made = [self._format_generation(generation, request, row) for generation in generations]
            rows = (
                self._group(row, made) if self.group_generations else [{**row, **columns} for columns in made]
            )
            failed += [error for error in map(self.row_error, rows) if error is not None]
            outputs += rows
        if failed:
            self._logger.warning("%d of %d rows failed; the first: %s", len(failed), len(outputs), failed[0])
        yield outputs

    def _format_request(self, row: Row) -> _Request:
        try:
            return _Request(self.format_input(row))
        except Exception as error:  # noqa: BLE001 (one row's failure, in code that users write, is that row's only)
            return _Request(None, f"the prompt can't be made: {describe_failure(error)}")

    def _iter_generations(self, request: _Request, output: GenerateOutput | None) -> Iterator[_Generation]:
        if output is None:
            for _ in range(self.num_generations or 1):
                yield _Generation(None, request.error, {}, {})
            return
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
            )

    def _format_generation(self, generation: _Generation, request: _Request, row: Row) -> dict[str, Any]:
        """Give the columns that one answer adds to its row."""
        columns, error = self._read_answer(generation, row)
        metadata: dict[str, Any] = {}
        if self.add_raw_output:
            metadata[f"raw_output_{self.name}"] = generation.text
        if self.add_raw_input:
            metadata[f"raw_input_{self.name}"] = request.messages
        if generation.statistics:
            metadata[f"statistics_{self.name}"] = generation.statistics
        if error is not None:
            metadata[self._error_key] = error
        columns[_MODEL_NAME] = self.llm.model_name
        kept = {
            **_as_mapping(row.get(METADATA_COLUMN)),
            **(columns.pop(METADATA_COLUMN, None) or {}),
            **metadata,
        }
        if kept:
            columns[METADATA_COLUMN] = kept
        return {**columns, **{f"llm_{self.name}_{key}": value for key, value in generation.extra.items()}}

    def _read_answer(self, generation: _Generation, row: Row) -> tuple[dict[str, Any], str | None]:
        if generation.text is None:
            return dict.fromkeys(all_columns(self.outputs)), generation.error
        try:
            return dict(self.format_output(generation.text, row)), None
        except Exception as error:  # noqa: BLE001 (one row's failure, in code that users write, is that row's only)
            told = f"the answer can't be read: {describe_failure(error)}"
            return dict.fromkeys(all_columns(self.outputs)), told

    def _group(self, row: Row, made: list[dict[str, Any]]) -> Rows:
        names = {name: None for columns in made for name in columns}
        lists: dict[str, Any] = {name: [columns.get(name) for columns in made] for name in names}
        return [{**row, **lists, _MODEL_NAME: self.llm.model_name}]


def _as_mapping(metadata: Any) -> dict[str, Any]:
    """Give a row's metadata as one mapping; a list of them, left by a task that groups, as a mapping of lists."""
    if isinstance(metadata, list):
        entries = [entry or {} for entry in metadata]
        names = {name: None for entry in entries for name in entry}
        return {name: [entry.get(name) for entry in entries] for name in names}
    return dict(metadata or {})
