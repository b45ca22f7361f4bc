"""The cache as it stands on disk: what older versions wrote is read by newer ones only if this stays as it is.

After a meant change run with `--update-golden`, look at the diff, and give it a heading in CHANGELOG.md.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from distilabel_dagster.cache.part_file import read_part_footer
from distilabel_dagster.models import OfflineExtractiveLLM
from distilabel_dagster.pipeline import Pipeline, sample_n_steps
from distilabel_dagster.steps import CombineOutputs, ExpandColumns, KeepColumns, LoadDataFromDicts
from distilabel_dagster.steps.tasks import TextGeneration

GOLDEN = Path(__file__).parent / "cache"
PASSAGES = [
    "When a name is not found at all, a NameError exception is raised.",
    "A lambda expression yields a function object.",
    "The import statement combines two operations.",
]


def build(cache_dir: Path) -> Pipeline:
    with Pipeline("golden", description="What stands on disk", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(
            name="load", data=[{"passage": text, "tags": ["a", "b"]} for text in PASSAGES], batch_size=2
        )
        ask = TextGeneration(
            name="ask",
            llm=OfflineExtractiveLLM(mode="question"),
            template="Passage:\n{{ passage }}",
            columns="passage",
            output_mappings={"generation": "question"},
            input_batch_size=2,
        )
        keep = KeepColumns(name="keep", columns=["passage"], input_batch_size=2)
        join = CombineOutputs(name="join", input_batch_size=2)
        expand = ExpandColumns(name="expand", columns=["tags"], input_batch_size=1)
        load >> sample_n_steps(2) >> [ask, keep] >> join
        load_again = LoadDataFromDicts(
            name="load_again", data=[{"tags": [1, 2]}, {"tags": [3]}, {"tags": []}]
        )
        load_again >> expand
    return pipeline


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = build(tmp_path_factory.mktemp("golden") / "cache")
    made.run()
    return made


def _root(pipeline: Pipeline) -> Path:
    return Path(pipeline.cache_dir)


def _tree(pipeline: Pipeline) -> list[str]:
    """All files but the ledger's; how many parts there are is a matter of time."""
    files = (
        path.relative_to(_root(pipeline)).as_posix() for path in _root(pipeline).rglob("*") if path.is_file()
    )
    return sorted(
        {re.sub(r"\d{5}\.parquet$", "00001.parquet", name) for name in files if "ledger.sqlite" not in name}
    )


def _without_version(text: str) -> str:
    return re.sub(r"version: distilabel-dagster \S+", "version: distilabel-dagster 0", text)


def _footers(pipeline: Pipeline) -> dict[str, list[Any]]:
    """Of each step the batches as its parts' footers tell of them."""
    found: dict[str, list[Any]] = {}
    for part in sorted(_root(pipeline).glob("steps_data/*/*.parquet")):
        with part.open("rb") as file:
            footer = json.loads(read_part_footer(file).content)
        assert sorted(footer) == ["batches", "checksums", "format", "schemas", "signature", "step_name"]
        assert part.parent.name == f"{footer['step_name']}_{footer['signature']}"
        found.setdefault(part.parent.name, []).extend(map(_without_revisions, footer["batches"]))
    return found


def _without_revisions(batch: dict[str, Any]) -> dict[str, Any]:
    """Revisions may be made of the time."""
    sources = batch.get("created_from", {})
    assert all(len(source) == 4 for taken in sources.values() for source in taken)
    return {
        **{key: value for key, value in batch.items() if key != "revision"},
        **(
            {"created_from": {name: [each[:3] for each in taken] for name, taken in sources.items()}}
            if sources
            else {}
        ),
    }


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


CONTENTS = {
    "tree.json": lambda p: _dumped(_tree(p)),
    "pipeline.yaml": lambda p: _without_version((_root(p) / p.signature / "pipeline.yaml").read_text()),
    "batch_manager.json": lambda p: (_root(p) / p.signature / "batch_manager.json").read_text(),
    "batch_manager_steps.json": lambda p: _dumped(
        {
            f.stem: json.loads(f.read_text())
            for f in sorted((_root(p) / p.signature / "batch_manager_steps").iterdir())
        }
    ),
    "complete.json": lambda p: _dumped(
        {
            f.parent.name: json.loads(f.read_text())
            for f in sorted(_root(p).glob("steps_data/*/complete.json"))
        }
    ),
    "footers.json": lambda p: _dumped(_footers(p)),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_cache_is_written_as_ever(pipeline: Pipeline, name: str, update_golden: bool) -> None:
    found = CONTENTS[name](pipeline)
    file = GOLDEN / name
    if update_golden:
        file.parent.mkdir(exist_ok=True)
        file.write_text(found)
    assert found == file.read_text()


def test_the_tree_is_the_seeds(pipeline: Pipeline) -> None:
    """As `tree` prints it in the original documentation of caching, plus the log."""
    inside = [name.partition("/")[2] for name in _tree(pipeline) if name.startswith(pipeline.signature)]
    assert [name for name in inside if name != "pipeline.log"] == [
        "batch_manager.json",
        "batch_manager_steps/ask.json",
        "batch_manager_steps/expand.json",
        "batch_manager_steps/join.json",
        "batch_manager_steps/keep.json",
        "data/expand/00001.parquet",
        "data/join/00001.parquet",
        "pipeline.yaml",
    ]


def test_the_frozen_pipeline_is_read_again(pipeline: Pipeline) -> None:
    read = Pipeline.from_dict(yaml.safe_load((GOLDEN / "pipeline.yaml").read_text()))
    assert read.signature == pipeline.signature
    assert read.step_signatures == pipeline.step_signatures


def test_it_is_equal_in_another_place(pipeline: Pipeline, tmp_path: Path) -> None:
    again = build(tmp_path / "elsewhere")
    again.run()
    for name, content in CONTENTS.items():
        assert content(again) == content(pipeline), name
