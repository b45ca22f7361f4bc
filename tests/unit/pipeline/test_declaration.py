import json
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, SecretStr

from distilabel_dagster.errors import (
    PipelineDefinitionError,
    RuntimeParameterError,
    StepNameError,
)
from distilabel_dagster.mixins.runtime_parameters import RuntimeParameter
from distilabel_dagster.models import OfflineExtractiveLLM
from distilabel_dagster.pipeline import Pipeline, routing_batch_function, sample_n_steps
from distilabel_dagster.pipeline.local import Pipeline as LocalPipeline
from distilabel_dagster.steps import (
    CombineOutputs,
    DataSampler,
    ExpandColumns,
    FilterRows,
    GlobalStep,
    GroupColumns,
    KeepColumns,
    LoadDataFromDicts,
    LoadDataFromFileSystem,
    Step,
    StepInput,
    StepResources,
    step,
)
from distilabel_dagster.steps.tasks import TextGeneration


class Bound(Step):
    low: RuntimeParameter[int] = Field(default=1, ge=0)
    secret: SecretStr | None = None
    token: str | None = None

    def process(self, *inputs: StepInput) -> Any:
        yield inputs[0]


class Total(GlobalStep):
    def process(self, *inputs: StepInput) -> Any:
        yield inputs[0]


@step(inputs=["a"], outputs=["b"])
def add(inputs: StepInput, amount: int = 1) -> Any:
    yield [{**row, "b": row["a"] + amount} for row in inputs]


@step(outputs=["a"], step_type="generator")
def count(offset: int = 0, stop: int = 3) -> Any:
    yield [{"a": number} for number in range(offset, stop)], True


@routing_batch_function()
def first(steps: list[str]) -> list[str]:
    return steps[:1]


def make_router(name: str) -> Any:
    @routing_batch_function(description="always the same")
    def chosen(steps: list[str]) -> list[str]:
        return [name]

    return chosen


def dicts(**fields: Any) -> LoadDataFromDicts:
    return LoadDataFromDicts(**{"name": "load", "data": [{"a": 1}], **fields})


def _all_kinds(tmp_path: Path) -> Pipeline:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    with Pipeline("all_kinds", description="d", requirements=["pyarrow"]) as pipeline:
        load = dicts(data=[{"a": number, "text": "é\u2028\n'\""} for number in range(3)], batch_size=4)
        files = LoadDataFromFileSystem(name="files", data_files=str(tmp_path / "rows.jsonl"))
        DataSampler(name="sampler", data=[{"a": 1}, {"a": 2}], size=2)
        count(name="count", stop=5) >> add(name="add", amount=7, resources=StepResources(replicas=2, gpus=1))
        files >> KeepColumns(name="keep", columns=["a"], output_mappings={})
        load >> [Bound(name="bound", low=3), ExpandColumns(name="expand", columns=["a"])]
        load >> FilterRows(name="filter", column="a", op=">", value=1) >> Total(name="total", use_cache=False)
    return pipeline


def _tasks(tmp_path: Path) -> Pipeline:
    with Pipeline("tasks") as pipeline:
        ask = TextGeneration(
            name="ask",
            llm=OfflineExtractiveLLM(mode="question", delay_s=0.0),
            template="Passage:\n{{ text }}",
            columns="text",
            num_generations=2,
            group_generations=True,
            input_mappings={"text": "a"},
        )
        dicts(data=[{"a": "x"}]) >> ask
    return pipeline


def _join(order: str) -> Pipeline:
    with Pipeline("join") as pipeline:
        load = dicts()
        branches = {name: Bound(name=name) for name in "xyz"}
        load >> list(branches.values())
        [branches[name] for name in order] >> CombineOutputs(name="join")
        branches["x"] >> GroupColumns(name="group", columns=["a"])
        branches["y"] >> pipeline.dag.steps["group"]
    return pipeline


def _routed(function: Any) -> Pipeline:
    with Pipeline("routed") as pipeline:
        load = dicts()
        load >> function >> [Bound(name="x"), Bound(name="y")] >> CombineOutputs(name="join")
    return pipeline


