"""What a pipeline is, apart from running it: its steps, connections, parameters, signature and file form."""

import contextlib
import importlib.metadata
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextvars import Token
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from typing_extensions import Self

from distilabel_dagster.base.active_pipeline import StepRegistry, activate, deactivate
from distilabel_dagster.base.environment import default_cache_dir, default_ledger_url
from distilabel_dagster.base.runtime_parameters import RuntimeParameterInfo
from distilabel_dagster.base.yaml_data import dump_yaml
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.dag.load_stages import LoadGroups, compute_load_stages
from distilabel_dagster.dag.routing import RoutingBatchFunction
from distilabel_dagster.dag.signature import compute_pipeline_signature, compute_step_signatures
from distilabel_dagster.dag.validation import validate_dag
from distilabel_dagster.errors import (
    PipelineDefinitionError,
    PipelineFileError,
    RuntimeParameterError,
    StepNameError,
    suggest,
)
from distilabel_dagster.pipeline.requirements import check_requirements
from distilabel_dagster.pipeline.serialization import (
    TYPE_INFO,
    dump_dag,
    fill_dag,
    read_file,
    read_pipeline_data,
)
from distilabel_dagster.steps.step import BaseStep

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_LONGEST_MADE_NAME: Final = 60


class PipelineDeclaration:
    """The declared half of `Pipeline`; see there for the arguments."""

    def __init__(
        self,
        name: str | None = None,
        description: str | None = None,
        cache_dir: str | Path | None = None,
        enable_metadata: bool = False,
        requirements: list[str] | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        ledger_url: str | None = None,
    ) -> None:
        if name is not None and not _NAME.fullmatch(name):
            raise StepNameError(
                f"A pipeline can't be called `{name}`: its name becomes a part of asset keys. Use 1 to 128 letters, "
                "digits, `_` and `-`.",
                name=name,
            )
        self._name = name
        self.description = description
        self.enable_metadata = enable_metadata
        self.requirements = list(requirements or [])
        self.storage_options = dict(storage_options or {})
        self.ledger_url = ledger_url if ledger_url is not None else default_ledger_url()
        # Where answers are kept instead, while the cache is another one.
        self.responses_url: str | None = None
        self.dag = DAG()
        self._cache_dir = cache_dir
        # Parameters of a run are set on the steps themselves, so runs of one object take turns.
        self._turn = threading.RLock()
        self._token: Token[StepRegistry | None] | None = None

    def __enter__(self) -> Self:
        self._token = activate(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            deactivate(self._token)
            self._token = None

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, steps={list(self.dag.steps)})"

    @property
    def name(self) -> str:
        """The name given, or one made of the steps' names."""
        made = "pipeline_" + "_".join(self.dag.steps)
        return self._name or made[:_LONGEST_MADE_NAME].rstrip("_")

    @property
    def given_cache_dir(self) -> str | None:
        """The `cache_dir=` that was given; None where the environment decides."""
        return None if self._cache_dir is None else str(self._cache_dir)

    @property
    def cache_dir(self) -> str:
        """Directory or URL of the cache."""
        return str(self._cache_dir if self._cache_dir is not None else default_cache_dir())

    def add_step(self, step: BaseStep) -> None:
        """Take a step in; steps made in the `with` block do this themselves.

        Raises:
            StepNameError: the name is taken.
        """
        self.dag.add_step(step)

    def free_step_name(self, prefix: str) -> str:
        """Give a name that starts with `prefix` and no step has yet."""
        return next(
            name
            for number in range(len(self.dag.steps) + 1)
            if (name := f"{prefix}_{number}") not in self.dag.steps
        )

    def connect(self, source: Any, target: Any) -> Any:
        """Make `target` follow `source`; what `>>` calls.

        Args:
            source: a step, a list of steps, or a routing function behind a step.
            target: a step, a list of steps, or a routing function.

        Returns:
            What the next `>>` continues from.

        Raises:
            PipelineDefinitionError: it can't be connected.
        """
        if isinstance(target, RoutingBatchFunction):
            return target.bind(source)
        targets = target if isinstance(target, list | tuple) else [target]
        sources = source if isinstance(source, list | tuple) else [source]
        for each in sources:
            if isinstance(each, RoutingBatchFunction):
                self.dag.set_routing(self._own(each.source).name, each)
                each = each.source  # noqa: PLW2901  (the step that the function stands behind)
            for following in targets:
                self.dag.add_edge(self._own(each).name, self._own(following).name)
        return target

    def _own(self, step: Any) -> BaseStep:
        if not isinstance(step, BaseStep):
            raise PipelineDefinitionError(
                f"`>>` connects steps, lists of steps and routing functions; found a {type(step).__name__}."
            )
        if self.dag.steps.get(step.name) is not step:
            raise PipelineDefinitionError(
                f"Step `{step.name}` isn't part of pipeline `{self.name}`. Make it inside the pipeline's `with` block."
            )
        return step

    @property
    def leaf_steps(self) -> list[str]:
        """Names of the steps that nothing follows: the Distiset's configs."""
        return self.dag.leaf_steps

    @property
    def step_signatures(self) -> dict[str, str]:
        """Each step's signature, 40 hexadecimal digits."""
        return compute_step_signatures(self.dag)

    @property
    def signature(self) -> str:
        """The pipeline's signature: its directory in the cache, and its partition key."""
        return compute_pipeline_signature(self.name, self.dag, self.step_signatures)

    def get_runtime_parameters_info(self) -> dict[str, list[RuntimeParameterInfo]]:
        """Describe the runtime parameters of each step."""
        return {name: step.get_runtime_parameters_info() for name, step in self.dag.steps.items()}

    def get_load_stages(self, load_groups: LoadGroups | None = None) -> list[list[str]]:
        """Give the stages that a run with these load groups goes through."""
        return compute_load_stages(self.dag, load_groups)

    def validate(self, *, parameters_may_be_missing: bool = False) -> None:
        """Check that the pipeline can run.

        Args:
            parameters_may_be_missing: whether runtime parameters that must be set may still be unset.

        Raises:
            PipelineDefinitionError: what is wrong, where, and what to do.
        """
        validate_dag(self.dag, parameters_may_be_missing=parameters_may_be_missing)
        check_requirements(self.name, self.requirements)

    @contextlib.contextmanager
    def with_parameters(self, parameters: Mapping[str, Mapping[str, Any]] | None) -> Iterator[Self]:
        """Set runtime parameters for the length of the block.

        Args:
            parameters: step -> parameter -> value.

        Raises:
            RuntimeParameterError: an unknown step or parameter, or a value of the wrong type.
        """
        before: list[tuple[BaseStep, dict[str, Any]]] = []
        try:
            for name, values in (parameters or {}).items():
                if name not in self.dag.steps:
                    raise RuntimeParameterError(
                        f"Runtime parameters are given for step `{name}`, which pipeline `{self.name}` hasn't."
                        f"{suggest(name, self.dag.steps)}"
                    )
                step = self.dag.steps[name]
                before.append((step, step.get_parameter_values(values)))
                step.set_runtime_parameters(dict(values), name)
            yield self
        finally:
            for step, values in reversed(before):
                step.restore_parameter_values(values)

    def dump(self) -> dict[str, Any]:
        """Give the pipeline as plain data, without secrets."""
        return {
            "distilabel": {
                "version": f"distilabel-dagster {importlib.metadata.version('distilabel-dagster')}"
            },
            "pipeline": {
                "name": self.name,
                "description": self.description,
                "enable_metadata": self.enable_metadata,
                **dump_dag(self.dag),
                "type_info": dict(TYPE_INFO),
            },
            "requirements": list(self.requirements),
        }

    def save(
        self,
        path: str | Path,
        overwrite: bool = False,
        format: Literal["yaml", "json"] = "yaml",  # noqa: A002 (distilabel's name)
    ) -> None:
        """Write the pipeline to a file that `from_yaml` or `from_json` reads.

        Raises:
            FileExistsError: the file is there, and `overwrite` is False.
        """
        file = Path(path).expanduser()
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists. Pass `overwrite=True` to replace it.")
        data = self.dump()
        text = dump_yaml(data) if format == "yaml" else json.dumps(data, indent=2)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    @classmethod
    def from_dict(
        cls,
        data: dict[str, Any],
        *,
        source: str = "the given dict",
        trusted_modules: Iterable[str] = (),
        **options: Any,
    ) -> Self:
        """Make the pipeline that `dump` gave `data` of.

        Args:
            data: the content of a pipeline file.
            source: how messages call it.
            trusted_modules: modules that may be imported for the classes of its steps.
            options: further arguments of `Pipeline`, such as `cache_dir`.

        Raises:
            PipelineFileError: it's truncated, of another format, or a field is wrong.
            UntrustedClassError: it names a class that nobody vouched for; nothing was imported.
        """
        pipeline, requirements = read_pipeline_data(data, source)
        options.setdefault("enable_metadata", pipeline.get("enable_metadata") is True)
        try:
            made = cls(
                pipeline.get("name"), pipeline.get("description"), requirements=requirements, **options
            )
        except StepNameError as error:
            raise PipelineFileError(f"{source}: {error}", source=source) from error
        # The steps register themselves in `made`, whichever pipeline's `with` block this is called in.
        with made:
            fill_dag(made.dag, pipeline, source, trusted_modules)
        return made

    @classmethod
    def from_yaml(cls, path: str | Path, *, trusted_modules: Iterable[str] = (), **options: Any) -> Self:
        """Read a pipeline from a YAML file; see `from_dict`."""
        return cls.from_dict(
            read_file(path, "yaml"), source=str(path), trusted_modules=trusted_modules, **options
        )

    @classmethod
    def from_json(cls, path: str | Path, *, trusted_modules: Iterable[str] = (), **options: Any) -> Self:
        """Read a pipeline from a JSON file; see `from_dict`."""
        return cls.from_dict(
            read_file(path, "json"), source=str(path), trusted_modules=trusted_modules, **options
        )
