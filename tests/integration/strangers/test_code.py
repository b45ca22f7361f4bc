"""What a file names is data: nothing is imported, called or looked up that nobody vouched for."""

import json
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distilabel_dagster.base.serializable import is_trusted, resolve_attribute
from distilabel_dagster.errors import PipelineFileError, UntrustedClassError
from distilabel_dagster.pipeline import Pipeline
from tests.fuzz.originals import as_data, build
from tests.fuzz.watch import watched

OWN = """\
import os
import subprocess
from os import system
from subprocess import Popen, run
from distilabel_dagster.pipeline import routing_batch_function
from distilabel_dagster.pipeline import routing_batch_function as routed
from distilabel_dagster.steps import Step

called = []

class Mine(Step):
    def process(self, inputs):
        yield inputs

def tidy_up(n):
    called.append(n)

def choose(n):
    @routing_batch_function()
    def first(steps):
        return steps[:n]
    return first

def choose_too(n):
    @routed()
    def first(steps):
        return steps[:n]
    return first
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, which the caller trusts."""
    (tmp_path / "own_steps.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_steps", raising=False)
    return "own_steps"


def with_routing(module: str, name: str, **kwargs: Any) -> dict[str, Any]:
    data = as_data(build("memory://nowhere"))
    (routing,) = data["pipeline"]["routing_batch_functions"]
    routing["type_info"] = {"module": module, "name": name, "kwargs": kwargs}
    return data


def step_of(data: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each["step"] for each in data["pipeline"]["steps"] if each["name"] == name)
    return found


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("os.system", {"command": "touch ran"}),
        ("system", {"command": "touch ran"}),
        ("run", {"args": ["touch", "ran"]}),
        ("Popen", {"args": ["touch", "ran"]}),
        ("subprocess.Popen", {"args": ["touch", "ran"]}),
        ("tidy_up", {"n": 1}),
        ("Mine.load", {}),
        ("Mine.__init__", {}),
        ("choose.__globals__", {}),
    ],
)
def test_to_trust_a_module_is_not_to_have_its_functions_called(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kwargs: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineFileError):
        Pipeline.from_dict(with_routing(own, name, **kwargs), trusted_modules=[own])
    assert not (tmp_path / "ran").exists()
    assert sys.modules[own].called == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["choose", "choose_too"])
def test_what_makes_routing_functions_is_called(own: str, name: str) -> None:
    pipeline = Pipeline.from_dict(with_routing(own, name, n=1), trusted_modules=[own])
    assert pipeline.dag.routing["load"](["a", "b"]) == ["a"]


@pytest.mark.parametrize("value", ["1", 1.5, None, [], 10**30, True])
def test_arguments_of_any_type_are_an_error_at_most(value: Any) -> None:
    data = with_routing("distilabel_dagster.dag.routing", "sample_n_steps", n=value)
    try:
        pipeline = Pipeline.from_dict(data)
    except PipelineFileError:
        return
    assert type(value) in (int, bool)
    assert pipeline.dag.routing["load"].kwargs == {"n": value}


def test_trust_goes_by_whole_names() -> None:
    assert is_trusted("foo", ["foo"])
    assert is_trusted("foo.bar", ["foo"])
    assert not is_trusted("foobar", ["foo"])
    assert not is_trusted("fo", ["foo"])
    assert not is_trusted("", ["foo"])
    assert is_trusted("foo.bar", "foo")  # a text is one name, not its letters
    assert not is_trusted("f", "foo")


