"""Every exception that a user of this package can meet.

Each class doubles as a builtin, so that code which knows nothing of this package still catches it, carries its
data as attributes, and survives pickling (Dagster sends errors between processes)::

    DistilabelDagsterError (Exception)
    ├── PipelineDefinitionError (ValueError)      the pipeline as declared can't run; no work was begun
    │   ├── StepNameError
    │   ├── StepColumnsError
    │   ├── RoutingError
    │   ├── LoadGroupError
    │   └── RuntimeParameterError
    ├── PipelineFileError (ValueError)            pipeline.yaml or JSON that can't be read as a pipeline
    │   └── UntrustedClassError
    ├── SerializationError (TypeError)            a value that can't be written as data
    ├── SignatureMismatchError (ValueError)       a partition that today's code doesn't reproduce
    ├── UnknownPartitionError (ValueError)        a partition key that names no pipeline
    ├── CacheError (OSError)                      the cache can't be read or written
    │   ├── CacheDirectoryError
    │   ├── CacheFullError
    │   ├── DamagedFileError
    │   └── StepInUseError                        another process works on the same step
    ├── ColumnTypeError (TypeError)               values of a column that no type can hold
    ├── StepRunError (RuntimeError)               a step failed while it ran; what was committed stays
    │   ├── StepLoadError
    │   ├── StepProcessError
    │   ├── StepOutputError
    │   └── MisalignedBranchesError
    ├── ModelError (RuntimeError)                 a model can't be used
    │   ├── ModelCallError                        a call of it failed
    │   │   └── ModelUnavailableError             and so will every other: the run ends
    │   └── ModelOutputError (TypeError)          its class breaks the contract
    ├── IncompleteRunError (RuntimeError)         rows are missing, and a whole result was asked for
    │   └── CostLimitError                        since the calls have cost what they may
    ├── DistisetError (ValueError)                a Distiset that can't be built, read or pushed
    └── MissingDependencyError (ImportError)      an extra that isn't installed
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

_LONGEST_MESSAGE: Final = 10_000


def _rebuild(
    cls: type["DistilabelDagsterError"], message: str, data: dict[str, Any]
) -> "DistilabelDagsterError":
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(data)
    return error


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which known names are near `name`: `" Did you mean `x`?"`, or an empty string."""
    near = difflib.get_close_matches(name, sorted(known), n=2)
    return f" Did you mean {' or '.join(f'`{match}`' for match in near)}?" if near else ""


def _printable(message: str) -> str:
    """Write out what would move a terminal's cursor, or the direction of its text, and cut what nobody reads.

    Messages quote names, paths and texts from files, which may be a stranger's.
    """
    if len(message) > _LONGEST_MESSAGE:
        half = _LONGEST_MESSAGE // 2
        message = f"{message[:half]} … {message[-half:]}"
    if message.isprintable():
        return message
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in message
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


class DistilabelDagsterError(Exception):
    """Root of this package's exceptions; `str()` is the whole message."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(_printable(message))
        self.__dict__.update(data)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), dict(self.__dict__))


class PipelineDefinitionError(DistilabelDagsterError, ValueError):
    """The pipeline as declared can't run; nothing was begun."""


class StepNameError(PipelineDefinitionError):
    """A step or pipeline name that is taken, unknown, or can't be a path."""

    name: str


class StepColumnsError(PipelineDefinitionError):
    """A step asks for columns that none of its ancestors gives."""

    step: str
    columns: list[str]

    def __init__(
        self, step: str, columns: list[str], available: Iterable[str], predecessors: list[str]
    ) -> None:
        available = sorted(available)
        hints = "".join(suggest(column, available) for column in columns)
        example = f'input_mappings={{"{columns[0]}": "<column>"}}'
        super().__init__(
            f"Step `{step}` needs column{'s' if len(columns) > 1 else ''} {_listed(columns)}, but its "
            f"predecessor{'s' if len(predecessors) > 1 else ''} {_listed(predecessors)} and their ancestors give "
            f"{_listed(available)}.{hints} Add a step that makes it, or pass `{example}`.",
            step=step,
            columns=columns,
            available=available,
        )


class RoutingError(PipelineDefinitionError):
    """A routing function, or the batch sizes under it, can't work."""


class LoadGroupError(PipelineDefinitionError):
    """`load_groups` names unknown steps, a step twice, or groups that can't run one after another."""


class RuntimeParameterError(PipelineDefinitionError):
    """A runtime parameter is missing, unknown, or has a value of the wrong type."""


class PipelineFileError(DistilabelDagsterError, ValueError):
    """A file that isn't a pipeline as this package writes it: truncated, foreign, or damaged."""

    source: str


