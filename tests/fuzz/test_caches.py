"""Caches and Distisets from strangers, taken as a whole: listed, run on, loaded."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilabel_dagster.cache.inventory import list_pipelines
from distilabel_dagster.distiset import Distiset
from distilabel_dagster.errors import DistilabelDagsterError
from tests.fuzz.mutations import changed, damaged
from tests.fuzz.originals import build
from tests.fuzz.test_parts import footer_of, with_footer
from tests.fuzz.watch import watched

SHORT = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(SHORT, max_examples=300)
JSON_FILES = ["dataset_dict.json", "train/state.json", "train/dataset_info.json"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache after a run; tests change copies of it."""
    directory = tmp_path_factory.mktemp("original") / "cache"
    build(directory, is_whole=False).run()
    return directory


@pytest.fixture(scope="module")
def saved(cache: Path) -> Path:
    """A saved Distiset."""
    build(cache, is_whole=False).run().save_to_disk(cache.parent / "saved")
    assert set(Distiset.load_from_disk(cache.parent / "saved")) == {"expand", "few"}
    return cache.parent / "saved"


def copy(original: Path, tmp_path: Path) -> Path:
    """A copy that replaces the one of the example before."""
    target = tmp_path / original.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(original, target)
    return target


def run_on(cache: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Run on a cache in which one part tells another story, and steps behind it may be missing."""
    parts = sorted(cache.glob("steps_data/*/*.parquet"))
    part = data.draw(st.sampled_from(parts))
    footer = data.draw(changed(footer_of(part.read_bytes())).filter(lambda each: isinstance(each, dict)))
    here = copy(cache, tmp_path)
    changed_part = here / part.relative_to(cache)
    changed_part.unlink()
    changed_part.write_bytes(with_footer(part.read_bytes(), footer))
    for step in here.glob(f"steps_data/{data.draw(st.sampled_from(['none', 'join', 'expand', 'few']))}_*"):
        shutil.rmtree(step)
    with watched(here), contextlib.suppress(DistilabelDagsterError):
        distiset = build(here, is_whole=False).run()
        assert set(distiset) == {"expand", "few"}


def list_changed(cache: Path, tmp_path: Path, data: st.DataObject) -> None:
    """List a cache whose frozen pipeline says something else."""
    here = copy(cache, tmp_path)
    (file,) = here.glob("*/pipeline.yaml")
    found: Mapping[str, Any] = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(data.draw(changed(found))))
    with watched(here):
        (entry,) = list_pipelines(str(here))
    assert entry.problem or entry.steps


def load_changed(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Load a Distiset of which one file isn't what `datasets` wrote."""
    here = copy(saved, tmp_path)
    if data.draw(st.booleans()):
        file = here / "few" / data.draw(st.sampled_from(JSON_FILES))
        file.write_text(json.dumps(data.draw(changed(json.loads(file.read_text())))))
    else:
        (file,) = here.glob("few/train/*.arrow")
        file.write_bytes(data.draw(damaged(file.read_bytes())))
    with watched(here), contextlib.suppress(DistilabelDagsterError):
        for dataset in Distiset.load_from_disk(here)["few"].values():
            dataset.to_list()


@SHORT
@given(data=st.data())
def test_run_on_a_changed_cache(cache: Path, tmp_path: Path, data: st.DataObject) -> None:
    run_on(cache, tmp_path, data)


@SHORT
@given(data=st.data())
def test_list_a_changed_cache(cache: Path, tmp_path: Path, data: st.DataObject) -> None:
    list_changed(cache, tmp_path, data)


@settings(SHORT, max_examples=60)
@given(data=st.data())
def test_load_a_changed_distiset(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    load_changed(saved, tmp_path, data)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@LONG
@given(data=st.data())
def test_changed_caches_often(cache: Path, saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    run_on(cache, tmp_path, data)
    list_changed(cache, tmp_path, data)
    load_changed(saved, tmp_path, data)
