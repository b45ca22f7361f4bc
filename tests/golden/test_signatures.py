import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distilabel_dagster.base.signature import SIGNATURE_SCHEME
from distilabel_dagster.pipeline import sample_n_steps
from tests.golden import pipelines
from tests.golden.pipelines import ROWS, build

GOLDEN = Path(__file__).parent / "signatures" / f"scheme-{SIGNATURE_SCHEME}.json"
ALL = {"load", "speak", "measure", "keep", "join", "count"}


def test_signatures_are_those_of_the_release_that_wrote_the_file(update_golden: bool) -> None:
    """If this fails, every cache of every user is computed anew: bump SIGNATURE_SCHEME and say so in CHANGELOG."""
    found = pipelines.describe()
    if update_golden:
        GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_signatures_are_equal_in_another_process(seed: str) -> None:
    """As a script as well as imported, and whatever the order of sets."""
    root = Path(__file__).parents[2]
    code = "import json; from tests.golden import pipelines; print(json.dumps(pipelines.describe()))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == json.loads(GOLDEN.read_text())


def changed(**arguments) -> set[str]:
    """The steps that get another signature."""
    before, after = build().step_signatures, build(**arguments).step_signatures
    assert (build().signature == build(**arguments).signature) is (before == after)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"rows": [*ROWS, {"text": "new"}]}, ALL),
        ({"mark": "?"}, {"speak", "keep", "join", "count"}),
        ({"unit": "bytes"}, {"measure", "join"}),
        ({"columns": ("said", "text")}, {"keep", "count"}),
        ({"routing": sample_n_steps(1)}, ALL - {"load"}),
    ],
    ids=["rows", "field", "runtime parameter", "leaf", "routing"],
)
def test_a_change_gives_new_signatures_downstream_and_nowhere_else(arguments, expected: set[str]) -> None:
    assert changed(**arguments) == expected


@pytest.mark.parametrize(
    "arguments", [{"size": 5}, {"replicas": 2}, {"api_key": "hunter2"}, {"cache_dir": "memory://elsewhere"}]
)
def test_what_cannot_change_the_rows_changes_no_signature(arguments) -> None:
    assert changed(**arguments) == set()


def test_a_constant_and_a_helper_of_the_step_s_module_count(monkeypatch) -> None:
    from distilabel_dagster.base import code_fingerprint

    before = build().step_signatures
    monkeypatch.setattr(pipelines, "PROMPT", "Tell: ")
    code_fingerprint._cached_fingerprint.cache_clear()
    after = build().step_signatures
    code_fingerprint._cached_fingerprint.cache_clear()
    assert {name for name in ALL if before[name] != after[name]} == {"speak", "keep", "join", "count"}


def test_the_pipeline_s_name_is_part_of_its_signature_and_of_no_step_s() -> None:
    one, other = build(), build()
    other._name = "other"
    assert one.signature != other.signature
    assert one.step_signatures == other.step_signatures
