import io
import logging
import sys
import traceback
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from distilabel_dagster.distiset import Distiset
from distilabel_dagster.distiset.card import read_header
from distilabel_dagster.errors import DistisetError

# The fixture `fake_hub` (conftest.py) is a server on this machine; nothing of ours or of the client is replaced.
# What the client's own HTTP library deprecates in the client isn't ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def distiset(tmp_path: Path) -> Distiset:
    (tmp_path / "pipeline.yaml").write_text("pipeline:\n  name: qa\n")
    (tmp_path / "pipeline.log").write_text("Load pipeline from cache\n")
    return Distiset(
        {
            "generate": DatasetDict({"train": Dataset.from_dict({"text": ["a", "b", "c"]})}),
            "judge": DatasetDict({"train": Dataset.from_dict({"score": [1, 2]})}),
        },
        pipeline_path=tmp_path / "pipeline.yaml",
        log_filename_path=tmp_path / "pipeline.log",
    )


def pushed_rows(
    hub: Any, config: str, repository: str = "user/qa", revision: str = "main"
) -> list[dict[str, Any]]:
    """Rows of a config, found as `load_dataset` finds them: by the card's header."""
    files = hub.files(repository, revision)
    header = read_header(files["README.md"].decode())
    patterns = {each["config_name"]: each["data_files"][0]["path"] for each in header["configs"]}
    paths = sorted(path for path in files if Path(path).match(patterns[config]))
    return [row for path in paths for row in pq.read_table(io.BytesIO(files[path])).to_pylist()]


def test_push_makes_a_config_of_each_leaf(fake_hub: Any, distiset: Distiset) -> None:
    distiset.push_to_hub("user/qa", token=fake_hub.token)
    assert pushed_rows(fake_hub, "generate") == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert pushed_rows(fake_hub, "judge") == [{"score": 1}, {"score": 2}]
    files = fake_hub.files("user/qa")
    assert files["pipeline.yaml"] == b"pipeline:\n  name: qa\n"
    assert files["pipeline.log"] == b"Load pipeline from cache\n"
    card = files["README.md"].decode()
    assert "Rows: 3 in `train`" in card
    assert '"text": "a"' in card
    assert "name: qa" in card
    assert set(read_header(card)["tags"]) >= {"synthetic", "distilabel"}
    assert len(fake_hub.commits) == 3


def test_single_leaf_is_pushed_as_default(fake_hub: Any, distiset: Distiset) -> None:
    del distiset["judge"]
    distiset.push_to_hub("user/qa", token=fake_hub.token)
    assert pushed_rows(fake_hub, "default") == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    card = fake_hub.files("user/qa")["README.md"].decode()
    assert 'load_dataset("user/qa")' in card


def test_single_leaf_called_data_can_be_pushed(fake_hub: Any, distiset: Distiset) -> None:
    Distiset({"data": distiset["judge"]}).push_to_hub("user/qa", token=fake_hub.token)
    assert pushed_rows(fake_hub, "default") == [{"score": 1}, {"score": 2}]


def test_splits_are_pushed(fake_hub: Any, distiset: Distiset) -> None:
    distiset.train_test_split(0.5, shuffle=False).push_to_hub("user/qa", token=fake_hub.token)
    names = sorted(path for path in fake_hub.files("user/qa") if path.endswith(".parquet"))
    assert [name.partition("-")[0] for name in names] == [
        "generate/test",
        "generate/train",
        "judge/test",
        "judge/train",
    ]


def test_leaf_without_rows_is_pushed(fake_hub: Any) -> None:
    empty = Dataset.from_dict({"text": ["a"]}).select([])
    Distiset({"filtered": DatasetDict({"train": empty})}).push_to_hub("user/qa", token=fake_hub.token)
    assert pushed_rows(fake_hub, "default") == []


def test_name_alone_goes_to_the_user_of_the_token(fake_hub: Any, distiset: Distiset) -> None:
    distiset.push_to_hub("qa", token=fake_hub.token, private=True)
    assert fake_hub.private == {"user/qa"}
    assert "pipeline.yaml" in fake_hub.files("user/qa")


def test_push_to_a_branch_leaves_main_alone(fake_hub: Any, distiset: Distiset) -> None:
    distiset.push_to_hub("user/qa", token=fake_hub.token, revision="next")
    assert fake_hub.files("user/qa") == {}
    assert pushed_rows(fake_hub, "judge", revision="next") == [{"score": 1}, {"score": 2}]
    assert "pipeline.yaml" in fake_hub.files("user/qa", "next")


