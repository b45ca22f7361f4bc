from typing import Optional

import pytest
from pydantic import Field

from distilabel_dagster.base.runtime_parameters import RuntimeParameter, RuntimeParametersMixin
from distilabel_dagster.errors import RuntimeParameterError


class Model(RuntimeParametersMixin):
    temperature: RuntimeParameter[float] = Field(default=None, description="How free.")
    seed: Optional[RuntimeParameter[int]] = None  # noqa: UP045  (as users of distilabel write it)


class Thing(RuntimeParametersMixin):
    model: Model = Field(default_factory=Model)
    size: RuntimeParameter[int] = Field(default=5, description="Rows.")
    fixed: int = 1


def test_parameters_are_named_with_those_of_objects_in_fields() -> None:
    assert Thing().runtime_parameters_names == {
        "size": True,
        "model": {"temperature": False, "seed": True},
    }


def test_parameters_are_described() -> None:
    assert Thing().get_runtime_parameters_info() == [
        {"name": "size", "optional": True, "description": "Rows."},
        {
            "name": "model",
            "runtime_parameters_info": [
                {"name": "temperature", "optional": False, "description": "How free."},
                {"name": "seed", "optional": True, "description": None},
            ],
        },
    ]


def test_what_must_be_set_and_is_not_is_missing() -> None:
    assert Thing().missing_runtime_parameters() == ["model.temperature"]
    assert Thing(model=Model(temperature=0.5)).missing_runtime_parameters() == []


def test_parameters_are_set_by_name_nested_and_checked() -> None:
    thing = Thing()
    thing.set_runtime_parameters({"size": 7, "model": {"temperature": 1}})
    assert (thing.size, thing.model.temperature) == (7, 1.0)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"sise": 1}, r"no runtime parameter `sise`. Did you mean `size`"),
        ({"fixed": 2}, "no runtime parameter `fixed`"),
        ({"size": "many"}, "`thing.size` can't be 'many'"),
        ({"model": 3}, "pass them as a dict"),
        ({"model": {"temperatur": 1}}, r"`thing.model` has no runtime parameter `temperatur`"),
    ],
)
def test_what_cannot_be_set_is_told(parameters, told: str) -> None:
    with pytest.raises(RuntimeParameterError, match=told):
        Thing().set_runtime_parameters(parameters, "thing")


@pytest.mark.parametrize(
    "parameters",
    [
        {"size": 9, "model": {"temperatur": 1}},
        {"model": {"temperature": 0.9}, "size": "many"},
        {"model": {"temperature": 0.9, "seed": "x"}},
    ],
)
def test_nothing_is_set_where_one_is_wrong(parameters) -> None:
    thing = Thing()
    with pytest.raises(RuntimeParameterError):
        thing.set_runtime_parameters(parameters)
    assert (thing.size, thing.model.temperature, thing.model.seed) == (5, None, None)


def test_values_can_be_put_back() -> None:
    thing = Thing(model=Model(temperature=0.5))
    wanted = {"size": 7, "model": {"temperature": 1.0}}
    before = thing.get_parameter_values(wanted)
    thing.set_runtime_parameters(wanted)
    thing.restore_parameter_values(before)
    assert (thing.size, thing.model.temperature) == (5, 0.5)
