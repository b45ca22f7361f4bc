"""What a partition key means, and what the run config may change."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_graphql.test.utils import define_out_of_process_context, execute_dagster_graphql

from distilabel_dagster import Pipeline
from distilabel_dagster.orchestration.metadata import BATCHES_COMPUTED, BATCHES_REUSED
from tests.orchestration import pipelines
from tests.orchestration.conftest import Runner
from tests.orchestration.pipelines import build_chat, build_line, build_needy


def config_of(op: str, **steps: Any) -> dict[str, Any]:
    return {"ops": {op: {"config": steps}}}


@pytest.mark.parametrize("key", ["latest", "d3cb0dee", "A" * 40, "../x"])
def test_key_that_is_no_signature(key: str, runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    message = runner.error(pipeline, partition=key)
    assert f"the partition key `{key}` is no signature (40 hexadecimal digits)" in message
    assert pipeline.signature in message
    assert not pipelines.given
    assert runner.partitions("line_signatures") == []


def test_key_that_nobody_knows(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    message = runner.error(pipeline, partition="a" * 40)
    assert f"the partition `{'a' * 40}` isn't known" in message
    assert pipeline.signature in message
    assert str(cache) in message
    assert runner.partitions("line_signatures") == []


def test_key_of_another_pipeline(runner: Runner, cache: Path) -> None:
    other = build_line(cache, name="other")
    runner.run(other)
    message = runner.error(build_line(cache), partition=other.signature)
    assert f"the partition `{other.signature}` belongs to the pipeline `other`" in message


def test_parameter_outside_the_signature_is_free(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    signature = pipeline.signature
    runner.run(pipeline, run_config=config_of("line", scale={"input_batch_size": 6}))
    assert runner.metadata("line/scale")[BATCHES_COMPUTED] == 2
    assert runner.materialized()["line/scale"].partition == signature
    assert pipeline.dag.steps["scale"].input_batch_size == 3, "the run's parameters are the run's only"


def test_parameter_of_the_signature_leads_to_another_partition(runner: Runner, cache: Path) -> None:
    pipeline = build_line(cache)
    config = config_of("line", scale={"factor": 5})
    message = runner.error(pipeline, run_config=config)
    assert "`scale.factor` is 5" in message
    assert "Nothing was run" in message
    assert not pipelines.given
    (key,) = runner.partitions("line_signatures")
    assert key != pipeline.signature
    assert f'{{"dagster/partition": "{key}"}}' in message
    assert yaml.safe_load((cache / key / "pipeline.yaml").read_text())["signatures"]["pipeline"] == key

    # In a new process the key alone says what is meant.
    runner.run(build_line(cache), partition=key)
    assert {each.partition for each in runner.materialized().values()} == {key}
    runner.run(build_line(cache), partition=key, run_config=config)
    assert runner.metadata("line/scale")[BATCHES_COMPUTED] == 0
    assert runner.run(build_line(cache)).success
    assert runner.metadata("line/load")[BATCHES_REUSED] == 4, "what is the same upstream is shared"
    assert runner.metadata("line/scale")[BATCHES_COMPUTED] == 4


def test_old_partition_is_reproduced_from_what_was_frozen(runner: Runner, cache: Path) -> None:
    old = build_line(cache)
    old.dag.steps["scale"].factor = 7
    runner.run(old)
    pipelines.given.clear()
    # The launchpad writes all of today's defaults out: they don't count as given.
    today = build_line(cache)
    defaults = {name: {"factor": 2, "input_batch_size": 3} for name in ("scale", "leaf")}
    result = runner.run(today, partition=old.signature, run_config=config_of("line", **defaults))
    assert not pipelines.given
    distiset = result.output_for_node("line__distiset", "line__distiset")
    assert distiset["leaf"]["train"][1] == {"id": 1, "scaled": 7, "again": 2}
    assert today.dag.steps["scale"].factor == 2

    message = runner.error(today, partition=old.signature, run_config=config_of("line", leaf={"factor": 3}))
    assert "`leaf.factor` is 3" in message
    assert len(runner.partitions("line_signatures")) == 2


def test_frozen_partition_of_other_code_says_what_differs(runner: Runner, cache: Path) -> None:
    runner.run(build_line(cache))
    old = runner.partitions("line_signatures")[0]
    today = build_line(cache)
    today.dag.steps["scale"].column = "renamed"
    today.dag.steps["scale"].use_cache = False  # no part of a signature, so it's none of the differences
    message = runner.error(today, partition=old)
    assert f"the partition `{old}` was asked for" in message
    assert "`scale.column` was 'scaled' and is 'renamed'" in message
    assert "use_cache" not in message
    assert today.signature in message

    today = build_line(cache)
    today.dag.steps["leaf"].code_version = "2"
    message = runner.error(today, partition=old)
    assert "`leaf.code_version` was None and is '2'" in message or "of step `leaf`" in message


def test_old_rows_come_back_where_they_were_frozen_with_the_pipeline(runner: Runner, cache: Path) -> None:
    runner.run(build_line(cache, rows=4))
    old = runner.partitions("line_signatures")[0]
    today = build_line(cache)
    result = runner.run(today, partition=old)
    distiset = result.output_for_node("line__distiset", "line__distiset")
    assert distiset["leaf"]["train"]["id"] == [0, 1, 2, 3]
    assert len(today.dag.steps["load"].data) == 12

    def build_large(count: int) -> Pipeline:
        with Pipeline("large", cache_dir=str(cache)) as pipeline:
            pipelines.LoadDataFromDicts(name="load", data=[{"text": "x" * 1_200_000}] * count)
        return pipeline

    runner.run(build_large(1))
    message = runner.error(build_large(2), partition=runner.partitions("large_signatures")[0])
    assert "`load.data_rows` was 1 and is 2" in message


def test_nested_difference_is_named_by_its_path(runner: Runner, cache: Path) -> None:
    runner.run(build_chat(cache))
    old = runner.partitions("chat_signatures")[0]
    changed = build_chat(cache)
    changed.dag.steps["answer"].__dict__["system_prompt"] = "Be kind."
    message = runner.error(changed, partition=old)
    assert "`answer.system_prompt` was None and is 'Be kind.'" in message


def test_step_that_is_new_or_gone_is_told(runner: Runner, cache: Path) -> None:
    runner.run(build_line(cache))
    old = runner.partitions("line_signatures")[0]
    with Pipeline("line", cache_dir=str(cache)) as today:
        load = pipelines.LoadDataFromDicts(name="load", data=[{"id": 1}])
        load >> pipelines.Scale(name="extra")
    message = runner.error(today, partition=old)
    assert "step `extra` is new" in message
    assert "step `scale` is gone" in message


def test_nested_parameters_of_a_model(runner: Runner, cache: Path) -> None:
    pipeline = build_chat(cache)
    message = runner.error(pipeline, run_config=config_of("chat", answer={"llm": {"mark": "?"}}))
    assert "`answer.llm` is {'mark': '?'}" in message
    key = runner.partitions("chat_signatures")[0]
    result = runner.run(build_chat(cache), partition=key)
    distiset = result.output_for_node("chat__distiset", "chat__distiset")
    assert distiset["answer"]["train"][0]["generation"] == "Say 0?"


def test_parameter_from_the_environment(runner: Runner, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", "!")
    config = config_of("chat", answer={"llm": {"mark": {"env": "MARK"}}})
    assert runner.run(build_chat(cache), run_config=config).success
    monkeypatch.setenv("MARK", "~")
    assert "`answer.llm` is {'mark': '~'}" in runner.error(build_chat(cache), run_config=config)


def test_value_of_the_wrong_type_stops_before_any_work(runner: Runner, cache: Path) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="factor"):
        runner.run(build_line(cache), run_config=config_of("line", scale={"factor": "many"}))
    message = runner.error(build_line(cache), run_config=config_of("line", scale={"input_batch_size": -1}))
    assert "`scale.input_batch_size` can't be -1" in message
    with pytest.raises(dg.DagsterInvalidConfigError, match="facto"):
        runner.run(build_line(cache), run_config=config_of("line", scale={"facto": 1}))
    assert not pipelines.given


def test_required_parameter_is_given_by_the_run(runner: Runner, cache: Path) -> None:
    pipeline = build_needy(cache)
    assert "`need.needed` must be set before a run" in runner.error(pipeline)
    assert runner.partitions("needy_signatures") == []
    message = runner.error(pipeline, run_config=config_of("needy", need={"needed": 4}))
    assert "`need.needed` is 4" in message
    (key,) = runner.partitions("needy_signatures")
    result = runner.run(build_needy(cache), partition=key)
    assert result.output_for_node("needy__distiset", "needy__distiset")["need"]["train"]["needed"] == [4] * 3


LAUNCHPAD = """
query ($selector: PipelineSelector!) {
  runConfigSchemaOrError(selector: $selector) { ... on RunConfigSchema { rootDefaultYaml } }
}
"""


def test_launchpad_defaults_run_as_they_are(
    runner: Runner, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"temperature": 0.5, "headers": {"authorization": "Bearer hush-hush", "accept": None}}
    definitions = tmp_path / "chat_definitions.py"
    definitions.write_text(
        "from distilabel_dagster import build_definitions\n"
        "from tests.orchestration.pipelines import build_chat\n"
        f"pipeline = build_chat({str(cache)!r}, api_key='sk-hush', pass_phrase='hush', generation_kwargs={options!r})\n"
        "defs = build_definitions(pipeline)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "home").mkdir()
    with (
        dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance,
        define_out_of_process_context(str(definitions), None, instance) as context,
    ):
        found = execute_dagster_graphql(
            context,
            LAUNCHPAD,
            variables={
                "selector": {
                    "repositoryLocationName": context.code_location_names[0],
                    "repositoryName": "__repository__",
                    "pipelineName": "chat_job",
                }
            },
        )
    prefilled = found.data["runConfigSchemaOrError"]["rootDefaultYaml"]
    assert "hush" not in prefilled
    config = yaml.safe_load(prefilled)
    answer = config["ops"]["chat"]["config"]["answer"]
    assert answer["llm"]["mark"] == "!"
    assert answer["llm"]["generation_kwargs"] == {"temperature": 0.5}
    assert answer["input_batch_size"] == 50
    pipeline = build_chat(cache, api_key="sk-hush", pass_phrase="hush", generation_kwargs=options)
    assert runner.run(pipeline, run_config=config).success
    assert {each.partition for each in runner.materialized().values()} == {pipeline.signature}


def test_secrets_reach_nothing_that_dagster_stores(tmp_path: Path, cache: Path) -> None:
    secrets = ["sk-very-secret", "hush-phrase", "Bearer hush", "storage-hush"]
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        pipeline = build_chat(
            cache,
            api_key=secrets[0],
            pass_phrase=secrets[1],
            generation_kwargs={"headers": {"authorization": secrets[2]}},
        )
        pipeline.storage_options = {"auto_mkdir": True, "token": secrets[3]}
        assert Runner(instance).run(pipeline).success
    files = [path for folder in (tmp_path / "home", cache) for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path
