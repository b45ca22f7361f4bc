"""The dataset card: a README.md that says what a Distiset holds and how to make it again.

Rows, column names and the pipeline's text come from models and strangers. They're only ever put inside fences and code
spans that are longer than any run of backticks in them, and through no template engine.
"""

import datetime as dt
import itertools
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import yaml

from distilabel_dagster.base.yaml_data import load_yaml
from distilabel_dagster.cache import layout

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

CARD_FILE: Final = "README.md"
_TAGS: Final = ("synthetic", "distilabel", "distilabel-dagster")
_SIZES: Final = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_VALUE_CHARACTERS: Final = 300
_LIST_ITEMS: Final = 5
_TYPE_CHARACTERS: Final = 80
_PIPELINE_CHARACTERS: Final = 8_000
_HEADER_LINE: Final = "---"
_HEADER: Final = re.compile(
    r"\s*---[ \t]*\r?\n(?P<header>.*?)(?:\r?\n)?^---[ \t]*\r?$", re.DOTALL | re.MULTILINE
)
_ABOUT: Final = (
    "{rows:,} rows made by a pipeline of distilabel-dagster: synthetic data, written by language models and by the "
    "steps around them. Nobody has checked the rows one by one."
)
_PIPELINE_ABOUT: Final = (
    f"The steps, their settings and their order are in `{layout.PIPELINE_FILE}`, beside this card, without keys and "
    "tokens.{log} To run it again, fetch that file and give your own keys:"
)
_PIPELINE_NEEDS: Final = "Steps that aren't part of distilabel-dagster need their code, too; input rows, where there are many, their source."


def build_card(
    configs: "Mapping[str, DatasetDict]",
    files: Mapping[str, bytes],
    *,
    name: str,
    header: Mapping[str, Any] | None = None,
) -> str:
    """Write the card: header, how to load it, each config with its columns and a sample row, the pipeline.

    Args:
        configs: what the card is about; at least one.
        files: contents of `pipeline.yaml` and `pipeline.log`, as far as they lie beside the card. The log isn't read.
        name: the repository, or the directory's name.
        header: what the card's header says already, such as a license; kept, with tags added.
    """
    rows = sum(dataset.num_rows for dataset_dict in configs.values() for dataset in dataset_dict.values())
    sections = [
        _header(header, rows),
        f"# {_code_span(name)}",
        _ABOUT.format(rows=rows),
        _loading(configs, name, is_on_hub=header is not None),
        "## Configs",
        *itertools.chain.from_iterable(
            _config(config, dataset_dict) for config, dataset_dict in configs.items()
        ),
        *_pipeline(files),
    ]
    return "\n\n".join(sections) + "\n"


def read_header(text: str) -> dict[str, Any]:
    """Give the header of a card's text; empty where it has none.

    Raises:
        ValueError: the header isn't a mapping in YAML.
    """
    match = _HEADER.match(text)
    if match is None:
        return {}
    try:
        header = load_yaml(match["header"]) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"the header of the card that is there can't be read: {error}") from error
    if not isinstance(header, dict) or not all(isinstance(key, str) for key in header):
        raise ValueError("the header of the card that is there isn't a mapping")
    return header


def _header(header: Mapping[str, Any] | None, rows: int) -> str:
    from huggingface_hub import DatasetCardData

    known = dict(header or {})
    tags = known.get("tags") or []
    known["tags"] = list(dict.fromkeys([*([tags] if isinstance(tags, str) else tags), *_TAGS]))
    known["size_categories"] = [_size_category(rows)]
    return f"{_HEADER_LINE}\n{DatasetCardData(**known).to_yaml()}\n{_HEADER_LINE}"


def _size_category(rows: int) -> str:
    exponent = len(str(rows)) - 3
    if exponent < 1:
        return f"n<{_SIZES[0]}"
    return f"{_SIZES[exponent - 1]}<n<{_SIZES[exponent]}" if exponent < len(_SIZES) else f"n>{_SIZES[-1]}"


def _loading(configs: "Mapping[str, DatasetDict]", name: str, *, is_on_hub: bool) -> str:
    if not is_on_hub:
        code = 'from distilabel_dagster.distiset import Distiset\n\ndistiset = Distiset.load_from_disk("<this directory>")'
        return _fenced(code, "python")
    config = next(iter(configs))
    argument = "" if config == "default" else f", {json.dumps(config)}"
    return _fenced(
        f"from datasets import load_dataset\n\ndataset = load_dataset({json.dumps(name)}{argument})", "python"
    )


def _config(config: str, dataset_dict: "DatasetDict") -> list[str]:
    splits = ", ".join(
        f"{dataset.num_rows:,} in {_code_span(str(split))}" for split, dataset in dataset_dict.items()
    )
    dataset = next(iter(dataset_dict.values()))
    columns = [
        f"- {_code_span(field.name)}: {_code_span(_cut(str(field.type), _TYPE_CHARACTERS))}"
        for field in _schema(dataset)
    ]
    sample = next((each for each in dataset_dict.values() if each.num_rows), None)
    return [
        f"### {_code_span(config)}",
        f"Rows: {splits}. Columns:",
        "\n".join(columns) or "none",
        *(["A row, with long values cut:", _fenced(_sample(sample), "json")] if sample is not None else []),
    ]


def _schema(dataset: "Dataset") -> Any:
    return dataset.data.schema


def _sample(dataset: "Dataset") -> str:
    # As Arrow, so that an image stays bytes instead of being decoded.
    row = dataset.with_format("arrow")[:1].to_pylist()[0]
    return json.dumps(_shorten(row), ensure_ascii=False, indent=2)


def _shorten(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shorten(item) for key, item in value.items()}
    if isinstance(value, list):
        more = [f"… ({len(value)} items)"] if len(value) > _LIST_ITEMS else []
        return [_shorten(item) for item in value[:_LIST_ITEMS]] + more
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(str(value), _VALUE_CHARACTERS)


def _pipeline(files: Mapping[str, bytes]) -> list[str]:
    if layout.PIPELINE_FILE not in files:
        return []
    text = files[layout.PIPELINE_FILE].decode(errors="replace").strip()
    shown = text[:_PIPELINE_CHARACTERS]
    log = f" What the runs said is in `{layout.LOG_FILE}`." if layout.LOG_FILE in files else ""
    rest = "" if shown == text else f"This is the beginning; the whole is in `{layout.PIPELINE_FILE}`."
    return [
        "## The pipeline",
        _PIPELINE_ABOUT.format(log=log),
        _fenced(f"distilabel-dagster pipeline run --config {layout.PIPELINE_FILE}", "console"),
        _PIPELINE_NEEDS,
        _fenced(shown, "yaml"),
        *([rest] if rest else []),
    ]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _code_span(text: str) -> str:
    text = " ".join(text.split()) or " "
    ticks = "`" * (_longest_run(text) + 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"{ticks}{text}{ticks}"
