import datetime as dt
import re
from typing import Any

import pytest
import yaml
from datasets import Dataset, DatasetDict

from distilabel_dagster.distiset.card import build_card, read_header


def configs(**columns: list[Any]) -> dict[str, DatasetDict]:
    return {"generate": DatasetDict({"train": Dataset.from_dict(columns)})}


def fenced_blocks(card: str) -> list[tuple[str, str]]:
    """Language and text of each fence, read as CommonMark reads them: closed by as many backticks, or more."""
    blocks, fence, language, lines = [], "", "", []
    for line in card.splitlines():
        opening = re.fullmatch(r"(`{3,})([^`]*)", line)
        if not fence and opening:
            fence, language, lines = opening[1], opening[2], []
        elif fence and re.fullmatch(rf"`{{{len(fence)},}}\s*", line):
            blocks.append((language, "\n".join(lines)))
            fence = ""
        elif fence:
            lines.append(line)
    assert fence == "", "a fence is never closed"
    return blocks


def sample_row(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(dict(fenced_blocks(card))["json"]))


def test_card_tells_counts_columns_and_a_row() -> None:
    card = build_card(configs(instruction=["Say hi"] * 1234, score=[1] * 1234), {}, name="user/greetings")
    assert "# `user/greetings`" in card
    assert "Rows: 1,234 in `train`" in card
    assert "- `instruction`: `string`\n- `score`: `int64`" in card
    assert sample_row(card) == {"instruction": "Say hi", "score": 1}


def test_card_tells_of_each_config_and_split() -> None:
    both = {**configs(a=[1]), "judge": DatasetDict({"train": Dataset.from_dict({"b": [1, 2]})})}
    both["judge"]["test"] = Dataset.from_dict({"b": [3]})
    card = build_card(both, {}, name="n")
    assert "### `generate`" in card
    assert "### `judge`\n\nRows: 2 in `train`, 1 in `test`" in card
    assert card.startswith("---\nsize_categories:\n- n<1K\n")


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (9_999, "1K<n<10K"), (10_000, "10K<n<100K")],
)
def test_header_tells_the_size(rows: int, category: str) -> None:
    assert read_header(build_card(configs(a=[1] * rows), {}, name="n"))["size_categories"] == [category]


def test_header_that_is_there_is_kept() -> None:
    header = {"license": "apache-2.0", "tags": ["mine", "synthetic"], "configs": [{"config_name": "old"}]}
    merged = read_header(build_card(configs(a=[1]), {}, name="user/n", header=header))
    assert merged["license"] == "apache-2.0"
    assert merged["configs"] == [{"config_name": "old"}]
    assert merged["tags"] == ["mine", "synthetic", "distilabel", "distilabel-dagster"]


def test_card_of_a_repository_says_how_to_load_it() -> None:
    code = dict(fenced_blocks(build_card(configs(a=[1]), {}, name="user/n", header={})))["python"]
    assert code.endswith('load_dataset("user/n", "generate")')


def test_card_on_disk_says_how_to_load_it() -> None:
    code = dict(fenced_blocks(build_card(configs(a=[1]), {}, name="n")))["python"]
    assert "Distiset.load_from_disk(" in code


def test_card_shows_the_pipeline_and_how_to_run_it() -> None:
    card = build_card(
        configs(a=[1]), {"pipeline.yaml": b"pipeline:\n  name: qa", "pipeline.log": b""}, name="n"
    )
    blocks = dict(fenced_blocks(card))
    assert blocks["yaml"] == "pipeline:\n  name: qa"
    assert blocks["console"] == "distilabel-dagster pipeline run --config pipeline.yaml"
    assert "`pipeline.log`" in card


def test_card_shows_the_beginning_of_a_long_pipeline() -> None:
    card = build_card(configs(a=[1]), {"pipeline.yaml": b"name: qa\n" + b"x" * 1_000_000}, name="n")
    assert len(card) < 20_000
    assert "This is the beginning" in card


def test_card_without_a_pipeline_does_not_speak_of_one() -> None:
    assert "pipeline.yaml" not in build_card(configs(a=[1]), {}, name="n")


def test_long_values_are_cut_and_say_so() -> None:
    card = build_card(configs(text=["x" * 5000], items=[list(range(100))]), {}, name="n")
    row = sample_row(card)
    assert row["text"] == "x" * 300 + "… (5000 characters)"
    assert row["items"] == [0, 1, 2, 3, 4, "… (100 items)"]


def test_values_that_are_not_text_are_shown() -> None:
    day = dt.date(2024, 1, 31)
    row = sample_row(
        build_card(configs(raw=[b"\x00\xff"], day=[day], none=[None], nested=[{"k": [b"1"]}]), {}, name="n")
    )
    assert row == {"raw": "(2 bytes)", "day": "2024-01-31", "none": None, "nested": {"k": ["(1 bytes)"]}}


@pytest.mark.parametrize(
    "hostile",
    [
        "```\n# Not a heading",
        "`````\n</details><script>alert(1)</script>",
        "{{ 7 * 7 }} {% include '/etc/passwd' %}",
        "---\nlicense: other\n---",
    ],
)
def test_rows_and_pipelines_can_not_break_the_card(hostile: str) -> None:
    card = build_card(configs(text=[hostile]), {"pipeline.yaml": hostile.encode()}, name="n")
    blocks = dict(fenced_blocks(card))
    assert list(blocks) == ["python", "json", "console", "yaml"]
    assert sample_row(card) == {"text": hostile}
    assert blocks["yaml"] == hostile
    assert "license" not in read_header(card)


def test_hostile_column_names_stay_code() -> None:
    card = build_card(configs(**{"a`b\n# Heading": [1]}), {}, name="n")
    assert "- `` a`b # Heading ``: `int64`" in card
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# `n`"]


def test_leaf_without_rows_has_no_sample() -> None:
    card = build_card(configs(a=[]), {}, name="n")
    assert "Rows: 0 in `train`" in card
    assert "json" not in dict(fenced_blocks(card))


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("# no header", {}),
        ("---\nlicense: mit\n---\n# A card", {"license": "mit"}),
        ("\n---\r\ntags:\r\n- a\r\n---\r\ntext", {"tags": ["a"]}),
        ("---\n---\ntext", {}),
        ("---\na: 1", {}),
    ],
)
def test_a_cards_header_is_read(text: str, header: dict[str, Any]) -> None:
    assert read_header(text) == header


@pytest.mark.parametrize(
    "header",
    [
        "- a",
        "5",
        "a: !!python/name:os.system x",
        "a: 1\na: 2",
        "1: 2",
        "a: &a [*a]",
        "[" * 500,
        "a: [",
        "a: 2024-99-99",
    ],
)
def test_a_header_that_is_no_mapping_is_told(header: str) -> None:
    with pytest.raises(ValueError, match="the header of the card that is there"):
        read_header(f"---\n{header}\n---\ntext")
