"""The pipeline `python_docs_qa`: passages of Python's language reference, a question about each, its answer."""

from typing import Literal

from distilabel_dagster.base.environment import openai_setting
from distilabel_dagster.models import LLM, OfflineExtractiveLLM, OpenAILLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import FilterRows, KeepColumns, MinHashDedup
from distilabel_dagster.steps.tasks import TextGeneration
from examples.python_docs_qa.steps import LoadPythonTopics, ScorePairs, SplitPassages

ASK_PROMPT = """\
You write questions about Python for people who learn it. Ask one question that the passage answers fully, and that \
can be understood without the passage. Reply with the question only."""
ASK_TEMPLATE = """\
Topic: {{ topic }}

Passage:
{{ passage }}"""
ANSWER_PROMPT = """\
You answer questions about Python from a passage of its language reference. Say only what the passage says, in one to \
five sentences. Reply with the answer only."""
ANSWER_TEMPLATE = """\
Passage:
{{ passage }}

Question: {{ instruction }}"""


def build_llm(mode: Literal["question", "answer"]) -> LLM:
    """Give the model that asks or answers.

    With OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL all set it's that model; without, rules that work offline.
    The column `model_name` of the dataset says which it was.
    """
    if all(openai_setting(name) for name in ("base_url", "api_key", "model")):
        return OpenAILLM(generation_kwargs={"temperature": 0.0})
    return OfflineExtractiveLLM(mode=mode)


def build_pipeline(cache_dir: str | None = None, max_topics: int | None = None) -> Pipeline:
    """Declare the pipeline.

    Args:
        cache_dir: where its outputs are kept; see `Pipeline`.
        max_topics: how many topics of the reference to take; all by default.
    """
    with Pipeline(
        "python_docs_qa",
        description="Questions and answers from Python's own language reference.",
        cache_dir=cache_dir,
    ) as pipeline:
        load_topics = LoadPythonTopics(name="load_topics", max_topics=max_topics, batch_size=10)
        split_passages = SplitPassages(name="split_passages", input_batch_size=10)
        ask_question = TextGeneration(
            name="ask_question",
            llm=build_llm("question"),
            system_prompt=ASK_PROMPT,
            template=ASK_TEMPLATE,
            columns=["topic", "passage"],
            output_mappings={"generation": "instruction"},
        )
        answer_question = TextGeneration(
            name="answer_question",
            llm=build_llm("answer"),
            system_prompt=ANSWER_PROMPT,
            template=ANSWER_TEMPLATE,
            columns=["passage", "instruction"],
            output_mappings={"generation": "response"},
        )
        # Topics share passages, so the same is asked more than once.
        find_duplicates = MinHashDedup(
            name="find_duplicates", tokenizer="ngrams", threshold=0.85, input_mappings={"text": "instruction"}
        )
        drop_duplicates = FilterRows(
            name="drop_duplicates", column="keep_row_after_minhash_filtering", op="==", value=True
        )
        score_pairs = ScorePairs(name="score_pairs")
        drop_weak_pairs = FilterRows(name="drop_weak_pairs", column="pair_score", op=">=", value=0.6)
        instruction_dataset = KeepColumns(
            name="instruction_dataset", columns=["instruction", "response", "topic", "passage", "model_name"]
        )
        (
            load_topics
            >> split_passages
            >> ask_question
            >> answer_question
            >> find_duplicates
            >> drop_duplicates
            >> score_pairs
            >> drop_weak_pairs
            >> instruction_dataset
        )
    return pipeline