@pytest.mark.parametrize(
    "module",
    ["", ".", "..", ".steps", "distilabel_dagster.", "distilabel_dagster.steps.", "distilabel_dagster.steps/../x", "a\0b",
     "distilabel_dagster.steps.\u202ex", "a" * 5000, "os\n", "é" * 400],
)  # fmt: skip
@pytest.mark.parametrize("place", ["module", "name"])
def test_what_is_no_dotted_name_is_refused_unseen(module: str, place: str) -> None:
    info = {"module": "distilabel_dagster.steps", "name": "KeepColumns", place: module}
    with watched() as watch, pytest.raises(PipelineFileError, match="expected a `type_info`") as caught:
        resolve_attribute(info, "file", [module])
    assert not watch.offences
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("subprocess", "Popen"),  # imported by the caller, and no class that belongs there
        ("distilabel_dagster.engine.replicas", "pickle.Unpickler"),
        ("distilabel_dagster.base.serializable", "SerializableModel.__init__"),
        ("distilabel_dagster.steps.step", "Step.__class__"),
        ("distilabel_dagster.steps", "__loader__.load_module"),
        ("distilabel_dagster", "build_definitions"),  # made when it's asked for, by importing Dagster's half
        ("builtins", "eval"),
    ],
)
def test_only_classes_of_pipelines_are_found(module: str, name: str) -> None:
    data = as_data(build("memory://nowhere"))
    Pipeline.from_dict(data)
    before = set(sys.modules)
    step_of(data, "keep")["type_info"] = {"module": module, "name": name}
    with pytest.raises(PipelineFileError):
        Pipeline.from_dict(data)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "module", ["orchestration", "cli.main", "orchestration.component", "engine.replicas"]
)
def test_other_parts_of_the_package_are_not_imported_for_a_file(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"distilabel_dagster.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(PipelineFileError, match="can't be imported"):
        resolve_attribute({"module": name, "name": "Step"}, "file")
    assert name not in sys.modules


def test_attributes_that_a_module_makes_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many libraries import the rest of themselves when a name is asked for."""
    asked: list[str] = []

    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            raise AttributeError(name)

    module = Lazy("imported_by_the_caller")
    module.__dict__["__getattr__"] = asked.append
    monkeypatch.setitem(sys.modules, "imported_by_the_caller", module)
    asked.clear()
    with pytest.raises(PipelineFileError, match="has no `Anything`"):
        resolve_attribute({"module": "imported_by_the_caller", "name": "Anything"}, "file")
    assert asked == []


@pytest.mark.parametrize("value", ["x", {"add_step": 1}, None, [1]])
def test_a_file_gives_no_step_a_pipeline(value: Any) -> None:
    data = as_data(build("memory://nowhere"))
    step_of(data, "keep")["pipeline"] = value
    with pytest.raises(PipelineFileError, match="has a `pipeline`"):
        Pipeline.from_dict(data)


@pytest.mark.parametrize("key", ["self", 3, None, 2.5])
def test_keys_that_are_no_fields_names_are_refused(key: Any) -> None:
    data = as_data(build("memory://nowhere"))
    step_of(data, "keep")[key] = 1
    with pytest.raises(PipelineFileError, match="which is no field's name"):
        Pipeline.from_dict(data)


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:9/schema.json", "file:///etc/passwd", "other.json", "#/$defs/gone"]
)
def test_a_schema_that_refers_elsewhere_fetches_nothing(reference: str) -> None:
    data = as_data(build("memory://nowhere"))
    step_of(data, "fill")["output_schema"] = {"type": "object", "properties": {"n": {"$ref": reference}}}
    with watched() as watch:
        pipeline = Pipeline.from_dict(data)
        with pytest.raises(ValueError, match="refers to what it doesn't hold"):
            pipeline.dag.steps["fill"].format_output('{"n": 1}', {"n": 1})  # type: ignore[attr-defined]
    assert not watch.offences


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_key_that_stands_twice_is_refused(form: str, tmp_path: Path) -> None:
    """Else a person may read one of them, and the program the other."""
    text = json.dumps(as_data(build("memory://nowhere"))).replace(
        '"name": "strange"', '"name": "strange", "name": "other"'
    )
    (tmp_path / "pipeline").write_text(text)
    read = Pipeline.from_json if form == "json" else Pipeline.from_yaml
    with pytest.raises(PipelineFileError, match="twice"):
        read(tmp_path / "pipeline")


@pytest.mark.parametrize("text", ["\x1b[2J", "\u202e", "\x07", "\x9b1m"])
def test_messages_move_no_cursor(text: str, caplog: pytest.LogCaptureFixture) -> None:
    data = as_data(build("memory://nowhere"))
    step_of(data, "keep")["name"] = f"x{text}y"
    with caplog.at_level(logging.DEBUG), pytest.raises(PipelineFileError, match="can't be called") as caught:
        Pipeline.from_dict(data)
    assert text not in str(caught.value)


def test_a_class_that_was_not_imported_is_still_untrusted(own: str) -> None:
    data = as_data(build("memory://nowhere"))
    step_of(data, "keep")["type_info"] = {"module": own, "name": "Mine"}
    for trusted in ([], [own[:-1]], [f"{own}.inner"], [f"{own}s"]):
        with pytest.raises(UntrustedClassError):
            Pipeline.from_dict(data, trusted_modules=trusted)
    assert own not in sys.modules
