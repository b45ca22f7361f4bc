"""LoadDataFromDicts and DataSampler: rows given in the code, their identity and their place in a pipeline file."""

import copy
import datetime as dt
import json
import random
import sys
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.errors import (
    PipelineDefinitionError,
    PipelineFileError,
    RuntimeParameterError,
    SerializationError,
)
from distilabel_dagster.steps import DataSampler, GeneratorStep, LoadDataFromDicts, make_generator_step
from distilabel_dagster.steps.generators.data import INLINE_LIMIT_BYTES

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "api_key", "type_info"]), JSON_VALUES), max_size=4)


def signature(step: GeneratorStep) -> str:
    return compute_signature(describe_identity(step))


def through_yaml(step: GeneratorStep) -> Any:
    return type(step).from_dict(yaml.safe_load(yaml.safe_dump(step.dump())))


def read_all(step: GeneratorStep, offset: int = 0) -> list[dict[str, Any]]:
    step.load()
    return [row for rows, _ in step.process(offset=offset) for row in rows]


def test_columns_are_those_of_all_rows() -> None:
    assert LoadDataFromDicts(data=[{"a": 1, "b": 2}, {"b": 3, "a": 4}]).outputs == ["a", "b"]
    uneven = LoadDataFromDicts(data=[{"a": 1}, {"a": 2, "b": 3}])
    assert uneven.outputs == {"a": True, "b": False}
    assert LoadDataFromDicts(data=[]).outputs == []


def test_rows_are_given_in_batches_with_one_last() -> None:
    load = LoadDataFromDicts(data=[{"n": n} for n in range(5)], batch_size=2)
    assert [(len(rows), last) for rows, last in load.process()] == [(2, False), (2, False), (1, True)]
    assert list(LoadDataFromDicts(data=[]).process()) == [([], True)]
    assert list(load.process(offset=5)) == [([], True)]
    assert [row["n"] for row in read_all(load)] == [0, 1, 2, 3, 4], "it can be read more than once"


def test_given_rows_stay_as_they_are() -> None:
    rows = [{"n": [1]}, {"n": [2]}]
    before = copy.deepcopy(rows)
    load = LoadDataFromDicts(data=rows)
    for row in read_all(load):
        row["n"] = "changed"
        row["more"] = 1
    assert rows == before
    assert read_all(load) == before


def test_row_content_and_order_are_identity() -> None:
    rows = [{"q": "a", "n": 1}, {"q": "b", "n": 2}]
    one = signature(LoadDataFromDicts(name="load", data=rows))
    assert signature(LoadDataFromDicts(name="load", data=copy.deepcopy(rows), batch_size=1)) == one
    assert signature(LoadDataFromDicts(name="load", data=[{"n": 1, "q": "a"}, rows[1]])) == one
    assert signature(LoadDataFromDicts(name="load", data=rows[::-1])) != one
    assert signature(LoadDataFromDicts(name="load", data=[*rows, {"q": "c"}])) != one
    assert signature(LoadDataFromDicts(name="load", data=[{"q": "a", "n": 1.5}, rows[1]])) != one
    assert signature(LoadDataFromDicts(name="load", data=[{"q": "a", "api_key": "k"}, rows[1]])) != one


def test_assigned_rows_change_the_fingerprint() -> None:
    load = LoadDataFromDicts(name="load", data=[{"n": 1}])
    before = load.data_fingerprint()
    load.set_runtime_parameters({"data": [{"n": 2}]})
    assert load.data_fingerprint() != before
    assert load.outputs == ["n"]


def test_fingerprint_of_unchanged_rows_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    load = LoadDataFromDicts(name="load", data=[{"n": 1}])
    first = load.data_fingerprint()
    monkeypatch.setattr(LoadDataFromDicts, "_hash_rows", lambda *_: pytest.fail("computed again"))
    assert load.data_fingerprint() == first


def test_value_that_is_no_data_is_named() -> None:
    load = LoadDataFromDicts(name="load", data=[{"n": 1}, {"n": 1, "bad": object()}])
    with pytest.raises(SerializationError, match=r"`load`: row 1 of `data`, column `bad`"):
        load.data_fingerprint()


@given(ROWS)
def test_pipeline_file_gives_the_same_signature(rows: list[dict[str, Any]]) -> None:
    step = LoadDataFromDicts(name="load", data=rows)
    loaded = through_yaml(step)
    assert signature(loaded) == signature(step)
    assert loaded.column_presence() == step.column_presence()
    if loaded.data is not None:
        assert loaded.data == rows


