"""EmbeddingGeneration: one call a batch, rows in their places, and a row without a text fails alone."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from distilabel_dagster.errors import ModelOutputError
from distilabel_dagster.models.embeddings import EmbeddingOutput, Embeddings
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import EmbeddingGeneration, LoadDataFromDicts


class Lengths(Embeddings):
    short: int = 0
    loads: int = 0
    _calls: list[list[str]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "lengths"

    def load(self) -> None:
        self.loads += 1

    def unload(self) -> None:
        self.loads -= 1

    def encode(self, inputs: list[str]) -> list[list[float]]:
        self._calls.append(inputs)
        return [[len(text), 0.5] for text in inputs][self.short :]


def make_step(**fields: Any) -> EmbeddingGeneration:
    return EmbeddingGeneration(name="embed", **{"embeddings": Lengths(), **fields})


def test_rows_get_the_embedding_of_their_text() -> None:
    step = make_step()
    rows = [{"text": "Ähre 🌾", "other": 1}, {"text": "{{ x }}"}]
    before = copy.deepcopy(rows)
    assert step.run_process(rows) == [
        {"text": "Ähre 🌾", "other": 1, "embedding": [6.0, 0.5], "model_name": "lengths"},
        {"text": "{{ x }}", "embedding": [7.0, 0.5], "model_name": "lengths"},
    ]
    assert rows == before
    assert all(isinstance(number, float) for number in step.run_process(rows)[0]["embedding"])


def test_a_batch_is_one_call_with_each_text_once() -> None:
    llm = Lengths()
    rows = make_step(embeddings=llm).run_process([{"text": text} for text in ("b", "aa", "b")])
    assert llm._calls == [["b", "aa"]]
    assert [row["embedding"][0] for row in rows] == [1.0, 2.0, 1.0]
    assert rows[0]["embedding"] is not rows[2]["embedding"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "column `text` is None; expected text"),
        ("", "column `text` is blank"),
        (" \n", "column `text` is blank"),
        (7, "column `text` is a int; expected text"),
    ],
)
def test_a_row_without_a_text_fails_alone(text: Any, told: str) -> None:
    llm = Lengths()
    step = make_step(embeddings=llm)
    rows = step.run_process([{"text": "a"}, {"text": text}, {"text": "b"}])
    assert [row["embedding"] is None for row in rows] == [False, True, False]
    assert [told in (step.row_error(row) or "") for row in rows] == [False, True, False]
    assert llm._calls == [["a", "b"]]


def test_no_call_is_made_without_texts() -> None:
    llm = Lengths()
    assert make_step(embeddings=llm).run_process([{"text": None}, {}])[1]["embedding"] is None
    assert llm._calls == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"error_embed": "column `text` is None; expected text"}),
        ([], {"error_embed": "column `text` is None; expected text"}),
        ({"error_x": "old"}, {"error_x": "old", "error_embed": "column `text` is None; expected text"}),
        (
            [{"raw": 1}, {"raw": 2}],
            [{"raw": 1, "error_embed": "column `text` is None; expected text"}, {"raw": 2}],
        ),
    ],
)
def test_metadata_is_added_to(before: Any, after: Any) -> None:
    step = make_step()
    (row,) = step.run_process([{"text": None, "distilabel_metadata": before}])
    assert row["distilabel_metadata"] == after
    assert step.row_error(row) == "column `text` is None; expected text"


class Choosy(Lengths):
    """Refuses one text and counts the tokens of the others."""

    def encode_outputs(self, inputs: list[str]) -> list[EmbeddingOutput]:
        return [
            {"embedding": None, "error": "too long"}
            if text == "long"
            else {"embedding": [1.0], "statistics": {"input_tokens": [len(text)], "output_tokens": [0]}}
            for text in inputs
        ]


def test_a_text_that_the_model_refuses_fails_its_rows_only() -> None:
    step = make_step(embeddings=Choosy())
    rows = step.run_process([{"text": text} for text in ("a", "long", "b")])
    assert [row["embedding"] for row in rows] == [[1.0], None, [1.0]]
    assert [step.row_error(row) for row in rows] == [None, "too long", None]


def test_tokens_of_a_text_are_counted_once() -> None:
    rows = make_step(embeddings=Choosy()).run_process([{"text": text} for text in ("ab", "c", "ab")])
    counts = [row.get("distilabel_metadata", {}).get("statistics_embed") for row in rows]
    assert counts == [
        {"input_tokens": 2, "output_tokens": 0},
        {"input_tokens": 1, "output_tokens": 0},
        None,
    ]


def test_another_column_may_be_embedded() -> None:
    step = make_step(input_mappings={"text": "question"}, output_mappings={"embedding": "vector"})
    rows = step.run_process([{"question": "why?"}, {"question": None}])
    assert [row["vector"] for row in rows] == [[4.0, 0.5], None]
    assert [step.row_error(row) is None for row in rows] == [True, False]


def test_a_model_that_gives_too_few_is_refused() -> None:
    with pytest.raises(ModelOutputError, match="`Lengths` gave 1 embeddings for 2 texts"):
        make_step(embeddings=Lengths(short=1)).run_process([{"text": "a"}, {"text": "b"}])


def test_the_model_is_loaded_and_unloaded_with_the_step() -> None:
    llm = Lengths()
    step = make_step(embeddings=llm)
    step.load()
    assert llm.loads == 1
    step.unload()
    assert llm.loads == 0


def test_a_used_step_can_be_sent_to_another_process() -> None:
    step = make_step()
    rows = step.run_process([{"text": "a"}])
    assert pickle.loads(pickle.dumps(step)).run_process([{"text": "a"}]) == rows


def test_files_and_runs_of_a_pipeline_with_it(tmp_path: Path) -> None:
    data = [{"text": "a"}, {"text": None}, {"text": "ccc"}]
    with Pipeline("embeddings", enable_metadata=True) as pipeline:
        LoadDataFromDicts(name="load", data=data) >> make_step(input_batch_size=2)
    pipeline.save(tmp_path / "p.yaml")
    read = Pipeline.from_yaml(tmp_path / "p.yaml")
    assert read.signature == pipeline.signature
    rows = read.dry_run(batch_size=3)["default"]["train"].to_list()
    assert [row["embedding"] for row in rows] == [[1.0, 0.5], None, [3.0, 0.5]]
    step = read.dag.steps["embed"]
    assert isinstance(step, EmbeddingGeneration)
    assert [step.row_error(row) is None for row in rows] == [True, False, True]
