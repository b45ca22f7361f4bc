"""MinHashDedup: near duplicates, found by the words or character n-grams that texts share."""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import Field, PositiveInt

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.batch import Rows
from distilabel_dagster.errors import MissingDependencyError, StepProcessError
from distilabel_dagster.steps.step import GlobalStep, StepInput, StepOutput

KEEP_COLUMN: Final = "keep_row_after_minhash_filtering"
_WORDS = re.compile(r"\w+|[^\w\s]")


class MinHashDedup(GlobalStep):
    """Mark rows whose text is nearly that of an earlier row.

    Of texts that resemble each other the first is kept: rows are looked at in their order, all at once, so the
    result doesn't depend on batch sizes. No row is dropped; that is what
    `FilterRows(column="keep_row_after_minhash_filtering", op="==", value=True)` behind it is for. Memory grows with
    the number of rows, about `num_perm` times 16 bytes for each one that is kept.

    A text without tokens is a duplicate of another such text; a row with None is kept, as there's nothing to
    compare.

    Attributes:
        num_perm: permutations of a MinHash: more of them estimate the similarity better and take longer.
        seed: another seed takes other permutations.
        tokenizer: "words" compares the sets of words and punctuation marks (upper and lower case differ), "ngrams"
            those of `n` characters in a row.
        n: characters of an n-gram; a shorter text is one n-gram by itself.
        threshold: Jaccard similarity (shared tokens by all tokens) from which on texts are duplicates, from 0 to 1.
            It's estimated, so texts near it may fall on either side.
        storage: "dict", in memory, is the only one.

    Input columns:
        - text (`str`): the text to compare; `input_mappings={"text": "<column>"}` takes another column.

    Output columns:
        - keep_row_after_minhash_filtering (`bool`): whether the row is no duplicate of an earlier one.

    References:
        - [Identifying and Filtering Near-Duplicate Documents](https://cs.brown.edu/courses/cs253/papers/nearduplicate.pdf)
        - [datasketch: MinHash LSH](https://ekzhu.github.io/datasketch/lsh.html)

    Examples:
        >>> dedup = MinHashDedup(threshold=0.8)
        >>> dedup.load()
        >>> texts = ["a cat sat on the mat", "dogs bark at night", "a cat sat on the mat"]
        >>> rows = dedup.run_process([{"text": text} for text in texts])
        >>> [row["keep_row_after_minhash_filtering"] for row in rows]
        [True, True, False]
    """

    num_perm: int = Field(default=128, ge=2)
    seed: int = Field(default=1, ge=0, lt=2**32)
    tokenizer: Literal["words", "ngrams"] = "words"
    n: PositiveInt = 5
    threshold: float = Field(default=0.9, ge=0, le=1)
    storage: Literal["dict"] = "dict"

    @property
    def inputs(self) -> StepColumns:
        """The text."""
        return ["text"]

    @property
    def outputs(self) -> StepColumns:
        """Whether the row is no duplicate."""
        return [KEEP_COLUMN]

    def load(self) -> None:
        """Check that datasketch is there.

        Raises:
            MissingDependencyError: it isn't installed.
        """
        super().load()
        _import_datasketch()

    def process(self, inputs: StepInput) -> StepOutput:  # type: ignore[override]  # it takes one predecessor
        """Yield all rows, each with its mark.

        Raises:
            StepProcessError: a text is no text.
        """
        datasketch = _import_datasketch()
        index = self._make_index(datasketch)
        blank = datasketch.MinHash(num_perm=self.num_perm, seed=self.seed)
        marked: Rows = []
        for number, row in enumerate(inputs):
            text = row.get("text")
            if text is None:
                marked.append({**row, KEEP_COLUMN: True})
                continue
            if not isinstance(text, str):
                raise StepProcessError(
                    f"Step `{self.name}`: row {number} has a {type(text).__name__} in `text` "
                    f"(column `{self.input_mappings.get('text', 'text')}`), expected text.",
                    step=self.name,
                )
            sketch = blank.copy()
            sketch.update_batch(self._tokens(text))
            is_new = not index.query(sketch)
            if is_new:
                index.insert(number, sketch)
            marked.append({**row, KEEP_COLUMN: is_new})
        yield marked

    def _make_index(self, datasketch: Any) -> Any:
        try:
            return datasketch.MinHashLSH(threshold=self.threshold, num_perm=self.num_perm)
        except ValueError:
            # For thresholds next to 1 datasketch finds a single band best, and then refuses it: two are the least.
            return datasketch.MinHashLSH(num_perm=self.num_perm, params=(2, self.num_perm // 2))

    def _tokens(self, text: str) -> list[bytes]:
        return sorted({token.encode("utf-8", "surrogatepass") for token in self._iter_tokens(text)})

    def _iter_tokens(self, text: str) -> Iterator[str]:
        if self.tokenizer == "words":
            yield from _WORDS.findall(text)
        elif text:
            for start in range(max(1, len(text) - self.n + 1)):
                yield text[start : start + self.n]


def _import_datasketch() -> Any:
    try:
        import datasketch
    except ImportError as error:
        raise MissingDependencyError("MinHashDedup", "datasketch", "dedup") from error
    return datasketch