class UntrustedClassError(PipelineFileError):
    """A pipeline file names a class that nobody vouched for; nothing was imported."""

    module: str
    name: str

    def __init__(self, source: str, module: str, name: str) -> None:
        super().__init__(
            f"{source} names the class `{module}.{name}`, which is neither of this package, nor imported by your "
            f"code, nor in a trusted module, so nothing was imported. If you trust it, import `{module}` first or "
            f'pass `trusted_modules=["{module}"]` (on the command line: `--trusted-module {module}`).',
            source=source,
            module=module,
            name=name,
        )


class SerializationError(DistilabelDagsterError, TypeError):
    """A value of a step's field that can't be written as data."""


class SignatureMismatchError(DistilabelDagsterError, ValueError):
    """Today's code and parameters don't give the signature that was asked for."""

    expected: str
    found: str
    differences: list[str]

    def __init__(self, pipeline: str, expected: str, found: str, differences: list[str], remedy: str) -> None:
        told = "; ".join(differences) or "no field of a step differs"
        super().__init__(
            f"Pipeline `{pipeline}`: the partition `{expected}` was asked for, but the pipeline as it is defined "
            f"now has the signature `{found}`. What differs: {told}. {remedy}",
            expected=expected,
            found=found,
            differences=differences,
        )


class UnknownPartitionError(DistilabelDagsterError, ValueError):
    """A partition key that is no signature, or one that the cache doesn't know."""

    partition_key: str


class CacheError(DistilabelDagsterError, OSError):
    """The cache can't be read or written; what was committed before stays."""

    path: str


class CacheDirectoryError(CacheError):
    """The cache directory is missing, isn't a directory, or can't be read or written."""


class CacheFullError(CacheError):
    """No space (or quota) is left where the cache is; the run can be resumed when there is."""


class DamagedFileError(CacheError):
    """A file of the cache can't be read as what its name says."""


class StepInUseError(CacheError):
    """Another live process holds the step's cache directory for writing."""


class ColumnTypeError(DistilabelDagsterError, TypeError):
    """Values of one column that have no common type, or none that Arrow can hold."""

    step: str
    column: str


class StepRunError(DistilabelDagsterError, RuntimeError):
    """A step failed while it ran; what was committed before stays and the run can be resumed."""

    step: str


class StepLoadError(StepRunError):
    """A step's `load()` raised."""


class StepProcessError(StepRunError):
    """A step's `process()` raised, and the failure can't be kept as failed rows."""


class StepOutputError(StepRunError, TypeError):
    """A step's `process()` gave something other than lists of rows (dicts)."""


class MisalignedBranchesError(StepRunError):
    """A step joins branches that give different numbers of rows, so that rows can't be paired."""

    def __init__(self, step: str, counts: Mapping[str, int], scope: str) -> None:
        told = ", ".join(f"`{branch}` {count}" for branch, count in counts.items())
        super().__init__(
            f"Step `{step}` joins branches row by row, but they gave different numbers of rows {scope}: {told}. "
            "A branch that drops or adds rows can't be joined by position: move that step before the branches "
            "part or after they join, or join with a step that takes a single predecessor.",
            step=step,
            counts=dict(counts),
        )


class ModelError(DistilabelDagsterError, RuntimeError):
    """A model can't be used."""

    model: str


class ModelCallError(ModelError):
    """A call of a model failed, after the retries that its kind of failure deserves.

    `kind` is one of the keys of `models.provider_errors.FAILURE_KINDS`, `status_code` the HTTP status where there was
    one, `retry_after_s` how many seconds the endpoint asked to wait, where it did.
    """

    endpoint: str = ""
    kind: str = "other"
    status_code: int | None = None
    retry_after_s: float | None = None


class ModelUnavailableError(ModelCallError):
    """No call to the endpoint can succeed now (wrong key, unknown model, down), so the run is ended."""


class ModelOutputError(ModelError, TypeError):
    """A model class gave something other than its contract says."""


class IncompleteRunError(DistilabelDagsterError, RuntimeError):
    """A whole result was asked for, and rows of it aren't computed yet."""


class CostLimitError(IncompleteRunError):
    """The calls have cost as much as `max_cost_usd` allows; what was answered stays, and a higher limit goes on.

    `cost_usd` is what was paid so far, `max_cost_usd` the limit.
    """

    cost_usd: float
    max_cost_usd: float


class DistisetError(DistilabelDagsterError, ValueError):
    """A Distiset can't be built, saved, read or pushed."""


class MissingDependencyError(DistilabelDagsterError, ImportError):
    """A feature needs an extra that isn't installed."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs `{package}`, which isn't installed. Install it with "
            f"`pip install 'distilabel-dagster[{extra}]'`.",
            feature=feature,
            package=package,
            extra=extra,
        )
