from pathlib import Path

from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import KeepColumns, LoadDataFromDicts
from tests.integration.cli.conftest import Command, build_pipeline


def test_info_tells_what_the_pipeline_is(workspace: Path, command: Command, tmp_path: Path) -> None:
    code, out, err = command("pipeline", "info", "--config", "pipeline.yaml")
    assert (code, err) == (0, "")
    pipeline = build_pipeline()
    assert out.startswith("shouting\nMakes [all] texts loud.\n")
    assert pipeline.signature in out
    assert "nothing yet" in out
    assert not (tmp_path / "distilabel_cache").exists()
    lines = [line.split() for line in out.splitlines()]
    assert ["load", "LoadDataFromDicts", "-", "-", "text", "0"] in lines
    assert ["shout", "Shout", "load", "text", "loud", "0"] in lines
    assert ["shout.mark", '"!"', "What", "is", "added", "[at", "the", "end]."] in lines
    assert "shout.resources.replicas" not in out
    pipeline.save("pipeline.json", format="json")
    assert command("pipeline", "info", "--config", "pipeline.json")[1] == out


def test_info_tells_how_far_it_is(workspace: Path, command: Command) -> None:
    pipeline = build_pipeline()
    cache = pipeline.open_cache()
    list(pipeline.iter_run(steps=["load"], cache=cache))
    assert "1 of 2 steps complete" in command("pipeline", "info", "--config", "pipeline.yaml")[1]
    pipeline.run()
    out = command("pipeline", "info", "--config", "pipeline.yaml")[1]
    assert f"{cache.signature}: complete" in out
    assert ["shout", "Shout", "load", "text", "loud", "40"] in [line.split() for line in out.splitlines()]


def test_info_of_a_pipeline_that_cannot_run_says_why(command: Command, tmp_path: Path) -> None:
    with Pipeline("p", requirements=["no-such-package>=3"]) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"text": "hey"}])
        load >> KeepColumns(name="keep", columns=["texxt"])
    pipeline.save(tmp_path / "p.yaml")
    code, out, _ = command("pipeline", "info", "--config", str(tmp_path / "p.yaml"))
    assert code == 0
    assert "requirements  no-such-package>=3" in out
    assert "can't run     Step `keep` needs column `texxt`" in out
