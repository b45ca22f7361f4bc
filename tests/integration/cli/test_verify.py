"""`cache verify`: what it prints, its exit codes, and whom it leaves alone."""

import json
import os
import time
from pathlib import Path

import pytest

from distilabel_dagster.cache import layout
from distilabel_dagster.ledger.leases import Leases
from distilabel_dagster.pipeline import Pipeline
from tests.integration.cli.conftest import Command
from tests.integration.cli.test_cache import build_pipeline, snapshot


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def pipeline(directory: Path) -> Pipeline:
    """A pipeline that has been run."""
    made = build_pipeline(str(directory))
    made.run()
    return made


def step_dir(directory: Path, pipeline: Pipeline, step: str) -> Path:
    return directory / layout.step_dir(step, pipeline.step_signatures[step])


def flip(path: Path, at: int = 40) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    with path.open("r+b") as file:  # both names of a leaf's part, as a bad disk would
        file.write(content)


def test_a_whole_cache_is_told_in_one_line(command: Command, directory: Path, pipeline: Pipeline) -> None:
    before = snapshot(directory)
    parts = len(list(directory.glob("steps_data/*/*.parquet")))
    code, out, err = command("cache", "verify", "--cache-dir", str(directory))
    plural = "" if parts == 1 else "s"
    assert (code, err) == (0, "")
    assert out == f"checked 2 steps, {parts} part{plural}, 6 rows, 0 answers: no damage\n"
    assert snapshot(directory) == before


def test_each_finding_is_a_line_with_its_path(command: Command, directory: Path, pipeline: Pipeline) -> None:
    part = step_dir(directory, pipeline, "load") / "00001.parquet"
    flip(part)
    (directory / pipeline.signature / "batch_manager.json").write_text("{")
    before = snapshot(directory)
    code, out, err = command("cache", "verify", "--cache-dir", str(directory))
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert any(line.startswith(f"damage    {part} can't be used: its rows") for line in lines)
    assert any(line.startswith("damage    ") and "batch_manager.json is no JSON" in line for line in lines)
    assert lines[-1].endswith(" damaged; --repair makes right what can be")
    assert snapshot(directory) == before


def test_json_says_the_same_for_programs(command: Command, directory: Path, pipeline: Pipeline) -> None:
    part = step_dir(directory, pipeline, "keep") / "00001.parquet"
    flip(part)
    code, out, _ = command("cache", "verify", "--cache-dir", str(directory), "--json")
    assert code == 1
    content = json.loads(out)
    assert content["is_damaged"]
    assert content["checked"]["steps"] == 2
    assert content["checked"]["pipelines"] == 1
    first = content["findings"][0]
    assert first["path"] == str(part)
    assert (first["kind"], first["severity"], first["is_repaired"]) == ("part", "damage", False)
    assert first["problem"]
    assert first["remedy"]


def test_repair_makes_it_right_and_the_next_run_whole(
    command: Command, directory: Path, pipeline: Pipeline
) -> None:
    part = step_dir(directory, pipeline, "keep") / "00001.parquet"
    flip(part)
    damaged = part.read_bytes()
    code, out, err = command("cache", "verify", "--cache-dir", str(directory), "--repair")
    assert (code, err) == (0, "")
    assert f"repaired  {part} can't be used" in out
    assert "repaired, no damage left" in out.splitlines()[-1]
    assert part.with_name("00001.parquet.set-aside").read_bytes() == damaged
    assert command("cache", "verify", "--cache-dir", str(directory))[0] == 0
    distiset = build_pipeline(str(directory)).run()
    assert distiset["keep"]["train"].to_list() == [{"text": str(number)} for number in range(3)]
    code, out, _ = command("cache", "verify", "--cache-dir", str(directory))
    assert code == 0
    assert "00001.parquet.set-aside was set aside" in out


def test_repair_leaves_a_live_run_alone_and_names_it(
    command: Command, directory: Path, pipeline: Pipeline
) -> None:
    part = step_dir(directory, pipeline, "keep") / "00001.parquet"
    flip(part)
    key = layout.step_dir("keep", pipeline.step_signatures["keep"])
    before = snapshot(directory / "steps_data")
    with Leases(str(directory / "ledger.sqlite")).acquire([key]):
        code, out, err = command("cache", "verify", "--cache-dir", str(directory), "--repair")
        assert (code, out) == (1, "")
        assert f"Step `{key}` is being written by" in err
        assert str(os.getpid()) in err
        assert command("cache", "verify", "--cache-dir", str(directory))[0] == 1, "looking is allowed"
    assert snapshot(directory / "steps_data") == before
    assert command("cache", "verify", "--cache-dir", str(directory), "--repair")[0] == 0


