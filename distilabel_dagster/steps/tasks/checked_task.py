"""`CheckedTask`: the base of tasks whose answers have a form, and that ask again where one hasn't."""

from abc import abstractmethod
from typing import Any, Final

from pydantic import BaseModel, NonNegativeInt

from distilabel_dagster.models.llm import ChatType
from distilabel_dagster.steps.tasks.task import Task

_UNREADABLE: Final = ("the answer can't be read: ", "ValueError: ")
_REPAIR: Final = (
    "That answer can't be used: {problem}\n\n"
    "Answer again from the beginning, with that put right, in the form you were asked for and with nothing around it."
)


class CheckedTask(Task):
    """A task that checks the form of its answers; override `get_structured_output` and what `Task` asks for.

    An answer that `format_output` refuses fails its row, with the answer kept as the raw output. Before that it may
    be given back to the model with what is wrong with it, `repair_turns` times at most; the tokens of these calls
    are added to the row's.

    Attributes:
        repair_turns: how often the model is asked to correct an answer that can't be used.
        use_default_structured_output: hold the model to the schema of the answer by the request itself, where it can
            be held to one. True by default; False for endpoints that refuse such requests.
    """

    repair_turns: NonNegativeInt = 0
    use_default_structured_output: bool = True

    @abstractmethod
    def get_structured_output(self) -> type[BaseModel] | dict[str, Any] | None:
        """Give the schema of the answers; None where they have none that holds for all rows."""

    def prompt_words(self) -> list[str]:
        """Give the words of the prompt that are the task's own, in their order."""
        return []

    def data_fingerprint(self) -> list[str]:
        """Make the task's own words part of the signature, which this package's code isn't."""
        return [*self.prompt_words(), *([_REPAIR] if self.repair_turns else [])]

    @property
    def follow_up_turns(self) -> int:
        """How often an answer that can't be used is given back."""
        return self.repair_turns

    def follow_up(self, messages: ChatType, output: str, error: str) -> ChatType | None:
        """Give the answer back to the model, with what is wrong with it."""
        problem = error
        for prefix in _UNREADABLE:
            problem = problem.removeprefix(prefix)
        return [
            *messages,
            {"role": "assistant", "content": output},
            {"role": "user", "content": _REPAIR.format(problem=problem)},
        ]
