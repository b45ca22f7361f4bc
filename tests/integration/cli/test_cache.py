import json
from pathlib import Path

import pytest

from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import KeepColumns, LoadDataFromDicts, Step, StepInput, StepOutput
from tests.integration.cli.conftest import Command


def build_pipeline(cache_dir: str, rows: int = 3) -> Pipeline:
    with Pipeline("greetings", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(
            name="load", data=[{"text": str(i), "id": i} for i in range(rows)], batch_size=1
        )
        load >> KeepColumns(name="keep", columns=["text"], input_batch_size=1)
    return pipeline


@pytest.fixture(params=["local", "memory"])
def cache_dir(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "cache")
    return f"memory://{tmp_path.name}"


@pytest.fixture
def half_way(cache_dir: str) -> Pipeline:
    """A pipeline of which only the first step has run."""
    pipeline = build_pipeline(cache_dir)
    list(pipeline.iter_run(RunOptions(), steps=["load"]))
    return pipeline


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_list_says_what_there_is_and_how_far(command: Command, half_way: Pipeline, cache_dir: str) -> None:
    whole = build_pipeline(cache_dir, rows=5)
    whole.run()
    code, out, err = command("cache", "list", "--cache-dir", cache_dir)
    assert (code, err) == (0, "")
    title, *lines = out.splitlines()
    assert title.split() == ["signature", "pipeline", "rows", "state", "size", "last", "written"]
    assert [line.split()[:3] for line in lines] == [
        [whole.signature[:12], "greetings", "5"],
        [half_way.signature[:12], "greetings", "0"],
    ]
    assert "complete" in lines[0]
    assert "1/2 steps" in lines[1]

    content = json.loads(command("cache", "list", "--cache-dir", cache_dir, "--json")[1])
    assert [each["signature"] for each in content] == [whole.signature, half_way.signature]
    assert content[0]["is_complete"]
    assert content[0]["rows"] == 5
    assert content[0]["size_bytes"] > 0
    assert content[0]["last_written"] >= content[1]["last_written"]


def test_show_gives_the_steps_and_the_tree(command: Command, cache_dir: str) -> None:
    pipeline = build_pipeline(cache_dir)
    pipeline.run()
    signature = pipeline.signature
    code, out, err = command("cache", "show", signature[:6].upper(), "--cache-dir", cache_dir)
    assert (code, err) == (0, "")
    assert signature in out
    lines = [line.split() for line in out.splitlines()]
    steps = pipeline.step_signatures
    assert ["load", steps["load"][:12], "3", "3", "0", "complete"] in [line[:6] for line in lines]
    assert ["keep", steps["keep"][:12], "3", "3", "0", "complete"] in [line[:6] for line in lines]
    tree = out[out.rindex(signature) :].splitlines()[1:]
    assert tree[:3] == ["├── batch_manager.json", "├── batch_manager_steps", "│   └── keep.json"]
    assert tree[3:5] == ["├── data", "│   └── keep"]
    assert tree[5].endswith("── 00001.parquet")
    assert tree[-1] == "└── pipeline.yaml"


def test_show_as_json_has_it_all(command: Command, half_way: Pipeline, cache_dir: str) -> None:
    out = command("cache", "show", half_way.signature, "--cache-dir", cache_dir, "--json")[1]
    content = json.loads(out)
    assert content["leaf_steps"] == ["keep"]
    assert not content["is_complete"]
    load, keep = content["steps"]
    assert (load["rows"], load["batches"], load["failed_rows"], load["is_complete"]) == (3, 3, 0, True)
    assert any(file.endswith("00001.parquet") for file in load["files"])
    assert (keep["rows"], keep["is_complete"], keep["files"]) == (0, False, [])


def test_looking_changes_nothing(command: Command, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    pipeline = build_pipeline(str(directory))
    pipeline.run()
    before = snapshot(directory)
    command("cache", "list", "--cache-dir", str(directory))
    command("cache", "show", pipeline.signature, "--cache-dir", str(directory))
    assert snapshot(directory) == before
    assert command("cache", "list", "--cache-dir", str(tmp_path / "none"))[0] == 0
    assert not (tmp_path / "none").exists()


def test_unknown_signature_is_an_error_with_near_matches(
    command: Command, half_way: Pipeline, cache_dir: str
) -> None:
    known = half_way.signature
    wrong = known[:7] + ("0" if known[7] != "0" else "1")
    code, _, err = command("cache", "show", wrong, "--cache-dir", cache_dir)
    assert code == 1
    assert f"Did you mean `{known[:12]}`?" in err
    code, _, err = command("cache", "show", known[:5], "--cache-dir", cache_dir)
    assert code == 1
    assert "at least the first 6 digits" in err
    code, _, err = command("cache", "show", "nothing-like-it", "--cache-dir", cache_dir)
    assert code == 1
    assert f"It holds: `{known[:12]}`" in err


def test_pipeline_whose_file_is_damaged_is_listed_as_such(command: Command, tmp_path: Path) -> None:
    pipeline = build_pipeline(str(tmp_path / "cache"))
    pipeline.run()
    (tmp_path / "cache" / pipeline.signature / "pipeline.yaml").write_text("pipeline: [")
    code, out, _ = command("cache", "list", "--cache-dir", str(tmp_path / "cache"))
    assert code == 0
    assert "unreadable" in out
    code, out, _ = command("cache", "show", pipeline.signature, "--cache-dir", str(tmp_path / "cache"))
    assert code == 0
    assert "is no YAML" in out


def test_several_signatures_with_the_same_beginning_are_named(command: Command, tmp_path: Path) -> None:
    for last in "ab":
        (tmp_path / "cache" / ("1234567" + "0" * 32 + last)).mkdir(parents=True)
    code, _, err = command("cache", "show", "123456", "--cache-dir", str(tmp_path / "cache"))
    assert code == 1
    assert "several signatures" in err


def test_empty_cache_and_one_that_cannot_be_read(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("cache", "list", "--cache-dir", str(tmp_path))
    assert (code, out) == (0, f"No pipelines in {tmp_path}.\n")
    (tmp_path / "file").write_text("")
    code, _, err = command("cache", "list", "--cache-dir", str(tmp_path / "file"))
    assert code == 1
    assert "can't be listed" in err


def test_failed_rows_are_in_the_list(command: Command, cache_dir: str) -> None:
    with Pipeline("failing", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"text": "a"}, {"text": "b"}])
        load >> Fails(name="fails")
    pipeline.run()
    code, out, _ = command("cache", "list", "--cache-dir", cache_dir)
    assert code == 0
    assert "complete, 2 failed" in out


class Fails(Step):
    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "n": int(row["text"])} for row in inputs]
