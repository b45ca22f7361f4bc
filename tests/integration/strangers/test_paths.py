"""Nothing outside the cache's directory is read or written, whatever names and links in it say."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.inventory import list_pipelines
from distilabel_dagster.distiset import Distiset, create_distiset
from distilabel_dagster.errors import CacheDirectoryError, CacheError, DistilabelDagsterError, DistisetError
from distilabel_dagster.pipeline import Pipeline
from tests.fuzz.mutations import NAMES
from tests.fuzz.originals import build
from tests.fuzz.watch import watched

SECRET = "what stands outside"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache after a run, which tests copy."""
    directory = tmp_path_factory.mktemp("finished") / "cache"
    build(directory, is_whole=False).run()
    return directory


@pytest.fixture
def cache(finished: Path, tmp_path: Path) -> Path:
    """A cache as a stranger gives it, and a directory beside it that's not to be touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text(SECRET)
    shutil.copytree(finished, tmp_path / "cache")
    return tmp_path / "cache"


def outside_of(cache: Path) -> dict[str, str]:
    return {
        str(path.relative_to(cache.parent)): path.read_text()
        for path in (cache.parent / "outside").rglob("*")
    }


def replace_by_link(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)


LINKS: dict[str, Callable[[Path, Pipeline], tuple[Path, Path]]] = {
    "a part": lambda root, p: (
        next(root.glob("steps_data/few_*")) / "00001.parquet",
        root.parent / "outside" / "file",
    ),
    "a step's directory": lambda root, p: (next(root.glob("steps_data/few_*")), root.parent / "outside"),
    "all steps": lambda root, p: (root / "steps_data", root.parent / "outside"),
    "the pipeline's directory": lambda root, p: (root / p.signature, root.parent / "outside"),
    "its file": lambda root, p: (root / p.signature / "pipeline.yaml", root.parent / "outside" / "file"),
    "its log": lambda root, p: (root / p.signature / "pipeline.log", root.parent / "outside" / "file"),
    "a leaf": lambda root, p: (root / p.signature / "data" / "few", root.parent / "outside"),
    "the snapshot": lambda root, p: (
        root / p.signature / "batch_manager.json",
        root.parent / "outside" / "file",
    ),
    "the ledger": lambda root, p: (root / "ledger.sqlite", root.parent / "outside" / "file"),
    "what SQLite keeps beside it": lambda root, p: (
        root / "ledger.sqlite-wal",
        root.parent / "outside" / "new",
    ),
    "a link to a link": lambda root, p: (root / p.signature / "pipeline.yaml", root / "there"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_a_link_that_leads_out_is_not_followed(cache: Path, kind: str) -> None:
    pipeline = build(cache, is_whole=False)
    link, target = LINKS[kind](cache, pipeline)
    (cache / "there").symlink_to(cache.parent / "outside" / "file")
    replace_by_link(link, target)
    before = outside_of(cache)
    places = (cache, cache.parent / "home")
    with watched(*places):
        told = ""
        try:
            pipeline.run()
        except DistilabelDagsterError as error:
            told = str(error)
        list_pipelines(str(cache))
    assert outside_of(cache) == before
    assert SECRET not in told
    # What is only ever written is put in the link's place; all else is told.
    assert (
        kind in ("its file", "the snapshot", "a link to a link")
        or "is a link that leads out of the cache directory" in told
    )


def test_links_inside_the_cache_and_to_it_are_followed(cache: Path) -> None:
    (cache / "moved").mkdir()
    (cache / "steps_data").rename(cache / "moved" / "steps_data")
    (cache / "steps_data").symlink_to("moved/steps_data")
    (cache.parent / "link").symlink_to(cache)
    pipeline = build(cache.parent / "link", is_whole=False)
    assert pipeline.run()["few"]["train"].num_rows == 3
    (entry,) = list_pipelines(str(cache.parent / "link"))
    assert entry.is_complete


def test_links_in_circles_end(cache: Path) -> None:
    for name in ("one", "two", "three"):
        (cache / name).symlink_to(cache)
    fs = CacheFileSystem(cache)
    assert {file.path.partition("/")[0] for file in fs.list_files("")} == {
        name.name for name in cache.iterdir() if not name.is_symlink()
    }


ACTIONS: dict[str, Callable[[CacheFileSystem, str], Any]] = {
    "read_bytes": lambda fs, path: fs.read_bytes(path),
    "open_input": lambda fs, path: fs.open_input(path).read(),
    "write_bytes": lambda fs, path: fs.write_bytes(path, b"x"),
    "append_bytes": lambda fs, path: fs.append_bytes(path, b"x"),
    "link": lambda fs, path: fs.link("inside", path),
    "link from": lambda fs, path: fs.link(path, "new"),
    "exists": lambda fs, path: fs.exists(path),
    "list_names": lambda fs, path: fs.list_names(path),
    "list_files": lambda fs, path: fs.list_files(path),
    "remove": lambda fs, path: fs.remove(path),
    "set_aside": lambda fs, path: fs.set_aside(path, ".set-aside"),
    "remove_temporary_files": lambda fs, path: fs.remove_temporary_files(path),
}
OUTWARD = [
    "../outside/file",
    "a/../../outside/file",
    "..",
    "/etc/passwd",
    "./inside",
    "a//b",
    "a/",
    "x::file:///etc/passwd",
    "a\0b",
]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_no_path_leads_out(cache: Path, action: str, kind: str) -> None:
    if (kind, action) == ("memory", "remove_temporary_files"):
        pytest.skip("a write to a store leaves nothing unfinished")
    fs = CacheFileSystem(cache if kind == "local" else f"memory://{cache.name}")
    fs.write_bytes("inside", b"mine")
    before = outside_of(cache)
    for path in OUTWARD:
        with watched(cache), pytest.raises(CacheError, match="can't be a path in the cache"):
            ACTIONS[action](fs, path)
    assert outside_of(cache) == before


def test_written_forms_of_dots_are_names_like_any_other(tmp_path: Path) -> None:
    fs = CacheFileSystem(tmp_path / "cache")
    for name in ("%2e%2e%2fx", "．．", "\u2025", "..\u200b", "\u202e..", "e\u0301", "a%00b", "%252e%252e"):
        fs.write_bytes(f"{name}/file", b"here")
        assert fs.read_bytes(f"{name}/file") == b"here"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("distiset", "self", "pipeline", "name")]
)
def test_names_of_steps_in_a_frozen_pipeline_lead_nowhere(cache: Path, name: str) -> None:
    signature = build(cache, is_whole=False).signature
    file = cache / signature / "pipeline.yaml"
    data = yaml.safe_load(file.read_text())
    steps = data["signatures"]["steps"]
    steps[name] = steps.pop("few")
    for entry in data["pipeline"]["steps"]:
        if entry["name"] == "few":
            entry["name"] = entry["step"]["name"] = name
    file.write_text(yaml.safe_dump(data))
    with watched(cache):
        (entry,) = list_pipelines(str(cache))
    assert entry.problem
    assert not entry.steps


@pytest.mark.parametrize(
    "name",
    [
        "000001.parquet",
        "0000000001.parquet",
        "\uff10\uff10\uff10\uff10\uff11.parquet",
        "00001.PARQUET",
        "٠٠٠٠١.parquet",
    ],
)
def test_a_part_has_one_name(cache: Path, name: str) -> None:
    """A second part 1 would have the first set aside as one that doesn't follow."""
    step = next(cache.glob("steps_data/few_*"))
    shutil.copy(step / "00001.parquet", step / name)
    before = sorted(path.name for path in step.iterdir())
    assert build(cache, is_whole=False).run()["few"]["train"].num_rows == 3
    assert sorted(path.name for path in step.iterdir()) == before


