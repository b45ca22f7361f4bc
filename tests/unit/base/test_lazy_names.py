import importlib
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.base.lazy_names import load_names_lazily

ROOT = Path(__file__).parents[3]
PACKAGES = ("distilabel_dagster.models", "distilabel_dagster.steps", "distilabel_dagster.steps.tasks")
_PROBE = """
import json, sys
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import KeepColumns, LoadDataFromDicts
with Pipeline("small") as pipeline:
    LoadDataFromDicts(name="load", data=[{"text": "hey"}]) >> KeepColumns(name="keep", columns=["text"])
pipeline.validate()
print(json.dumps(sorted(sys.modules)))
"""


def test_a_name_is_imported_when_it_is_used_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("lazy_package")
    monkeypatch.setitem(sys.modules, "lazy_package", package)
    get, list_names = load_names_lazily("lazy_package", {"json": ["dumps"], "json.decoder": ["JSONDecoder"]})
    assert "dumps" not in vars(package)
    assert get("dumps") is json.dumps
    assert vars(package)["dumps"] is json.dumps
    assert {"dumps", "JSONDecoder", "__name__"} <= set(list_names())
    with pytest.raises(AttributeError, match="module 'lazy_package' has no attribute 'loads'"):
        get("loads")


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_found_listed_and_imported_by_a_star(package: str) -> None:
    module = importlib.import_module(package)
    named: dict[str, Any] = {}
    exec(f"from {package} import *", named)
    assert set(module.__all__) <= named.keys() & set(dir(module))
    assert not any(isinstance(named[name], types.ModuleType) for name in module.__all__)
    with pytest.raises(ImportError, match="Nothing"):
        exec(f"from {package} import Nothing")


def test_a_pipeline_without_models_imports_what_it_uses() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    unused = {
        "distilabel_dagster.models.azure",
        "distilabel_dagster.models.openai",
        "distilabel_dagster.steps.dedup",
        "distilabel_dagster.steps.generators.huggingface",
        "distilabel_dagster.steps.tasks.rate",
        "distilabel_dagster.steps.tasks.embedding_generation",
        "packaging.requirements",
        "pyarrow.compute",
        "sqlalchemy.dialects.postgresql",
    }
    assert unused.intersection(json.loads(done.stdout)) == set()
