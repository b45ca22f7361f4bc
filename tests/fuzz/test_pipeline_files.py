"""Pipeline files from strangers: the pipeline, or an error of this package; nothing run, imported or opened."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilabel_dagster.base.json_data import load_json
from distilabel_dagster.base.yaml_data import dump_yaml, load_yaml
from distilabel_dagster.errors import DistilabelDagsterError
from distilabel_dagster.pipeline import Pipeline
from tests.fuzz.mutations import POISON, changed, damaged
from tests.fuzz.originals import as_data, build
from tests.fuzz.watch import watched

DATA = as_data(build("memory://nowhere"))
YAML, JSON = dump_yaml(DATA).encode(), json.dumps(DATA, indent=1).encode()
SHORT = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(SHORT, max_examples=5_000)


@pytest.fixture(scope="module", autouse=True)
def poison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put a module on the path that a file may name; and have all imported that an undamaged file needs."""
    directory = tmp_path_factory.mktemp("poison")
    (directory / POISON).mkdir()
    for name in ("__init__", "inner"):
        (directory / POISON / f"{name}.py").write_text("raise AssertionError('this was imported')\n")
    sys.path.insert(0, str(directory))
    Pipeline.from_dict(DATA).validate()
    yield
    sys.path.remove(str(directory))
    assert not [name for name in sys.modules if name.startswith(POISON)]


def read(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with watched(path.parent):
        try:
            pipeline = Pipeline.from_json(path) if path.suffix == ".json" else Pipeline.from_yaml(path)
            assert pipeline.signature == Pipeline.from_dict(pipeline.dump()).signature
            pipeline.validate(parameters_may_be_missing=True)
        except DistilabelDagsterError:
            pass


def check_structure(tmp_path: Path, data: Any) -> None:
    read(
        tmp_path / "pipeline.yaml", yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")
    )


def check_json(tmp_path: Path, data: Any) -> None:
    read(tmp_path / "pipeline.json", json.dumps(data).encode())


@SHORT
@given(data=changed(DATA))
def test_structure_changed(tmp_path: Path, data: Any) -> None:
    check_structure(tmp_path, data)


@SHORT
@given(data=changed(DATA))
def test_json_changed(tmp_path: Path, data: Any) -> None:
    check_json(tmp_path, data)


@SHORT
@given(content=damaged(YAML))
def test_yaml_damaged(tmp_path: Path, content: bytes) -> None:
    read(tmp_path / "pipeline.yaml", content)


@SHORT
@given(content=damaged(JSON))
def test_json_damaged(tmp_path: Path, content: bytes) -> None:
    read(tmp_path / "pipeline.json", content)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@LONG
@given(data=changed(DATA))
def test_structure_changed_often(tmp_path: Path, data: Any) -> None:
    check_structure(tmp_path, data)
    check_json(tmp_path, data)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@LONG
@given(content=damaged(YAML))
def test_yaml_damaged_often(tmp_path: Path, content: bytes) -> None:
    read(tmp_path / "pipeline.yaml", content)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=80)
@given(data=plain)
def test_what_is_written_is_read_again(data: Any) -> None:
    assert load_yaml(dump_yaml(data)) == data
    if "Infinity" not in json.dumps(data):
        assert load_json(json.dumps(data)) == data


@settings(max_examples=80)
@given(data=plain, text=st.text(max_size=30))
def test_yaml_is_read_as_pyyaml_reads_it(data: Any, text: str) -> None:
    """Where this reader takes a text at all, it says the same."""
    for each in (yaml.safe_dump(data), yaml.safe_dump(data, default_flow_style=True), text):
        try:
            found = load_yaml(each)
        except yaml.YAMLError:
            continue
        assert repr(found) == repr(yaml.safe_load(each))
