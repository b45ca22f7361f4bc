"""A pipeline with a key in every place where a user might put one; run as a program it runs to its end:

    python -m tests.integration.generation.secret_places <cache dir> <url>

The keys are read from the environment, each from a variable named after its place.
"""

import json
import os
import sys
from pathlib import Path

from pydantic import SecretStr

from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.models import OpenAILLM
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import LoadDataFromFileSystem
from distilabel_dagster.steps.tasks import TextGeneration

PREFIX = "PLACE_"
ROWS = 6


class Guarded(TextGeneration):
    """A task with secrets of its own."""

    service_token: str = ""
    webhookPassword: RuntimeParameter[str] = ""  # noqa: N815 (a name as users write them)
    gate: SecretStr | None = None


def secret(place: str) -> str:
    return os.environ[PREFIX + place]


def build(cache_dir: str, url: str) -> Pipeline:
    """Two tasks: one whose key is an argument, and one whose key is in the environment."""
    extra_body = {
        "provider_api_key": secret("EXTRA_BODY"),
        "options": [{"access_token": secret("NESTED"), "depth": 2}],
    }
    rows = Path(cache_dir).with_name("rows.jsonl")
    if not rows.exists():  # its time is part of what it is
        rows.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(ROWS)))
    with Pipeline("secrets", cache_dir=cache_dir, storage_options={"secret": secret("STORAGE")}) as pipeline:
        load = LoadDataFromFileSystem(
            name="load", data_files=str(rows), storage_options={"token": secret("SOURCE"), "auto_mkdir": True}
        )
        ask = Guarded(
            name="ask",
            llm=OpenAILLM(
                model="tiny",
                base_url=url,
                api_key=SecretStr(secret("ARGUMENT")),
                max_retries=1,
                default_headers={
                    "X-Api-Key": SecretStr(secret("HEADER")),
                    "X-Tenant": SecretStr(secret("OTHER_HEADER")),
                },
                generation_kwargs={"temperature": 0.5, "extra_body": extra_body},
            ),
            template="Ask about {{ text }}",
            columns="text",
            output_mappings={"generation": "question"},
            service_token=secret("TASK_FIELD"),
            webhookPassword=secret("TASK_PARAMETER"),
            gate=SecretStr(secret("SECRET_TYPE")),
        )
        answer = TextGeneration(
            name="answer",
            llm=OpenAILLM(model="small", base_url=url, max_retries=1),
            template="Answer {{ question }}",
            columns="question",
        )
        load >> ask >> answer
    return pipeline


if __name__ == "__main__":
    distiset = build(sys.argv[1], sys.argv[2]).run()
    print(distiset["answer"]["train"].to_list())