# --- Distisets ------------------------------------------------------------------------------------


@pytest.fixture
def saved(cache: Path) -> Path:
    """A Distiset as a stranger gives it, beside the cache."""
    build(cache, is_whole=False).run().save_to_disk(cache.parent / "saved")
    return cache.parent / "saved"


def change_json(file: Path, change: Callable[[Any], None]) -> None:
    data = yaml.safe_load(file.read_text())
    change(data)
    file.write_text(
        str(data).replace("'", '"').replace("None", "null").replace("False", "false").replace("True", "true")
    )


CHANGES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "a split elsewhere": ("few/dataset_dict.json", lambda d: d.update(splits=["../expand/train"])),
    "an absolute split": ("few/dataset_dict.json", lambda d: d.update(splits=["/etc"])),
    "no list of splits": ("few/dataset_dict.json", lambda d: d.update(splits={"train": 1})),
    "a data file elsewhere": (
        "few/train/state.json",
        lambda d: d["_data_files"][0].update(filename="../../../outside/file"),
    ),
    "an absolute data file": (
        "few/train/state.json",
        lambda d: d["_data_files"][0].update(filename="/etc/passwd"),
    ),
    "no data files": ("few/train/state.json", lambda d: d.pop("_data_files")),
    "a format of one's own": ("few/train/state.json", lambda d: d.update(_format_type="custom")),
    "a format's options": (
        "few/train/state.json",
        lambda d: d.update(_format_kwargs={"transform": "os.system"}),
    ),
    "features of no type": (
        "few/train/dataset_info.json",
        lambda d: d.update(features={"n": {"_type": "Popen"}}),
    ),
    "features of no form": ("few/train/dataset_info.json", lambda d: d.update(features=5)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_saved_distiset_leads_nowhere(saved: Path, change: str) -> None:
    name, make = CHANGES[change]
    change_json(saved / name, make)
    with watched(saved), pytest.raises(DistisetError, match="Config `few` can't be read"):
        Distiset.load_from_disk(saved)


def test_files_that_are_links_are_not_taken_for_the_distisets_own(saved: Path, cache: Path) -> None:
    """Its log would be pushed with it."""
    replace_by_link(saved / "distiset_configs" / "pipeline.log", cache.parent / "outside" / "file")
    with watched(saved), pytest.raises(CacheDirectoryError, match="is a link that leads out"):
        Distiset.load_from_disk(saved)
    replace_by_link(
        cache / build(cache, is_whole=False).signature / "pipeline.log", cache.parent / "outside" / "file"
    )
    with watched(cache), pytest.raises(CacheDirectoryError, match="is a link that leads out"):
        create_distiset(cache / build(cache, is_whole=False).signature)


def test_a_store_with_dots_in_its_names_is_not_copied_out(saved: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(saved), "/strange/saved", recursive=True)
    memory.store["/strange/saved/../../escaped"] = memory.store["/strange/saved/few/dataset_dict.json"]
    try:
        with watched(tmp_path), pytest.raises((DistisetError, CacheError)):
            Distiset.load_from_disk("memory://strange/saved", download_dir=tmp_path / "copies" / "here")
        assert not list(tmp_path.rglob("escaped"))
    finally:
        memory.rm("/strange", recursive=True)


def test_rows_refer_to_no_files_elsewhere(tmp_path: Path) -> None:
    """To look at such a row would open the file, or fetch it."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    leaf = tmp_path / "data" / "leaf"
    leaf.mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    described = {b"huggingface": json.dumps({"info": {"features": {"picture": {"_type": "Image"}}}}).encode()}
    for path in ("/etc/passwd", "http://127.0.0.1:9/x.png"):
        table = pa.table(
            {"picture": pa.array([{"bytes": None, "path": path}], kind)}
        ).replace_schema_metadata(described)
        pq.write_table(table, leaf / "00001.parquet")
        with pytest.raises(DistisetError, match="refers to files elsewhere"):
            create_distiset(tmp_path / "data")
    table = pa.table(
        {"picture": pa.array([{"bytes": b"x", "path": "x.png"}, None], kind)}
    ).replace_schema_metadata(described)
    pq.write_table(table, leaf / "00001.parquet")
    assert create_distiset(tmp_path / "data")["leaf"]["train"].num_rows == 2


def test_a_pipe_in_the_cache_is_not_waited_for(cache: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    part = next(cache.glob("steps_data/few_*")) / "00001.parquet"
    part.unlink()
    os.mkfifo(part)
    assert build(cache, is_whole=False).run()["few"]["train"].num_rows == 3
