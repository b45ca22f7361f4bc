"""FilterRows: rows kept by a condition on one column."""

import operator
import re
from collections.abc import Callable
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.base.signature import canonical_json
from distilabel_dagster.batch import Row
from distilabel_dagster.errors import StepProcessError
from distilabel_dagster.steps.step import Step, StepInput, StepOutput

FilterOp = Literal[
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "not in",
    "contains",
    "matches",
    "is null",
    "is not null",
    "min_length",
    "max_length",
]
FilterValue = bool | int | float | str | list[Any]

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NEEDS: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(_ORDER, (int, float, str)),
    "in": (list,),
    "not in": (list,),
    "contains": (bool, int, float, str),
    "matches": (str,),
    "min_length": (int,),
    "max_length": (int,),
}
_KEEPS_NULLS: Final = ("==", "!=", "in", "not in", "is null", "is not null")


class FilterRows(Step):
    """Keep the rows whose value in a column meets a condition, and drop the others.

    | op | keeps a row where the value |
    |---|---|
    | `==`, `!=` | is, isn't equal to `value` |
    | `<`, `<=`, `>`, `>=` | compares so with `value`, a number or text |
    | `in`, `not in` | is, isn't one of the list `value` |
    | `contains` | is text with `value` in it, or a list that has `value` as an item |
    | `matches` | is text in which the regular expression `value` finds something (`re.search`) |
    | `is null`, `is not null` | is, isn't None; `value` isn't given |
    | `min_length`, `max_length` | is text or a list with at least, at most `value` characters or items |

    A row that lacks the column counts as one with None. None is equal to None alone, so `!=` and `not in` keep it;
    the conditions that compare, search or measure never do. So rows that failed in a step before are dropped by
    those, and by `is not null`.

    Attributes:
        column: the column that is looked at.
        op: the condition.
        value: what the condition compares with.

    Runtime parameters:
        - `value`: what the condition compares with.
        - `input_batch_size`: rows that one call of the step gets.

    Input columns:
        - dynamic: `column`.

    Examples:
        >>> enough = FilterRows(column="score", op=">=", value=3)
        >>> enough.run_process([{"score": 2}, {"score": 3.5}, {"score": None}])
        [{'score': 3.5}]

        What near-duplicate rows are left after `MinHashDedup`:

        >>> unique = FilterRows(column="keep_row_after_minhash_filtering", op="==", value=True)
    """

    column: str
    op: FilterOp
    value: RuntimeParameter[FilterValue] = Field(
        default=None, description="What the condition compares with."
    )

    @field_validator("value", mode="before")
    @classmethod
    def _order_sets(cls, value: Any) -> Any:
        """A set has no order, and the signature needs one."""
        if isinstance(value, set | frozenset):
            return sorted(value, key=canonical_json)
        return list(value) if isinstance(value, tuple) else value

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        needed = _NEEDS.get(self.op)
        if self.op in ("is null", "is not null"):
            if self.value is not None:
                raise ValueError(f"the condition `{self.op}` takes no `value`, found {self.value!r}")
        elif self.value is not None and needed and not _is_one_of(self.value, needed):
            told = " or ".join(kind.__name__ for kind in needed)
            raise ValueError(
                f"the condition `{self.op}` needs a `value` that is {told}, found {self.value!r}"
            )
        if self.op == "matches" and isinstance(self.value, str):
            try:
                re.compile(self.value)
            except re.error as error:
                raise ValueError(f"`value` is no regular expression: {error}") from error
        return self

    def missing_runtime_parameters(self) -> list[str]:
        """Give the runtime parameters that must be set and aren't; not every condition needs a value."""
        missing = super().missing_runtime_parameters()
        return [name for name in missing if name != "value" or self.op in _NEEDS]

    @property
    def inputs(self) -> StepColumns:
        """The column that is looked at."""
        return [self.column]

    def process(self, inputs: StepInput) -> StepOutput:  # type: ignore[override]  # it takes one predecessor
        """Yield the rows that meet the condition, as they are.

        Raises:
            StepProcessError: a value is of a type that the condition can't look at.
        """
        yield [row for index, row in enumerate(inputs) if self._keeps(index, row)]

    def _keeps(self, index: int, row: Row) -> bool:
        found: Any = row.get(self.column)
        if hasattr(found, "tolist"):
            found = found.tolist()
        if found is None and self.op not in _KEEPS_NULLS:
            return False
        try:
            return self._meets(found)
        except TypeError as error:
            raise StepProcessError(
                f"Step `{self.name}`: row {index} of the batch has a {type(found).__name__} in `{self.column}`, which "
                f"`{self.op}` can't look at with the value {self.value!r}. Make the column of one type, or filter "
                "such rows before.",
                step=self.name,
                column=self.column,
                op=self.op,
            ) from error

    def _meets(self, found: Any) -> bool:
        value: Any = self.value
        if self.op in ("is null", "is not null"):
            return (found is None) is (self.op == "is null")
        if self.op in ("==", "!="):
            return bool(found == value) is (self.op == "==")
        if self.op in ("in", "not in"):
            return (found in value) is (self.op == "in")
        if self.op in _ORDER:
            return _ORDER[self.op](found, value)
        if self.op == "matches":
            return re.search(value, found) is not None
        if not isinstance(found, str | list | tuple):
            raise TypeError(f"a {type(found).__name__} has no items")
        if self.op == "contains":
            return value in found
        length = len(found)
        return bool(length >= value if self.op == "min_length" else length <= value)


def _is_one_of(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
