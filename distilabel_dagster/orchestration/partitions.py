"""The signature as partition key: which pipeline a key means, and how keys become known."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from distilabel_dagster.base.serializable import is_secret_name
from distilabel_dagster.base.signature import NON_IDENTITY_FIELDS, is_signature
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import PipelineCache, read_pipeline_file
from distilabel_dagster.errors import (
    DamagedFileError,
    SignatureMismatchError,
    UnknownPartitionError,
)
from distilabel_dagster.orchestration.translator import python_name
from distilabel_dagster.pipeline import Pipeline

_Parameters = Mapping[str, Mapping[str, Any]]


def build_partitions_def(pipeline: Pipeline) -> dg.DynamicPartitionsDefinition:
    """Give the partitions definition of a pipeline's assets: `<pipeline>_signatures`."""
    return dg.DynamicPartitionsDefinition(name=partitions_name(pipeline))


def partitions_name(pipeline: Pipeline) -> str:
    """Name of the pipeline's partitions definition."""
    return f"{python_name(pipeline.name)}_signatures"


def register_partition(instance: dg.DagsterInstance, pipeline: Pipeline, signature: str) -> None:
    """Make a signature known to Dagster; safe to repeat."""
    instance.add_dynamic_partitions(partitions_name(pipeline), [signature])


def freeze_partition(pipeline: Pipeline) -> PipelineCache:
    """Write the pipeline's present form as `pipeline.yaml`, so that its signature alone brings it back."""
    cache = pipeline.open_cache()
    cache.write_pipeline_file(pipeline.freeze(cache))
    return cache


@contextmanager
def pipeline_of_partition(
    pipeline: Pipeline, partition_key: str, parameters: _Parameters, instance: dg.DagsterInstance
) -> Iterator[PipelineCache]:
    """Set the pipeline up as the partition key means it, for the length of the block.

    Args:
        pipeline: the pipeline as it's defined in today's code.
        partition_key: the signature to materialize.
        parameters: runtime parameters of the run config that differ from the pipeline's own.
        instance: where keys are registered.

    Yields:
        The pipeline's place in the cache, under that signature.

    Raises:
        UnknownPartitionError: the key is no signature, or neither the code nor the cache knows it.
        SignatureMismatchError: parameters of the run config give another signature, which is registered now; or
            today's code can't reproduce the key, and what differs is told.
        RuntimeParameterError: a runtime parameter that must be set isn't.
    """
    if not is_signature(partition_key):
        raise UnknownPartitionError(
            f"Pipeline `{pipeline.name}`: the partition key `{partition_key}` is no signature (40 hexadecimal digits). "
            f"The pipeline as it's defined now has the key `{pipeline.signature}`.",
            partition_key=partition_key,
        )
    base = pipeline.signature
    if base == partition_key:
        with pipeline.with_parameters(parameters):
            yield _matching_cache(pipeline, partition_key, parameters, instance)
        return
    with pipeline.with_parameters(parameters):
        is_match = bool(parameters) and pipeline.signature == partition_key
        if is_match:
            yield pipeline.open_cache()
    if is_match:
        return
    frozen = _read_frozen(pipeline, partition_key, base)
    with pipeline.with_parameters(_frozen_parameters(pipeline, frozen)):
        differences = find_differences(pipeline, frozen)
        if pipeline.signature != partition_key:
            raise SignatureMismatchError(
                pipeline.name,
                partition_key,
                base,
                differences,
                f"Bring the code or the data back to what they were, or materialize the partition `{base}`; what is "
                "unchanged upstream is reused there.",
            )
        with pipeline.with_parameters(parameters):
            yield _matching_cache(pipeline, partition_key, parameters, instance)


