"""The three kinds of steps: Step, GeneratorStep, GlobalStep."""

import logging
import re
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, TypeVar

import pyarrow as pa
from pydantic import Field, PositiveInt

from distilabel_dagster.base.active_pipeline import StepRegistry, active_pipeline
from distilabel_dagster.base.columns import (
    StepColumns,
    all_columns,
    iter_lists,
    map_inputs,
    map_outputs,
    required_columns,
)
from distilabel_dagster.base.runtime_parameters import RuntimeParameter, RuntimeParametersMixin
from distilabel_dagster.base.serializable import TYPE_INFO, type_info_of
from distilabel_dagster.batch import Rows
from distilabel_dagster.errors import PipelineDefinitionError, StepNameError
from distilabel_dagster.steps.resources import StepResources

DEFAULT_BATCH_SIZE = 50
_STEP_INPUT = "distilabel_step_input"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_RESERVED_NAMES = frozenset({"distiset"})
_Target = TypeVar("_Target")

StepInput = Annotated[Rows, _STEP_INPUT]
"""Rows of one predecessor, as `process` gets them."""
StepOutput = Iterator[Rows]
"""What `process` of a step yields: lists of rows; several lists are put together in order."""
GeneratorStepOutput = Iterator[tuple[Rows, bool]]
"""What `process` of a generator step yields: rows, and whether they're the last."""
GeneratorTableOutput = Iterator[tuple[pa.Table | Rows, bool]]
"""What `process_tables` of a generator step yields: a table, or rows where it has none, and whether they're the last."""


def check_step_name(name: str) -> None:
    """Refuse a name that can't be a directory, an asset key and a config name.

    Raises:
        StepNameError: letters, digits, `_` and `-` are allowed, at most 128, and not `distiset`.
    """
    if not _NAME.fullmatch(name):
        raise StepNameError(
            f"A step can't be called `{name}`: its name becomes a directory of the cache and a part of an asset key. "
            "Use 1 to 128 letters, digits, `_` and `-`.",
            name=name,
        )
    if name in _RESERVED_NAMES:
        raise StepNameError(
            f"A step can't be called `{name}`: the pipeline's result is. Choose another name.", name=name
        )


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class BaseStep(RuntimeParametersMixin):
    """What the three kinds of steps share; derive from one of those, not from this.

    Attributes:
        name: the step's name in its pipeline: a directory of the cache and an asset key. Made from the class's name
            where none is given.
        resources: what the step asks of the machine.
        input_mappings: the step's name of an input column -> the column's name in the rows.
        output_mappings: the step's name of an output column -> the column's name in the rows.
        use_cache: False recomputes the step, and all that follows it, in each run.
        code_version: stands in for the step's code in its signature; by default the code itself is fingerprinted.
    """

    name: str = ""
    resources: StepResources = Field(default_factory=StepResources)
    pipeline: Any = Field(default=None, exclude=True, repr=False)
    input_mappings: dict[str, str] = Field(default_factory=dict)
    output_mappings: dict[str, str] = Field(default_factory=dict)
    use_cache: bool = True
    code_version: str | None = None

    is_generator: ClassVar[bool] = False
    is_global: ClassVar[bool] = False

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        registry = self.pipeline if self.pipeline is not None else active_pipeline()
        if not self.name:
            prefix = _snake_case(type(self).__name__)
            self.__dict__["name"] = registry.free_step_name(prefix) if registry else f"{prefix}_0"
        check_step_name(self.name)
        if registry is not None:
            self.__dict__["pipeline"] = registry
            registry.add_step(self)

    def connect(self, *steps: "BaseStep", routing_batch_function: Any = None) -> None:
        """Make `steps` follow this one, through `routing_batch_function` if given."""
        registry = self._registry()
        if routing_batch_function is not None:
            registry.connect(registry.connect(self, routing_batch_function), list(steps))
            return
        for each in steps:
            registry.connect(self, each)

    def __rshift__(self, other: _Target) -> _Target:
        target: _Target = self._registry().connect(self, other)
        return target

    def __rrshift__(self, other: Any) -> "BaseStep":
        self._registry().connect(other, self)
        return self

    def _registry(self) -> StepRegistry:
        if self.pipeline is None:
            raise PipelineDefinitionError(
                f"Step `{self.name}` belongs to no pipeline, so it can't be connected. Make it inside "
                "`with Pipeline(...) as pipeline:` or pass `pipeline=`."
            )
        registry: StepRegistry = self.pipeline
        return registry

    @property
    def inputs(self) -> StepColumns:
        """Columns that the step reads: names, or name -> whether each row must have it."""
        return []

    @property
    def outputs(self) -> StepColumns:
        """Columns that the step adds: names, or name -> whether each row has it."""
        return []

    def get_inputs(self) -> dict[str, bool]:
        """Give the columns that the step reads under their names in the rows -> whether they're required."""
        needed = set(required_columns(self.inputs))
        return {self.input_mappings.get(name, name): name in needed for name in all_columns(self.inputs)}

    def get_outputs(self) -> dict[str, bool]:
        """Give the columns that the step adds under their names in the rows -> whether each row has them."""
        given = set(required_columns(self.outputs))
        return {self.output_mappings.get(name, name): name in given for name in all_columns(self.outputs)}

    def load(self) -> None:
        """Get what `process` needs (a model, a connection); called once, before the step's first batch."""

    def unload(self) -> None:
        """Give back what `load` got; called once, after the step's last batch or at a stop."""

    @property
    def _logger(self) -> logging.Logger:
        return logging.getLogger(f"distilabel_dagster.step.{self.name}")

    def dump(self) -> dict[str, Any]:
        """Give the fields as plain data, with descriptions of the runtime parameters, without secrets."""
        dumped = super().dump()
        del dumped[TYPE_INFO]
        if dumped.get("code_version") is None:
            del dumped["code_version"]
        return {
            **dumped,
            "runtime_parameters_info": self.get_runtime_parameters_info(),
            TYPE_INFO: type_info_of(type(self)),
        }


