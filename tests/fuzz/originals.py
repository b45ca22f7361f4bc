"""The files that fuzzing begins with: a pipeline with all that a file may hold, its cache after a run, and its Distiset."""

import json
from pathlib import Path
from typing import Any

from distilabel_dagster.models import OfflineExtractiveLLM
from distilabel_dagster.pipeline import Pipeline, sample_n_steps
from distilabel_dagster.steps import CombineOutputs, ExpandColumns, FilterRows, KeepColumns, LoadDataFromDicts
from distilabel_dagster.steps.tasks import StructuredGeneration, TextGeneration

TEXTS = [
    "When a name is not found at all, a NameError exception is raised.",
    "A lambda expression yields a function object.",
]
ANSWER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def build(cache_dir: Path | str, *, is_whole: bool = True) -> Pipeline:
    """The pipeline; without its last task where it's to be run."""
    with Pipeline("strange", description="What strangers change", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(
            name="load",
            data=[{"passage": text, "tags": ["a", "b"], "n": n} for n, text in enumerate(TEXTS)],
            batch_size=1,
        )
        ask = TextGeneration(
            name="ask",
            llm=OfflineExtractiveLLM(mode="question"),
            template="Passage:\n{{ passage }}",
            columns="passage",
            input_batch_size=1,
        )
        keep = KeepColumns(name="keep", columns=["passage", "tags"], input_batch_size=1)
        join = CombineOutputs(name="join", input_batch_size=1)
        expand = ExpandColumns(name="expand", columns=["tags"], input_batch_size=1)
        load >> sample_n_steps(2) >> [ask, keep] >> join >> expand
        few = FilterRows(name="few", column="n", op=">", value=0)
        load_again = LoadDataFromDicts(
            name="load_again", data=[{"n": n, "more": {"x": [n, None]}} for n in range(4)]
        )
        load_again >> few
        if is_whole:
            few >> StructuredGeneration(
                name="fill",
                llm=OfflineExtractiveLLM(mode="question"),
                schema=ANSWER,
                template="{{ n }}",
                columns="n",
            )
    return pipeline


def as_data(pipeline: Pipeline) -> dict[str, Any]:
    """The pipeline's file as plain data, without the descriptions of parameters, which nobody reads back."""
    data: dict[str, Any] = _without_descriptions(json.loads(json.dumps(pipeline.dump())))
    return data


def _without_descriptions(value: Any) -> Any:
    if isinstance(value, dict):
        kept = ((key, each) for key, each in value.items() if key != "runtime_parameters_info")
        return {key: _without_descriptions(each) for key, each in kept}
    return [_without_descriptions(each) for each in value] if isinstance(value, list) else value