def _matching_cache(
    pipeline: Pipeline, partition_key: str, parameters: _Parameters, instance: dg.DagsterInstance
) -> PipelineCache:
    """The cache of the partition; where the run config's parameters lead elsewhere, say where."""
    pipeline.validate()
    cache = pipeline.open_cache()
    if cache.signature == partition_key:
        return cache
    cache.write_pipeline_file(pipeline.freeze(cache))
    register_partition(instance, pipeline, cache.signature)
    told = [
        f"`{step}.{name}` is {value!r}"
        for step, values in parameters.items()
        for name, value in values.items()
    ]
    raise SignatureMismatchError(
        pipeline.name,
        partition_key,
        cache.signature,
        told,
        f"The run config makes it another dataset. Nothing was run; the partition `{cache.signature}` is registered "
        f"for it, with these parameters: materialize that (on the command line: "
        f'`--tags \'{{"dagster/partition": "{cache.signature}"}}\'`).',
    )


def _read_frozen(pipeline: Pipeline, partition_key: str, base: str) -> dict[str, Any]:
    fs = CacheFileSystem(pipeline.cache_dir, pipeline.storage_options)
    try:
        frozen = read_pipeline_file(fs, partition_key)
    except (FileNotFoundError, DamagedFileError) as error:
        raise UnknownPartitionError(
            f"Pipeline `{pipeline.name}`: the partition `{partition_key}` isn't known: the cache {fs.url} has no readable "
            f"pipeline.yaml of it, and the pipeline as it's defined now has the key `{base}`. Materialize that one, or "
            "set the cache directory in which the other was made.",
            partition_key=partition_key,
        ) from error
    if frozen["pipeline"].get("name") != pipeline.name:
        raise UnknownPartitionError(
            f"Pipeline `{pipeline.name}`: the partition `{partition_key}` belongs to the pipeline "
            f"`{frozen['pipeline'].get('name')}`. The key of this one is `{base}`.",
            partition_key=partition_key,
        )
    return frozen


def _frozen_steps(frozen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    steps = frozen["pipeline"].get("steps") or []
    return {entry["name"]: entry["step"] for entry in steps if isinstance(entry, dict) and "step" in entry}


def _frozen_parameters(pipeline: Pipeline, frozen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Runtime parameters that the signature covers, as they were frozen, for steps that still have them.

    Others, such as batch sizes and where a store is, come from the code: the file may be somebody else's.
    """
    found = {}
    for name, values in _frozen_steps(frozen).items():
        step = pipeline.dag.steps.get(name)
        if step is not None:
            found[name] = _pick(step.runtime_parameters_names, values)
    return found


def _pick(names: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    picked: dict[str, Any] = {}
    for name, inner in names.items():
        if name not in values or name in NON_IDENTITY_FIELDS:
            continue
        if isinstance(inner, Mapping):
            if isinstance(values[name], Mapping):
                picked[name] = _pick(inner, values[name])
        else:
            picked[name] = values[name]
    return picked


def find_differences(pipeline: Pipeline, frozen: Mapping[str, Any]) -> list[str]:
    """Say in which steps and fields the pipeline differs from a frozen one; in their code or data, where fields agree."""
    then = _frozen_steps(frozen)
    signatures = frozen.get("signatures") or {}
    then_signatures = signatures.get("steps") or {}
    found = [f"step `{name}` is new" for name in pipeline.dag.steps if name not in then]
    found += [f"step `{name}` is gone" for name in then if name not in pipeline.dag.steps]
    now_signatures = pipeline.step_signatures
    differing: set[str] = set()
    for name in pipeline.dag.topological_order():
        if name not in then or then_signatures.get(name) == now_signatures[name]:
            continue
        differing.add(name)
        now = pipeline.dag.steps[name].dump()
        fields = list(_compare(then[name], now, name))
        if fields:
            found += fields
        elif not differing & set(pipeline.dag.predecessors(name)):
            found.append(f"the code, data or connections of step `{name}`")
    return found


def _compare(then: Mapping[str, Any], now: Mapping[str, Any], where: str) -> Iterator[str]:
    """Name the fields that differ, of those that are part of a signature; of objects in fields, their fields."""
    for field in dict.fromkeys([*now, *then]):
        before, after = then.get(field), now.get(field)
        if before == after or field in NON_IDENTITY_FIELDS or field == "runtime_parameters_info":
            continue
        if is_secret_name(str(field)):  # in a file that someone wrote by hand
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _compare(before, after, f"{where}.{field}")
        else:
            yield f"`{where}.{field}` was {_short(before)} and is {_short(after)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