BUILDERS = {
    "all kinds": _all_kinds,
    "tasks": _tasks,
    "join": lambda _: _join("xyz"),
    "join in another order": lambda _: _join("zxy"),
    "routing function": lambda _: _routed(first),
    "routing factory": lambda _: _routed(make_router("x")),
    "sample_n_steps": lambda _: _routed(sample_n_steps(2)),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_files_keep_the_signature(kind: str, tmp_path: Path) -> None:
    pipeline = BUILDERS[kind](tmp_path)
    pipeline.save(tmp_path / "p.yaml")
    pipeline.save(tmp_path / "p.json", format="json")
    read = [
        Pipeline.from_dict(pipeline.dump()),
        Pipeline.from_dict(json.loads(json.dumps(pipeline.dump()))),
        Pipeline.from_yaml(tmp_path / "p.yaml"),
        Pipeline.from_json(str(tmp_path / "p.json")),
    ]
    for each in read:
        assert each.step_signatures == pipeline.step_signatures
        assert each.signature == pipeline.signature
        assert each.dag.edges == pipeline.dag.edges
        assert each.dump() == pipeline.dump()
        assert (each.name, each.description, each.requirements) == (
            pipeline.name,
            pipeline.description,
            pipeline.requirements,
        )
        for name, made in pipeline.dag.steps.items():
            assert each.dag.predecessors(name) == pipeline.dag.predecessors(name)
            assert each.dag.steps[name].dump() == made.dump()


def test_the_order_of_joined_branches_is_part_of_the_signature() -> None:
    assert len({_join(order).signature for order in ("xyz", "zxy", "yxz")}) == 3


def test_rows_above_a_mebibyte_are_not_written(tmp_path: Path) -> None:
    def build(rows: int) -> Pipeline:
        with Pipeline("large") as pipeline:
            dicts(data=[{"a": "x" * 1000, "n": number} for number in range(rows)]) >> Bound(name="bound")
        return pipeline

    (small,) = [each["step"] for each in build(900).dump()["pipeline"]["steps"] if each["name"] == "load"]
    assert len(small["data"]) == 900
    large = build(1100)
    (dumped,) = [each["step"] for each in large.dump()["pipeline"]["steps"] if each["name"] == "load"]
    assert "data" not in dumped
    assert dumped["data_rows"] == 1100
    large.save(tmp_path / "large.yaml")
    assert (tmp_path / "large.yaml").stat().st_size < 20_000
    read = Pipeline.from_yaml(tmp_path / "large.yaml")
    assert read.signature == large.signature
    read.validate()


def test_a_file_that_is_there_is_kept_unless_told(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        _join("xyz").save(tmp_path / "p.yaml")
    assert (tmp_path / "p.yaml").read_text() == "mine"
    _join("xyz").save(tmp_path / "p.yaml", overwrite=True)
    assert Pipeline.from_yaml(tmp_path / "p.yaml").name == "join"


def test_secrets_are_in_no_file(tmp_path: Path) -> None:
    with Pipeline("secrets", storage_options={"secret": "s3cret"}) as pipeline:
        dicts() >> Bound(name="bound", secret=SecretStr("s3cret"), token="s3cret")
    pipeline.save(tmp_path / "p.yaml")
    assert "s3cret" not in (tmp_path / "p.yaml").read_text()
    assert "s3cret" not in repr(pipeline)
    assert Pipeline.from_yaml(tmp_path / "p.yaml").signature == pipeline.signature


def test_parameters_count_for_the_block_alone() -> None:
    pipeline = _tasks(Path())
    bound = Bound(name="bound", pipeline=pipeline)
    task: Any = pipeline.dag.steps["ask"]
    before = pipeline.dump()
    with pipeline.with_parameters(
        {"bound": {"low": 9}, "ask": {"num_generations": 5, "llm": {"delay_s": 1.5}}}
    ):
        assert (bound.low, task.num_generations, task.llm.delay_s) == (9, 5, 1.5)
        assert pipeline.dump() != before
    assert (bound.low, task.num_generations, task.llm.delay_s) == (1, 2, 0.0)
    assert pipeline.dump() == before


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"bund": {"low": 1}}, r"step `bund`, which pipeline `tasks` hasn't\. Did you mean `bound`"),
        ({"bound": {"lo": 1}}, r"no runtime parameter `lo`\. Did you mean `low`"),
        ({"bound": {"low": -1}}, r"`bound\.low` can't be -1"),
        ({"bound": {"low": 5}, "ask": {"llm": {"delay": 1}}}, r"`ask\.llm` has no runtime parameter `delay`"),
        (
            {"bound": {"low": 5}, "ask": {"num_generations": 3, "llm": 3}},
            r"`ask\.llm` has runtime parameters of its own",
        ),
    ],
)
def test_refused_parameters_change_nothing(parameters: Any, told: str) -> None:
    pipeline = _tasks(Path())
    Bound(name="bound", pipeline=pipeline)
    before = pipeline.dump()
    with pytest.raises(RuntimeParameterError, match=told), pipeline.with_parameters(parameters):
        pytest.fail("the block was entered")
    assert pipeline.dump() == before


