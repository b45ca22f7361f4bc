"""`EmbeddingGeneration`: a text as a list of numbers, made by an embeddings model."""

from typing import Any

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.batch import Row, Rows
from distilabel_dagster.errors import ModelOutputError
from distilabel_dagster.models.embeddings import EmbeddingOutput, Embeddings
from distilabel_dagster.steps.columns import METADATA_COLUMN
from distilabel_dagster.steps.step import Step, StepInput, StepOutput
from distilabel_dagster.steps.tasks.passages import require_text


class EmbeddingGeneration(Step):
    """Embed the text of each row.

    The model is asked once per batch, about each different text once. A row without a text, or whose text the model
    refuses, fails with the reason under `error_<step>` in its `distilabel_metadata`; the other rows aren't touched.

    Attributes:
        embeddings: the model.

    Runtime parameters:
        - `input_batch_size`: the rows that are embedded together.
        - `embeddings`: those of the model.

    Input columns:
        - text (`str`): the text; another column with `input_mappings={"text": "<column>"}`.

    Output columns:
        - embedding (`list[float]`): the text's embedding; None where the row failed.
        - model_name (`str`): the model that made it.
        - distilabel_metadata (`dict`): `error_<step>` where the row failed, and token counts as `statistics_<step>`
          where the model tells them; rows with the same text in a batch count them once.

    Examples:
        >>> from distilabel_dagster.models.embeddings import EmbeddingOutput, Embeddings
        >>> class Lengths(Embeddings):
        ...     @property
        ...     def model_name(self):
        ...         return "lengths"
        ...     def encode(self, inputs):
        ...         return [[float(len(text)), 1.0] for text in inputs]
        >>> embed = EmbeddingGeneration(name="embed", embeddings=Lengths())
        >>> rows = embed.run_process([{"text": "hello"}, {"text": ""}])
        >>> rows[0]
        {'text': 'hello', 'embedding': [5.0, 1.0], 'model_name': 'lengths'}
        >>> rows[1]["embedding"], embed.row_error(rows[1])
        (None, 'column `text` is blank; expected text')
    """

    embeddings: Embeddings

    @property
    def inputs(self) -> StepColumns:
        """The text."""
        return ["text"]

    @property
    def outputs(self) -> StepColumns:
        """The embedding, and which model made it."""
        return ["embedding", "model_name"]

    def load(self) -> None:
        """Load the model."""
        super().load()
        self.embeddings.load()

    def unload(self) -> None:
        """Unload the model."""
        self.embeddings.unload()
        super().unload()

    def row_error(self, row: Row) -> str | None:
        """Say why this step failed for an output row; None where it didn't."""
        metadata = row.get(METADATA_COLUMN)
        entries = metadata if isinstance(metadata, list) else [metadata]
        errors = [entry.get(self._error_key) for entry in entries if isinstance(entry, dict)]
        return next((str(error) for error in errors if error is not None), None)

    @property
    def _error_key(self) -> str:
        return f"error_{self.name}"

    def process(self, inputs: StepInput) -> StepOutput:  # type: ignore[override]  # it takes one predecessor
        """Embed the texts of a batch; yields once, the rows in their order.

        Raises:
            ModelOutputError: the model gave another number of embeddings than it got texts.
        """
        problems = [_find_problem(row.get("text")) for row in inputs]
        sound = (row["text"] for row, problem in zip(inputs, problems, strict=True) if problem is None)
        embedded = self._embed(list(dict.fromkeys(sound)))
        counted: set[str] = set()
        outputs: Rows = []
        for row, problem in zip(inputs, problems, strict=True):
            if problem is not None:
                outputs.append(self._complete(row, {"error": problem}, is_counted=False))
                continue
            # The tokens of a text were paid once.
            is_counted = row["text"] not in counted
            outputs.append(self._complete(row, embedded[row["text"]], is_counted=is_counted))
            counted.add(row["text"])
        failed = [error for error in map(self.row_error, outputs) if error is not None]
        if failed:
            self._logger.warning("%d of %d rows failed; the first: %s", len(failed), len(outputs), failed[0])
        yield outputs

    def _embed(self, texts: list[str]) -> dict[str, EmbeddingOutput]:
        if not texts:
            return {}
        outputs = self.embeddings.encode_outputs(texts)
        if len(outputs) != len(texts):
            raise ModelOutputError(
                f"`{type(self.embeddings).__name__}` gave {len(outputs)} embeddings for {len(texts)} texts, expected "
                "one per text.",
                model=self.embeddings.model_name,
            )
        return dict(zip(texts, outputs, strict=True))

    def _complete(self, row: Row, output: EmbeddingOutput, *, is_counted: bool) -> Row:
        """Add to a row what came of its text."""
        embedding = output.get("embedding")
        added: dict[str, Any] = {}
        if embedding is None:
            added[self._error_key] = output.get("error") or "the model gave no embedding"
        statistics = output.get("statistics") if is_counted else None
        if statistics:
            added[f"statistics_{self.name}"] = {name: sum(counts) for name, counts in statistics.items()}
        made = {
            **row,
            # A list of its own for each row, since a later step may change its rows.
            "embedding": None if embedding is None else list(embedding),
            "model_name": self.embeddings.model_name,
        }
        return {**made, METADATA_COLUMN: _add(row.get(METADATA_COLUMN), added)} if added else made


def _add(metadata: Any, added: dict[str, Any]) -> Any:
    """Add to a row's metadata; of a list, which a task that groups leaves, to the first entry."""
    if isinstance(metadata, list) and metadata:
        return [{**(metadata[0] or {}), **added}, *metadata[1:]]
    return {**(metadata or {}), **added}


def _find_problem(text: Any) -> str | None:
    try:
        require_text(text, "text")
    except (TypeError, ValueError) as error:
        return str(error)
    return None
