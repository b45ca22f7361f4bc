"""A model that worker processes import."""

import time
import uuid
from pathlib import Path
from typing import Any, ClassVar

from distilabel_dagster.models import LLM, ChatType, GenerateOutput


class CountingLLM(LLM):
    """Answers with something new each time, and leaves a file for each answer."""

    directory: str
    code_version: ClassVar[str] = "1"

    @property
    def model_name(self) -> str:
        return "counting"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        time.sleep(0.02)
        return [self._answer() for _ in inputs]

    def _answer(self) -> GenerateOutput:
        said = str(uuid.uuid4().int)
        (Path(self.directory) / said).touch()
        return {"generations": [said]}