def test_parameters_are_put_back_when_the_block_fails() -> None:
    pipeline = _join("xyz")
    with pytest.raises(ZeroDivisionError), pipeline.with_parameters({"x": {"low": 9}}):
        raise ZeroDivisionError
    assert pipeline.dag.steps["x"].low == 1  # type: ignore[attr-defined]  # it's a Bound


@pytest.mark.parametrize("name", ["../x", "a/b", "", " ", "a b", "ä", "x" * 129, "a\n"])
def test_names_that_cannot_be_asset_keys(name: str) -> None:
    with pytest.raises(StepNameError, match="can't be called"):
        Pipeline(name)


def test_a_pipeline_without_a_name_is_called_after_its_steps() -> None:
    with Pipeline() as pipeline:
        dicts() >> Bound(name="bound")
    assert pipeline.name == "pipeline_load_bound"
    assert Pipeline.from_dict(pipeline.dump()).signature == pipeline.signature


def test_requirements_are_checked_before_a_run(tmp_path: Path) -> None:
    def run(*requirements: str) -> None:
        with Pipeline("needs", cache_dir=tmp_path / "cache", requirements=list(requirements)) as pipeline:
            dicts()
        pipeline.run()

    with pytest.raises(
        PipelineDefinitionError, match=r"needs `no-such-package>=2` \(not installed\)\. .*pip install"
    ):
        run("no-such-package>=2")
    with pytest.raises(
        PipelineDefinitionError, match=r"`pyarrow<1` \(found \d+.*\)\. Install with `pip install 'pyarrow<1'`"
    ):
        run("pyarrow<1")
    with pytest.raises(PipelineDefinitionError, match="'not a requirement!' can't be read"):
        run("not a requirement!")
    assert not (tmp_path / "cache").exists()
    run("pyarrow", "pytest>=1", "no-such-package; python_version < '3'")


def test_steps_of_another_pipeline_are_refused() -> None:
    with Pipeline("one"):
        load = dicts()
    with Pipeline("two"):
        bound = Bound(name="bound")
        with pytest.raises(PipelineDefinitionError, match=r"Step `bound` isn't part of pipeline `one`"):
            load >> bound
        for other in (3, "load", None, [3]):
            with pytest.raises(PipelineDefinitionError, match="connects steps"):
                bound >> other


def test_threads_declare_pipelines_side_by_side() -> None:
    made: dict[int, Pipeline] = {}
    entered = threading.Barrier(4)

    def declare(number: int) -> None:
        with Pipeline(f"p{number}") as pipeline:
            entered.wait(30)
            dicts(name=f"load{number}")
        made[number] = pipeline

    threads = [threading.Thread(target=declare, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [list(made[number].dag.steps) for number in range(4)] == [[f"load{number}"] for number in range(4)]


def test_distilabels_import_path() -> None:
    assert LocalPipeline is Pipeline