class Step(BaseStep):
    """A step that takes batches of rows from its predecessors and gives batches of rows.

    Override `inputs`, `outputs` and `process`. A step must give back whole rows: what it yields replaces what it
    got. With several predecessors `process` gets one list per predecessor, in the order they were connected in,
    of equal length and aligned by position.

    Attributes:
        input_batch_size: rows per predecessor that one call of `process` gets, whatever batches they came in.

    Examples:
        >>> class Shout(Step):
        ...     @property
        ...     def inputs(self):
        ...         return ["text"]
        ...     @property
        ...     def outputs(self):
        ...         return ["loud"]
        ...     def process(self, inputs):
        ...         yield [{**row, "loud": row["text"].upper()} for row in inputs]
        >>> Shout(name="shout").run_process([{"text": "hey"}])
        [{'text': 'hey', 'loud': 'HEY'}]
    """

    input_batch_size: RuntimeParameter[PositiveInt] = Field(
        default=DEFAULT_BATCH_SIZE,
        description="The number of rows that one call of the step gets.",
    )

    @abstractmethod
    def process(self, *inputs: StepInput) -> StepOutput:
        """Make output rows of input rows; called once per batch, in a thread or process of the step's own."""

    def process_table(self, table: pa.Table) -> pa.Table | None:
        """Make the output of one predecessor's rows as an Arrow table: a faster way for steps that only move columns.

        Called in the place of `process`, where the step has one predecessor and no mappings. It has to give the rows that
        `process` gives; a subclass with a `process` of its own isn't asked for it.

        Args:
            table: the rows of a batch; at least one.

        Returns:
            The output rows; None to have `process` called.
        """
        return None

    def run_process(self, *inputs: Rows) -> Rows:
        """Apply the mappings around `process` and put together what it yields.

        Args:
            inputs: rows of each predecessor; they aren't changed.

        Returns:
            The output rows under the pipeline's column names.

        Raises:
            StepOutputError: `process` gave something other than lists of rows.
        """
        mapped, covered = [], []
        for rows in inputs:
            renamed, overridden = map_inputs(rows, self.input_mappings)
            mapped.append(renamed)
            covered.append(overridden)
        outputs = [row for rows in iter_lists(self.process(*mapped), self.name) for row in rows]
        if not (self.input_mappings or self.output_mappings):
            return outputs
        return map_outputs(outputs, self.input_mappings, self.output_mappings, covered[0] if covered else [])


class GlobalStep(Step):
    """A step that gets all rows at once, when its predecessors have given their last; it makes one batch."""

    is_global: ClassVar[bool] = True


class GeneratorStep(BaseStep):
    """A step without predecessors that makes the rows which the pipeline starts from.

    Attributes:
        batch_size: rows per batch that it's asked for.
    """

    is_generator: ClassVar[bool] = True

    batch_size: RuntimeParameter[PositiveInt] = Field(
        default=DEFAULT_BATCH_SIZE, description="The number of rows in each batch that the step makes."
    )

    @abstractmethod
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield `(rows, last_batch)` until `last_batch` is True.

        Args:
            offset: rows that earlier runs have already committed; start behind them. A `process` that never reads
                it is started from the beginning and its first `offset` rows are skipped.
        """

    def process_tables(self, offset: int = 0) -> GeneratorTableOutput | None:
        """Make the step's rows as Arrow tables: a faster way for steps whose rows come from Arrow or Parquet.

        Called in the place of `process`. It has to give the batches that `process` gives: the same rows, of the same
        sizes, with `last_batch` at the same place, from the same `offset` on; and where it fails, what it has yielded by
        then. Types needn't be those that the rows would have: each table is brought to these, so an integer of 32 bits
        becomes one of 64, and a column of text without any value one of nulls. A table may be a slice of a large one: it's
        copied then, so that it doesn't keep that in memory. `output_mappings` are applied to what it yields. A subclass with
        a `process` of its own isn't asked for it.

        Args:
            offset: as `process` gets it: 0 too where `process` never reads it, and then the first rows are skipped.

        Returns:
            An iterator of `(table, last_batch)`, in which rows, as `process` yields them, may stand for any table; None to
            have `process` called.

        Raises:
            DistilabelDagsterError: ends the run as it is; any other exception, here or in the iterator, ends it as a
                StepProcessError. What was yielded before is kept.
        """
        return None

    def map_rows(self, rows: Rows) -> Rows:
        """Rename output columns by `output_mappings`."""
        return map_outputs(rows, {}, self.output_mappings, []) if self.output_mappings else rows
