"""pipeline.yaml that is cut off, of another format, or names what nobody vouched for."""

import contextlib
import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from distilabel_dagster.errors import PipelineFileError, UntrustedClassError
from distilabel_dagster.models import OfflineExtractiveLLM
from distilabel_dagster.pipeline import Pipeline, sample_n_steps
from distilabel_dagster.steps import ExpandColumns, KeepColumns, LoadDataFromDicts
from distilabel_dagster.steps.tasks import TextGeneration
from tests.integration.bad_input.steps import Collect

_FIXTURES = Path(__file__).parents[2] / "fixtures" / "pipeline_files"


def build() -> Pipeline:
    with Pipeline(
        "written", description='several\nlines: with "quotes"', requirements=["pyarrow>=1"]
    ) as pipeline:
        load = LoadDataFromDicts(
            name="load", data=[{"passage": "A name is bound. It isn't: lost", "n": [1]}] * 3
        )
        ask = TextGeneration(
            name="ask",
            llm=OfflineExtractiveLLM(mode="question"),
            template="Passage:\n{{ passage }}\n",
            columns="passage",
            input_batch_size=10,
        )
        other = KeepColumns(name="other", columns=["passage"], input_batch_size=10)
        load >> sample_n_steps(1) >> [ask, other] >> Collect(name="collect")
        ask >> ExpandColumns(name="expand", columns=["n"])
    return pipeline


@pytest.fixture
def written(tmp_path: Path) -> Path:
    build().save(tmp_path / "pipeline.yaml")
    return tmp_path / "pipeline.yaml"


