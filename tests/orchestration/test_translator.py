"""`DistilabelTranslator`: other groups, keys and texts for the same steps."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from distilabel_dagster import (
    DistilabelStepData,
    DistilabelTranslator,
    Pipeline,
    build_definitions,
    build_distilabel_asset_specs,
)
from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.orchestration.metadata import COLUMN_LINEAGE
from distilabel_dagster.steps import LoadDataFromDicts
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import Scale, build_line
from tests.orchestration.test_io_manager import LEAF_ROWS, load_behind


class Renamed(DistilabelTranslator):
    """Other keys, group, owners, tags and automation; and metadata that drops ours."""

    def get_asset_spec(self, data: DistilabelStepData) -> dg.AssetSpec:
        spec = super().get_asset_spec(data)
        key = dg.AssetKey(["team", *spec.key.path[:-1], f"{spec.key.path[-1]}_rows"])
        return spec.replace_attributes(
            key=key,
            group_name="team",
            owners=["team:data"],
            tags={"tier": "gold"},
            metadata={"mine": 1},
            code_version="v1",
            automation_condition=dg.AutomationCondition.eager(),
        )


def test_renamed_keys_work_from_end_to_end(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    defs = build_definitions(pipeline, translator=Renamed())
    result = runner.run(pipeline, defs=defs)
    keys = [f"team/line/{name}_rows" for name in ("load", "scale", "leaf", "distiset")]
    assert list(runner.materialized()) == keys
    lineage = runner.metadata(keys[1])[COLUMN_LINEAGE].deps_by_column
    assert lineage["scaled"] == [dg.TableColumnDep(dg.AssetKey(["team", "line", "load_rows"]), "id")]
    assert (
        result.output_for_node("line__distiset", "team__line__distiset_rows")["leaf"]["train"].num_rows == 12
    )
    assert load_behind(runner, pipeline, keys[2], list, defs=defs) == LEAF_ROWS
    runner.run(pipeline, defs=defs, select=[dg.AssetKey(["team", "line", "scale_rows"])])
    assert list(runner.materialized()) == [keys[1]]

    graph = defs.get_repository_def().asset_graph
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == set(keys)
    for key in keys:
        spec = graph.get(dg.AssetKey(key.split("/"))).to_asset_spec()
        assert (spec.group_name, list(spec.owners), spec.tags["tier"]) == ("team", ["team:data"], "gold")
        assert spec.metadata["mine"] == 1
        assert (spec.code_version, spec.automation_condition) == ("v1", dg.AutomationCondition.eager())
    parents = {
        key: {p.to_user_string() for p in graph.get(dg.AssetKey(key.split("/"))).parent_keys} for key in keys
    }
    assert parents == {keys[0]: set(), keys[1]: {keys[0]}, keys[2]: {keys[1]}, keys[3]: {keys[2]}}


def test_specs_alone(cache: Path) -> None:
    specs = build_distilabel_asset_specs(build_line(cache))
    assert [spec.key.to_user_string() for spec in specs] == ["line/load", "line/scale", "line/leaf"]
    assert specs[1].deps[0].asset_key == dg.AssetKey(["line", "load"])
    assert specs[1].group_name == "line"
    assert "Multiplies." in (specs[1].description or "")
    assert "Reads `id`. Gives `scaled`." in (specs[1].description or "")
    (only,) = build_distilabel_asset_specs(build_line(cache), steps=["leaf"])
    assert only.key == dg.AssetKey(["line", "leaf"])


def test_steps_that_dagster_could_not_tell_apart(cache: Path) -> None:
    with Pipeline("p", cache_dir=str(cache)) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"id": 1}])
        load >> [Scale(name="a-b"), Scale(name="a_b")]
    with pytest.raises(
        PipelineDefinitionError, match=r"`a-b` and `a_b` would have the same name in Dagster, `a_b`"
    ):
        build_definitions(pipeline)


def test_pipeline_that_cannot_run_is_refused_when_it_is_defined(cache: Path) -> None:
    with Pipeline("p", cache_dir=str(cache)) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"idx": 1}])
        load >> Scale(name="scale")
    builders: list[Any] = [build_definitions, build_distilabel_asset_specs]
    for build in builders:
        with pytest.raises(PipelineDefinitionError, match="Step `scale` needs column `id`"):
            build(pipeline)
