"""`TextGeneration`: a prompt made of a row's columns, and the model's answer to it."""

from typing import Any

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.batch import Row
from distilabel_dagster.models.llm import ChatType
from distilabel_dagster.steps.tasks.template_task import TemplateTask


class TextGeneration(TemplateTask):
    r"""Generate text from a template that is filled with a row's columns.

    Templates are Jinja2's, run in its sandbox. A variable that isn't in `columns`, and a column that the template
    doesn't use, are refused when the step is made. Where a `{{ … }}` gives None the row fails without a call,
    since "None" is no prompt: write `{{ column or "" }}` if that is meant.

    Attributes:
        template: the user message.
        columns: the columns that the template reads; one name or a list.
        system_prompt: the system message of every row. Without it, a row's column `system_prompt` is taken where
            it has one.
        use_system_prompt: False sends no system message at all.

    Runtime parameters:
        - `num_generations`, `add_raw_output`, `add_raw_input`, and those of the model: see `Task`.

    Input columns:
        - dynamic (determined by `columns`, `instruction` by default): what the template reads.
        - system_prompt (`str`, optional): the row's system message.

    Output columns:
        - generation (`str`): the model's answer.
        - model_name (`str`): the model that was asked.

    References:
        - [Jinja2's template language](https://jinja.palletsprojects.com/templates/)

    Examples:
        >>> from distilabel_dagster.models import OfflineExtractiveLLM
        >>> ask = TextGeneration(
        ...     name="ask",
        ...     llm=OfflineExtractiveLLM(mode="question"),
        ...     template="Passage:\n{{ passage }}",
        ...     columns="passage",
        ... )
        >>> passage = "When a name is not found at all, a NameError exception is raised."
        >>> ask.run_process([{"passage": passage}])[0]["generation"]
        'What happens when a name is not found at all?'
    """

    @property
    def outputs(self) -> StepColumns:
        """The answer, and which model gave it."""
        return ["generation", "model_name"]

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 (distilabel's name)
        """Fill the template; the system message comes first."""
        return self.build_messages(input)

    def format_output(self, output: str | None, input: Row | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        """Give the answer as it is."""
        return {"generation": output}