def test_pushing_again_replaces_rows_and_keeps_the_header(fake_hub: Any, distiset: Distiset) -> None:
    distiset.push_to_hub("user/qa", token=fake_hub.token)
    files = fake_hub.files("user/qa")
    files["README.md"] = files["README.md"].replace(b"---\n", b"---\nlicense: apache-2.0\n", 1)
    distiset["judge"] = DatasetDict({"train": Dataset.from_dict({"score": [9]})})
    distiset.push_to_hub("user/qa", token=fake_hub.token)
    assert pushed_rows(fake_hub, "judge") == [{"score": 9}]
    assert read_header(fake_hub.files("user/qa")["README.md"].decode())["license"] == "apache-2.0"


def test_push_without_a_card_keeps_the_text_that_is_there(fake_hub: Any, distiset: Distiset) -> None:
    fake_hub.repositories["user/qa"] = {"main": {"README.md": b"---\nlicense: mit\n---\nMine.\n"}}
    distiset.push_to_hub("user/qa", token=fake_hub.token, generate_card=False)
    assert fake_hub.files("user/qa")["README.md"].decode().endswith("Mine.\n")
    assert pushed_rows(fake_hub, "judge") == [{"score": 1}, {"score": 2}]
    assert "pipeline.yaml" in fake_hub.files("user/qa")


def test_running_script_is_pushed_on_demand(
    fake_hub: Any, distiset: Distiset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "make_qa.py"
    script.write_text("print('made')\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    distiset.push_to_hub("user/qa", token=fake_hub.token, include_script=True)
    assert fake_hub.files("user/qa")["make_qa.py"] == b"print('made')\n"


def test_script_that_does_not_exist_is_said_before_any_request(
    fake_hub: Any, distiset: Distiset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/usr/bin/dagster", raising=False)
    with pytest.raises(DistisetError, match="include_script needs a running Python script"):
        distiset.push_to_hub("user/qa", token=fake_hub.token, include_script=True)
    assert fake_hub.repositories == {}


def test_refused_token_is_in_no_message(
    fake_hub: Any, distiset: Distiset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mistyped = "hf_mistyped-secret"
    with pytest.raises(DistisetError, match="`user/qa` can't be made or reached") as caught:
        distiset.push_to_hub("user/qa", token=mistyped)
    shown = "".join(traceback.format_exception(caught.value))
    assert "Invalid: Bearer ***" in shown
    assert mistyped not in shown + caplog.text


def test_failure_half_way_says_what_was_pushed(
    fake_hub: Any, distiset: Distiset, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = fake_hub._commit

    def refuse_the_second(**request: Any) -> Any:
        if fake_hub.commits:
            raise KeyError("user/qa")
        return accept(**request)

    monkeypatch.setattr(fake_hub, "_commit", refuse_the_second)
    with pytest.raises(DistisetError, match=r"Config `judge` can't be pushed .*pushed before it: `generate`"):
        distiset.push_to_hub("user/qa", token=fake_hub.token)
    monkeypatch.setattr(fake_hub, "_commit", accept)
    distiset.push_to_hub("user/qa", token=fake_hub.token)
    assert pushed_rows(fake_hub, "judge") == [{"score": 1}, {"score": 2}]


def test_unreachable_hub_is_an_error_of_ours(
    fake_hub: Any, distiset: Distiset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DistisetError, match="can't be made or reached"):
        distiset.push_to_hub("user/qa", token=fake_hub.token)


@pytest.mark.parametrize("repo_id", ["a/b/c", "user/..", ""])
def test_name_that_is_none_is_an_error_of_ours(fake_hub: Any, distiset: Distiset, repo_id: str) -> None:
    with pytest.raises(DistisetError, match="can't be made or reached"):
        distiset.push_to_hub(repo_id, token=fake_hub.token)


def test_pipeline_file_that_is_gone_is_said_before_any_request(fake_hub: Any, distiset: Distiset) -> None:
    Path(str(distiset.pipeline_path)).unlink()
    with pytest.raises(DistisetError, match=r"pipeline\.yaml of this Distiset, isn't there any more"):
        distiset.push_to_hub("user/qa", token=fake_hub.token)
    assert fake_hub.repositories == {}