def test_small_rows_are_written_as_they_are() -> None:
    rows = [{"api_key": "is data here", "none": None, "deep": [{"x": 1.5}]}, {}]
    dumped = LoadDataFromDicts(name="load", data=rows).dump()
    assert dumped["data"] == rows
    assert "data_fingerprint" not in dumped
    assert "api_key" not in json.dumps(dumped["runtime_parameters_info"])


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "x" * 1000, "n": n} for n in range(INLINE_LIMIT_BYTES // 1000 + 1)],
        [{"when": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)}],
        [{"pair": (1, 2)}],
        [{"by_number": {1: "a"}}],
        [{"vector": np.arange(3)}],
        [{"bytes": b"\x00"}],
        [{"type_info": {"module": "os", "name": "system"}}],
        [{"nan": float("nan")}],
    ],
    ids=["large", "datetime", "tuple", "int key", "array", "bytes", "type_info", "nan"],
)
def test_other_rows_are_identified_only(rows: list[dict[str, Any]]) -> None:
    step = LoadDataFromDicts(name="load", data=rows)
    dumped = step.dump()
    assert "data" not in dumped
    assert dumped["data_rows"] == len(rows)

    loaded = through_yaml(step)
    assert signature(loaded) == signature(step)
    assert loaded.outputs == step.outputs
    assert loaded.missing_runtime_parameters() == []
    assert loaded.dump() == dumped
    for act in (loaded.load, lambda: list(loaded.process())):
        with pytest.raises(RuntimeParameterError, match=r'parameters=\{"load": \{"data": \[\.\.\.\]\}\}'):
            act()

    loaded.set_runtime_parameters({"data": rows})
    assert signature(loaded) == signature(step)
    assert len(read_all(loaded)) == len(rows)


def test_damaged_stored_data_is_refused() -> None:
    dumped = LoadDataFromDicts(name="load", data=[{"pair": (1, 2)}]).dump()
    for damage in ({"data_rows": "2"}, {"data_columns": None}, {"data_fingerprint": 3}):
        with pytest.raises(PipelineFileError, match="pass the rows as `data`"):
            LoadDataFromDicts.from_dict({**dumped, **damage})
    del dumped["data_columns"]
    with pytest.raises(PipelineFileError):
        LoadDataFromDicts.from_dict(dumped)


def test_rows_that_were_never_given_are_missing() -> None:
    load = LoadDataFromDicts(name="load")
    assert load.missing_runtime_parameters() == ["data"]
    assert load.data_fingerprint() is None
    assert "data" not in load.dump()
    with pytest.raises(RuntimeParameterError, match="has no `data`"):
        load.load()


@pytest.mark.parametrize("rows", ["text", [1], [{1: "a"}], {"a": [1]}])
def test_what_is_no_list_of_rows_is_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match="data"):
        LoadDataFromDicts(data=rows)


def test_sampler_draws_columns_of_lists() -> None:
    sampler = DataSampler(data=[{"a": 1}, {"a": 2, "b": "x"}], size=3, samples=7, batch_size=4)
    rows = read_all(sampler)
    assert [(len(batch), last) for batch, last in sampler.process()] == [(4, False), (3, True)]
    assert sampler.outputs == ["a", "b"]
    for row in rows:
        assert [{1: None, 2: "x"}[a] for a in row["a"]] == row["b"]
        assert len(row["a"]) == 3


def test_samples_depend_on_seed_alone() -> None:
    data = [{"n": n} for n in range(1000)]
    rows = read_all(DataSampler(data=data, samples=20))
    random.seed(1)
    assert read_all(DataSampler(data=data, samples=20, batch_size=3)) == rows
    assert read_all(DataSampler(data=data, samples=25))[:20] == rows
    assert read_all(DataSampler(data=data, samples=20, seed=1)) != rows
    assert len({tuple(row["n"]) for row in rows}) > 10
    assert rows[0] == {"n": [584, 573]}, "other releases and Python versions draw the same"
    names = {signature(DataSampler(name="s", data=data, seed=seed, samples=20)) for seed in (0, 1)}
    assert len(names) == 2


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(RuntimeParameterError, match="without rows"):
        DataSampler(data=[]).load()
    assert list(DataSampler(data=[], samples=0).process()) == [([], True)]
    with pytest.raises(ValueError, match="size"):
        DataSampler(data=[{"a": 1}], size=0)


def test_datasets_in_memory_become_steps() -> None:
    rows = [{"n": 1, "s": "x"}, {"n": 2, "s": None}]
    given = [
        rows,
        datasets.Dataset.from_list(rows),
        pd.DataFrame(rows).set_index(pd.Index([7, 8])),
        pa.Table.from_pylist(rows),
    ]
    for dataset in given:
        step = make_generator_step(dataset, batch_size=1, output_mappings={"n": "m"})
        assert read_all(step) == rows
        assert step.batch_size == 1
        assert list(step.get_outputs()) == ["m", "s"]
    with pytest.raises(PipelineDefinitionError, match=r"builtins\.dict can't be"):
        make_generator_step({"a": [1]})


def test_no_heavy_module_is_needed_for_lists() -> None:
    assert "datasets" not in sys.modules[LoadDataFromDicts.__module__].__dict__
