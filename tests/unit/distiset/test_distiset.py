import pickle
import subprocess
import sys
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from distilabel_dagster.distiset import Distiset
from distilabel_dagster.errors import DistisetError

SEED_REPR = """\
Distiset({
    generate_response: DatasetDict({
        train: Dataset({
            features: ['instruction', 'response'],
            num_rows: 80
        })
    })
})"""


def dataset_dict(rows: int = 10, **columns: Any) -> DatasetDict:
    return DatasetDict({"train": Dataset.from_dict({"number": list(range(rows)), **columns})})


def numbers(distiset: Distiset, config: str, split: str) -> list[int]:
    return list(distiset[config][split]["number"])


def test_repr_is_the_one_that_the_documentation_prints() -> None:
    rows = {"instruction": ["a"] * 80, "response": ["b"] * 80}
    assert repr(Distiset({"generate_response": DatasetDict({"train": Dataset.from_dict(rows)})})) == SEED_REPR


def test_repr_shows_each_config() -> None:
    shown = repr(Distiset({"first": dataset_dict(), "second": dataset_dict()}))
    assert "\n    first: DatasetDict({\n" in shown
    assert "\n    second: DatasetDict({\n" in shown


def test_single_leaf_is_the_default_too() -> None:
    leaf = dataset_dict()
    distiset = Distiset({"generate": leaf})
    assert distiset["default"] is leaf
    assert distiset.get("default") is leaf
    assert "default" in distiset
    assert list(distiset) == ["generate"]
    assert len(distiset) == 1


def test_no_config_of_several_is_the_default() -> None:
    distiset = Distiset({"first": dataset_dict(), "second": dataset_dict()})
    assert "default" not in distiset
    assert distiset.get("default", "none") == "none"
    with pytest.raises(KeyError, match="'default' isn't a config of this Distiset; it has `first`, `second`"):
        distiset["default"]


def test_step_called_default_stays_itself() -> None:
    named, other = dataset_dict(), dataset_dict()
    assert Distiset({"default": named, "other": other})["default"] is named


def test_unknown_config_is_not_the_default() -> None:
    with pytest.raises(KeyError, match="generate"):
        Distiset({"generate": dataset_dict()})["generat"]


def test_pickling_keeps_configs_and_paths() -> None:
    distiset = Distiset(
        {"first": dataset_dict(), "default": dataset_dict(3)}, pipeline_path="memory://p.yaml"
    )
    copy = pickle.loads(pickle.dumps(distiset))
    assert type(copy) is Distiset
    assert list(copy) == ["first", "default"]
    assert numbers(copy, "default", "train") == [0, 1, 2]
    assert copy.pipeline_path == "memory://p.yaml"
    assert copy.log_filename_path is None


def test_split_is_in_place_and_keeps_every_row() -> None:
    distiset = Distiset({"first": dataset_dict(), "second": dataset_dict(20)})
    assert distiset.train_test_split(train_size=0.8, seed=7) is distiset
    assert [len(numbers(distiset, "first", split)) for split in ("train", "test")] == [8, 2]
    assert [len(numbers(distiset, "second", split)) for split in ("train", "test")] == [16, 4]
    assert sorted(numbers(distiset, "second", "train") + numbers(distiset, "second", "test")) == list(
        range(20)
    )


def test_split_with_a_seed_takes_the_same_rows() -> None:
    first, second = (Distiset({"leaf": dataset_dict()}).train_test_split(0.5, seed=3) for _ in range(2))
    assert numbers(first, "leaf", "train") == numbers(second, "leaf", "train")


def test_split_without_shuffling_keeps_the_order() -> None:
    distiset = Distiset({"leaf": dataset_dict()}).train_test_split(0.7, shuffle=False)
    assert numbers(distiset, "leaf", "train") == list(range(7))
    assert numbers(distiset, "leaf", "test") == [7, 8, 9]


@pytest.mark.parametrize("train_size", [0, 1, -0.1, 80])
def test_split_refuses_what_is_no_share(train_size: float) -> None:
    with pytest.raises(DistisetError, match="between 0 and 1"):
        Distiset({"leaf": dataset_dict()}).train_test_split(train_size)


def test_split_refuses_to_lose_the_test_rows_of_a_split_before() -> None:
    distiset = Distiset({"leaf": dataset_dict()}).train_test_split(0.8)
    with pytest.raises(DistisetError, match="Config `leaf` has the splits `train`, `test`"):
        distiset.train_test_split(0.5)


def test_split_that_fails_for_one_config_changes_none() -> None:
    distiset = Distiset({"enough": dataset_dict(), "few": dataset_dict(1)})
    with pytest.raises(DistisetError, match="Config `few` has 1 rows, too few"):
        distiset.train_test_split(0.8)
    assert list(distiset["enough"]) == ["train"]


@pytest.mark.parametrize("action", ["save_to_disk", "push_to_hub"])
def test_empty_distiset_is_neither_saved_nor_pushed(action: str) -> None:
    with pytest.raises(DistisetError, match="has no config"):
        getattr(Distiset(), action)("somewhere")


@pytest.mark.parametrize("config", ["distiset_configs", "../outside", ".hidden", "a/b", ""])
def test_config_that_can_not_be_a_directory_is_not_saved(config: str) -> None:
    distiset = Distiset({config: dataset_dict(), "other": dataset_dict()})
    with pytest.raises(DistisetError, match="can't be saved: its name becomes a directory"):
        distiset.save_to_disk("memory://never-written")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config_name": "x"}, "can't take `config_name`: each config is pushed under its own name"),
        ({"data_dir": "x"}, "can't take `data_dir`"),
        ({"create_pr": True}, "can't take `create_pr`"),
        ({"max_shard_sise": "1MB"}, "has no option `max_shard_sise`. Did you mean `max_shard_size`"),
    ],
)
def test_push_refuses_options_before_any_request(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DistisetError, match=message):
        Distiset({"leaf": dataset_dict()}).push_to_hub("user/name", **options)


def test_push_refuses_a_config_whose_place_the_hub_keeps() -> None:
    distiset = Distiset({"data": dataset_dict(), "other": dataset_dict()})
    with pytest.raises(DistisetError, match="can't be pushed as `data`"):
        distiset.push_to_hub("user/name")


def test_importing_it_does_not_load_what_is_heavy() -> None:
    probe = (
        "import sys, distilabel_dagster.distiset; print({'datasets', 'huggingface_hub'} & set(sys.modules))"
    )
    probed = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert probed.stdout.strip() == "set()"