def test_what_a_killed_run_leaves_is_no_damage(command: Command, directory: Path, pipeline: Pipeline) -> None:
    load = step_dir(directory, pipeline, "load")
    (load / "complete.json").unlink()
    old, young = load / ".00002.parquet.1-2.tmp", load / ".00003.parquet.1-2.tmp"
    for path in (old, young):
        path.write_bytes(b"half a part")
    os.utime(old, (time.time() - 3600,) * 2)
    code, out, _ = command("cache", "verify", "--cache-dir", str(directory))
    assert code == 0
    assert f"note      {old} was left by a write that was interrupted" in out
    assert str(young) not in out, "a run may be at it"
    assert f"note      {load / 'complete.json'} is missing" in out
    assert out.splitlines()[-1].endswith(": no damage")
    assert command("cache", "verify", "--cache-dir", str(directory), "--repair")[0] == 0
    assert (load / "complete.json").exists()
    assert not old.exists()


def test_one_pipeline_by_the_first_digits_of_its_signature(
    command: Command, directory: Path, pipeline: Pipeline
) -> None:
    other = build_pipeline(str(directory), rows=5)
    other.run()
    flip(step_dir(directory, other, "load") / "00001.parquet")
    assert command("cache", "verify", pipeline.signature[:8], "--cache-dir", str(directory))[0] == 0
    code, out, _ = command("cache", "verify", other.signature[:8], "--cache-dir", str(directory))
    assert code == 1
    assert "checked 2 steps" in out.splitlines()[-1]
    code, _, err = command("cache", "verify", "f" * 12, "--cache-dir", str(directory))
    assert code == 1
    assert "no pipeline whose signature begins with" in err


def test_a_cache_that_is_empty_or_cannot_be_listed(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("cache", "verify", "--cache-dir", str(tmp_path / "none"))
    assert (code, out) == (0, "checked 0 steps, 0 parts, 0 rows, 0 answers: no damage\n")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    code, _, err = command("cache", "verify", "--cache-dir", str(tmp_path / "file"))
    assert code == 1
    assert "can't be listed" in err
    (tmp_path / "steps_data").write_text("")
    code, out, _ = command("cache", "verify", "--cache-dir", str(tmp_path))
    assert code == 1
    assert f"damage    {tmp_path / 'steps_data'} can't be looked through" in out


def test_what_stands_in_a_files_place_is_named_and_moved_away(
    command: Command, directory: Path, pipeline: Pipeline
) -> None:
    keep = step_dir(directory, pipeline, "keep")
    shown = directory / pipeline.signature / "data" / "keep" / "00001.parquet"
    for path in (keep / "00001.parquet", keep / "complete.json", shown):
        path.unlink()
    (keep / "00001.parquet").mkdir()
    os.mkfifo(keep / "complete.json")
    shown.symlink_to("nowhere")
    code, out, _ = command("cache", "verify", "--cache-dir", str(directory))
    assert code == 1
    assert f"damage    {keep / '00001.parquet'} is a directory, expected a part" in out
    assert f"damage    {keep / 'complete.json'} is a pipe, a socket or a device" in out
    assert f"damage    {shown} is a symbolic link" in out
    assert command("cache", "verify", "--cache-dir", str(directory), "--repair")[0] == 0
    assert (keep / "00001.parquet.set-aside").is_dir()
    assert shown.with_name("00001.parquet.set-aside").is_symlink()
    assert len(build_pipeline(str(directory)).run()["keep"]["train"]) == 3


def test_a_stranger_with_the_name_of_a_part_is_told_and_read_by_nobody(
    command: Command, directory: Path, pipeline: Pipeline
) -> None:
    keep = step_dir(directory, pipeline, "keep")
    content = (keep / "00001.parquet").read_bytes()
    for name in ("000001.parquet", "00000.parquet", "00001.parquet.bak"):
        (keep / name).write_bytes(content)
    code, out, _ = command("cache", "verify", "--cache-dir", str(directory))
    assert code == 0
    for name in ("000001.parquet", "00000.parquet", "00001.parquet.bak"):
        assert f"note      {keep / name} isn't of this package" in out
    assert len(build_pipeline(str(directory)).run()["keep"]["train"]) == 3
    assert (keep / "00001.parquet").read_bytes() == content


def test_list_and_show_stand_damage(command: Command, directory: Path, pipeline: Pipeline) -> None:
    flip(step_dir(directory, pipeline, "keep") / "00001.parquet", at=-20)
    code, out, _ = command("cache", "list", "--cache-dir", str(directory))
    assert code == 0
    assert "unreadable" in out
    code, out, _ = command("cache", "show", pipeline.signature, "--cache-dir", str(directory), "--json")
    assert code == 0
    problems = {step["name"]: step["problem"] for step in json.loads(out)["steps"]}
    assert problems["load"] is None
    assert "00001.parquet can't be used" in problems["keep"]
