"""Steps that count what they're asked to do."""

from typing import Any, ClassVar

from distilabel_dagster.models import LLM
from distilabel_dagster.steps import GlobalStep, Step, StepInput

CALLS: list[str] = []


class Add(Step):
    """Adds a column made of the id and `salt`; fails when it gets to `dies_at`: a step (or any) and an id."""

    column: str = "a"
    salt: str = ""
    dies_at: ClassVar[tuple[str | None, int] | None] = None

    @property
    def inputs(self):
        return ["id"]

    @property
    def outputs(self):
        return [self.column]

    def process(self, inputs: StepInput) -> Any:
        for row in inputs:
            if self.dies_at in ((self.name, row["id"]), (None, row["id"])):
                raise ConnectionAbortedError("as if killed")
            CALLS.append(f"{self.name} {row['id']}")
            row[self.column] = f"{self.column}{self.salt}{row['id']}"
        yield inputs


class All(GlobalStep):
    """Says how many rows there are, and how often it was called."""

    calls: ClassVar[int] = 0

    @property
    def outputs(self):
        return ["of"]

    def process(self, inputs: StepInput) -> Any:
        type(self).calls += 1
        yield [{**row, "of": len(inputs)} for row in inputs]


class Echo(LLM):
    """Answers with its temperature and the last message."""

    temperature: float = 0.0

    @property
    def model_name(self) -> str:
        return "echo"

    def generate(self, inputs: Any, num_generations: int = 1, **kwargs: Any) -> Any:
        CALLS.extend(f"llm {messages[-1]['content']}" for messages in inputs)
        return [
            {"generations": [f"{self.temperature} {messages[-1]['content']}"] * num_generations}
            for messages in inputs
        ]