def test_a_file_cut_off_anywhere_is_an_error_or_the_same_pipeline(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    signature = build().signature
    cut = tmp_path / "cut.yaml"
    read = 0
    for length in [*range(0, len(whole), 97), *range(len(whole) - 40, len(whole))]:
        cut.write_bytes(whole[:length])
        with contextlib.suppress(PipelineFileError):
            assert Pipeline.from_yaml(cut).signature == signature, (
                f"another pipeline in the first {length} bytes"
            )
            read += 1
    assert read < 40


def test_json_cut_off_anywhere_is_an_error(tmp_path: Path) -> None:
    build().save(tmp_path / "whole.json", format="json")
    whole = (tmp_path / "whole.json").read_text()
    for length in range(0, len(whole), 211):
        (tmp_path / "cut.json").write_text(whole[:length])
        with pytest.raises(PipelineFileError, match=r"cut\.json"):
            Pipeline.from_json(tmp_path / "cut.json")


@pytest.mark.parametrize("pipeline", ["llm", "two_leaves"])
def test_a_file_of_distilabel_itself_is_told_apart(pipeline: str) -> None:
    before = set(sys.modules)
    with pytest.raises(
        PipelineFileError, match=r"It wasn't written by this package; files of distilabel itself"
    ):
        Pipeline.from_yaml(_FIXTURES / f"distilabel-1.5.3-{pipeline}.yaml")
    assert not {
        name for name in set(sys.modules) - before if name.startswith(("distilabel.", "fixture_steps"))
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "[]",
        "a: 1",
        "pipeline: []",
        "pipeline: {}",
        "pipeline:\n  steps: 3",
        "\x00",
        "a: b: c",
        "- " * 5000,
    ],
)
def test_what_is_no_pipeline_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(PipelineFileError, match=r"odd\.yaml"):
        Pipeline.from_yaml(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(PipelineFileError, match=path.name):
            Pipeline.from_yaml(path)


def _step(data: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each["step"] for each in data["pipeline"]["steps"] if each["name"] == name)
    return found


CLASSES = {
    "a class of the standard library": ("wsgiref.simple_server", "WSGIServer"),
    "a function": ("os", "system"),
    "a module that runs code": ("poisoned", "Step"),
    "a class that is no step": ("subprocess", "Popen"),
    "a builtin": ("builtins", "eval"),
}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("place", ["step", "llm", "routing"])
def test_a_class_that_nobody_vouched_for_is_not_imported(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, place: str
) -> None:
    (tmp_path / "poisoned.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Step: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("wsgiref.simple_server", None)
    module, name = CLASSES[kind]
    data = yaml.safe_load(written.read_text())
    if place == "step":
        _step(data, "other")["type_info"] = {"module": module, "name": name}
    elif place == "llm":
        _step(data, "ask")["llm"]["type_info"] = {"module": module, "name": name}
    else:
        (routing,) = data["pipeline"]["routing_batch_functions"]
        routing["type_info"] = {"module": module, "name": name, "kwargs": {"command": "true"}}
    written.write_text(yaml.safe_dump(data))
    with pytest.raises(UntrustedClassError, match=r"nothing was imported.*trusted_modules") as caught:
        Pipeline.from_yaml(written)
    assert (caught.value.module, caught.value.name) == (module, name)
    assert "wsgiref.simple_server" not in sys.modules
    assert "poisoned" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_python_in_yaml_is_not_run(written: Path, tmp_path: Path) -> None:
    text = written.read_text().replace(
        "name: written", f"name: !!python/object/apply:os.mkdir ['{tmp_path}/ran']"
    )
    written.write_text(text)
    with pytest.raises(PipelineFileError, match="is no YAML"):
        Pipeline.from_yaml(written)
    assert not (tmp_path / "ran").exists()


def test_a_trusted_module_is_imported(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vouched_for.py").write_text(
        "from distilabel_dagster.steps import Step\n"
        "class Mine(Step):\n"
        "    def process(self, inputs):\n"
        "        yield inputs\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = yaml.safe_load(written.read_text())
    _step(data, "collect").update(type_info={"module": "vouched_for", "name": "Mine"}, input_batch_size=10)
    with pytest.raises(UntrustedClassError):
        Pipeline.from_dict(data)
    pipeline = Pipeline.from_dict(data, trusted_modules=["vouched_for"])
    assert type(pipeline.dag.steps["collect"]).__name__ == "Mine"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: _step(d, "load").update(name="../x"), "can't be called `../x`"),
        (lambda d: _step(d, "other").update(name="load"), "already has `load`"),
        (lambda d: _step(d, "other").update(colums=["a"]), "colums"),
        (lambda d: _step(d, "other").update(columns=7), "columns"),
        (lambda d: _step(d, "other").update({3: 4}), "written.yaml"),
        (lambda d: _step(d, "other").update(type_info=None), "type_info"),
        (lambda d: _step(d, "other")["type_info"].update(name="NoSuchStep"), "has no `NoSuchStep`"),
        (lambda d: _step(d, "other")["type_info"].update(module="distilabel_dagster.nowhere"), "nowhere"),
        (
            lambda d: _step(d, "other")["type_info"].update(
                module="distilabel_dagster.steps.step", name="Step"
            ),
            "Step",
        ),
        (
            lambda d: d["pipeline"]["steps"].append({"name": "m", "step": _step(d, "ask")["llm"]}),
            "`OfflineExtractiveLLM`, which is no step",
        ),
        (
            lambda d: d["pipeline"]["connections"].append({"from": "collect", "to": ["lost"]}),
            "no step `lost`",
        ),
        (lambda d: d["pipeline"]["connections"].append({"from": "lost", "to": ["load"]}), "no step `lost`"),
        (
            lambda d: d["pipeline"]["connections"].append({"from": "collect", "to": ["other"]}),
            "close a circle",
        ),
        (lambda d: d["pipeline"]["connections"].append("collect"), "expected `from`"),
        (lambda d: d["pipeline"]["connections"].append({"from": "load", "to": "other"}), "`to` is a str"),
        (lambda d: d["pipeline"].update(steps={}), "`steps` is a dict, expected a list"),
        (lambda d: d["pipeline"].update(steps=["x"]), "expected `step`"),
        (lambda d: d["pipeline"].update(name=5), "`name` is 5"),
        (lambda d: d["pipeline"].update(name="../x"), "can't be called `../x`"),
        (
            lambda d: d["pipeline"]["routing_batch_functions"][0]["type_info"].update(kwargs={"n": 0}),
            "sends? batches|n=0",
        ),
        (
            lambda d: d["pipeline"]["routing_batch_functions"][0]["type_info"].update(kwargs={"m": 1}),
            "can't be called",
        ),
        (lambda d: d.update(requirements="pyarrow"), "`requirements` is a str"),
        (lambda d: d.pop("requirements"), "expected `requirements`"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, change: Any, told: str) -> None:
    data = yaml.safe_load(yaml.safe_dump(build().dump()))
    change(data)
    file = tmp_path / "written.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(PipelineFileError, match=told):
        Pipeline.from_yaml(file)


def test_a_damaged_file_leaves_the_active_pipeline_alone(written: Path) -> None:
    data = yaml.safe_load(written.read_text())
    broken = copy.deepcopy(data)
    _step(broken, "other")["columns"] = 7
    with Pipeline("outer") as outer:
        load = LoadDataFromDicts(name="load", data=[])
        read = Pipeline.from_dict(data)
        with pytest.raises(PipelineFileError):
            Pipeline.from_dict(broken)
        keep = KeepColumns(name="keep", columns=["a"])
        load >> keep
    assert list(outer.dag.steps) == ["load", "keep"]
    assert list(read.dag.steps) == ["load", "ask", "other", "collect", "expand"]
    assert all(step.pipeline is read for step in read.dag.steps.values())
    assert json.dumps(read.dump()) == json.dumps(build().dump())
