"""The short form of the damage suite: one place for each kind of file and of damage; `make soak` tries them all."""

import os
import shutil
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from distilabel_dagster.engine.events import StepFinished
from distilabel_dagster.errors import DamagedFileError, DistilabelDagsterError
from distilabel_dagster.orchestration.partitions import pipeline_of_partition
from tests.integration.damage.cases import Case, choose_few, iter_cases
from tests.integration.damage.obstacles import run_in_time, standing_before
from tests.integration.damage.pipelines import build
from tests.integration.damage.sites import STATES, Original, Site, State, build_original
from tests.integration.damage.trial import PATIENCE_S, Outcome, try_out

Originals = dict[State, Original]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    root = tmp_path_factory.mktemp("originals")
    return {state: build_original(root / state, state) for state in STATES}


@pytest.fixture(scope="module")
def few(originals: Originals) -> list[Case]:
    return choose_few(list(iter_cases(originals)))


def try_all(cases: list[Case], originals: Originals, scratch: Path) -> list[Outcome]:
    outcomes = [try_out(case, originals[case.state], scratch / "trial") for case in cases]
    assert {each.case: each.faults for each in outcomes if each.faults} == {}
    return outcomes


@pytest.mark.parametrize(
    "file",
    [
        "part",
        "part of a leaf",
        "part as shown",
        "last part as shown",
        "footer",
        "marker",
        "batch_manager.json",
        "step JSON",
        "pipeline.yaml",
        "pipeline.log",
        "ledger",
        "lease",
    ],
)
def test_damage_ends_in_right_rows_or_names_the_file(
    file: str, few: list[Case], originals: Originals, tmp_path: Path
) -> None:
    cases = [case for case in few if case.file == file]
    assert cases
    outcomes = try_all(cases, originals, tmp_path)
    assert all(each.result for each in outcomes)


def test_every_kind_of_file_meets_every_kind_of_damage(few: list[Case]) -> None:
    found = {(case.file, case.damage) for case in few}
    kinds = {
        "truncated",
        "a bit flipped",
        "zeroed",
        "swapped",
        "deleted",
        "unreadable",
        "an empty file",
        "a directory",
    }
    for file in ("part", "marker", "batch_manager.json", "pipeline.yaml", "ledger"):
        assert {damage for each, damage in found if each == file} >= kinds


def test_a_case_that_goes_wrong_is_noticed(originals: Originals, tmp_path: Path) -> None:
    """What would make the suite blind: rows that differ, and an error that names another file."""
    original = originals["finished"]
    wrong = {leaf: [{**row, "id": -1} for row in rows] for leaf, rows in original.rows.items()}
    harmless = Case(
        "finished", "log", "none", "", lambda site: site.pipeline / "pipeline.log", lambda *_: None
    )
    blind = Original(original.site, wrong, original.calls_left, original.batches_left)
    assert any("WRONG ROWS" in fault for fault in try_out(harmless, blind, tmp_path / "rows").faults)

    misnamed = Case(
        "finished",
        "log",
        "truncated",
        "",
        lambda site: site.pipeline / "pipeline.log",
        lambda site, _: os.truncate(site.step("ask") / "00001.parquet", 9),
    )
    assert any(
        "doesn't name the file" in fault for fault in try_out(misnamed, original, tmp_path / "names").faults
    )


def test_a_part_damaged_between_its_commit_and_its_reading(originals: Originals, tmp_path: Path) -> None:
    """As where each step is an op of Dagster's: the steps behind read from the cache what was committed before."""
    pipeline = build(tmp_path / "cache")
    cache = pipeline.open_cache()
    for event in pipeline.iter_run(steps=["load", "ask", "measure"], cache=cache):
        if isinstance(event, StepFinished):
            cache.seal_step(event.step)
    part = tmp_path / "cache" / "steps_data" / f"ask_{pipeline.step_signatures['ask']}" / "00001.parquet"
    content = bytearray(part.read_bytes())
    content[40] ^= 1
    part.write_bytes(content)

    with pytest.raises(DamagedFileError, match=r"ask_\w+/00001\.parquet can't be read"):
        list(pipeline.iter_run(steps=["joined", "shout"], cache=pipeline.open_cache()))
    distiset = build(tmp_path / "cache").run()
    assert {leaf: distiset[leaf]["train"].to_list() for leaf in distiset} == originals["finished"].rows
    assert part.with_name("00001.parquet.set-aside").exists()


def test_a_damaged_pipeline_file_gives_the_partition_or_an_error(
    originals: Originals, tmp_path: Path
) -> None:
    """Dagster's way to a partition that today's code doesn't make by itself: by the parameters that were frozen."""
    cases = [each for each in iter_cases(originals) if each.file == "pipeline.yaml" and each.is_sample][::2]
    ends: Counter[str] = Counter()
    with dg.DagsterInstance.ephemeral() as instance:
        for case in cases:
            site = originals[case.state].site.copy(tmp_path / "cache")
            path = case.find(site)
            case.harm(site, path)
            with standing_before(case.obstacle, path, [path]):
                ends[run_in_time(lambda site=site: materialize(site, instance), PATIENCE_S)] += 1
            shutil.rmtree(site.root)
    assert ends["found"] > 0
    assert ends["refused"] > 0


def materialize(site: Site, instance: dg.DagsterInstance) -> str:
    """Set the pipeline up for the partition as an op does; any other exception is a failure of the test."""
    try:
        with pipeline_of_partition(build(site.root, rows=4), site.signature, {}, instance) as cache:
            assert cache.signature == site.signature
            assert cache.step_signatures == site.steps
    except DistilabelDagsterError:
        return "refused"
    return "found"
