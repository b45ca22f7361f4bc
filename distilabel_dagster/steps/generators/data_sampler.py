"""DataSampler: rows that each hold a few samples, for few-shot examples."""

import random

from pydantic import Field, NonNegativeInt, PositiveInt

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.batch import Row, Rows
from distilabel_dagster.errors import RuntimeParameterError
from distilabel_dagster.steps.generators.batching import iter_batches
from distilabel_dagster.steps.generators.data import RowsGenerator
from distilabel_dagster.steps.step import GeneratorStepOutput


class DataSampler(RowsGenerator):
    """Draw samples from a list of rows, with replacement: each output row holds `size` of them, column by column.

    Joined with a loader of as many rows (`[load, sampler] >> CombineOutputs()`), it puts few-shot examples beside
    each row. Output row i depends on `seed`, i and the data alone, so a resumed run draws what an undisturbed one
    draws.

    Attributes:
        data: the rows to draw from.
        size: samples per output row.
        samples: output rows in all.
        seed: another seed draws other samples.

    Runtime parameters:
        - `data`: the rows to draw from.
        - `size`: samples per output row.
        - `samples`: output rows in all.
        - `seed`: another seed draws other samples.
        - `batch_size`: rows per batch.

    Output columns:
        - dynamic: every column of `data`, each a list of `size` values; None where the drawn row lacks the column.

    Examples:
        >>> sampler = DataSampler(data=[{"example": n} for n in range(30)], size=2, samples=3, batch_size=2)
        >>> sampler.load()
        >>> rows = [row for batch, _ in sampler.process() for row in batch]
        >>> [len(row["example"]) for row in rows]
        [2, 2, 2]
        >>> [row for batch, _ in sampler.process(offset=1) for row in batch] == rows[1:]
        True
    """

    size: RuntimeParameter[PositiveInt] = Field(
        default=2, description="The number of samples in each output row."
    )
    samples: RuntimeParameter[NonNegativeInt] = Field(
        default=100, description="The number of output rows in all."
    )
    seed: RuntimeParameter[int] = Field(default=0, description="Another seed draws other samples.")

    @property
    def outputs(self) -> StepColumns:
        """Every column of `data`."""
        return list(self.column_presence())

    def load(self) -> None:
        """Check that there is something to draw from.

        Raises:
            RuntimeParameterError: there isn't.
        """
        super().load()
        if not self.data and self.samples:
            raise RuntimeParameterError(
                f"Step `{self.name}` can't draw {self.samples} samples from `data` without rows. Pass at least one row."
            )

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield the output rows from `offset` on."""
        rows, columns = self._rows(), list(self.column_presence())
        samples = range(offset, self.samples or 0)
        yield from iter_batches((self._draw(rows, columns, index) for index in samples), self.batch_size)

    def _draw(self, rows: Rows, columns: list[str], index: int) -> Row:
        # Python promises that `random()` of a seeded generator gives the same numbers in every version; it doesn't
        # promise that of `choices`.
        generator = random.Random(f"{self.seed}:{index}")
        drawn = [rows[int(generator.random() * len(rows))] for _ in range(self.size or 1)]
        return {column: [row.get(column) for row in drawn] for column in columns}
