"""Prompts from Jinja2 templates that are filled with a row's columns: the base of tasks that take one."""

from functools import cache, lru_cache
from typing import Any

from pydantic import field_validator, model_validator
from typing_extensions import Self

from distilabel_dagster.batch import Row
from distilabel_dagster.errors import suggest
from distilabel_dagster.models.llm import ChatItem, ChatType
from distilabel_dagster.steps.tasks.task import Task

_SYSTEM_PROMPT = "system_prompt"


class TemplateTask(Task):
    """A task whose user message is a template filled with a row's columns; override `outputs` and `format_output`.

    Templates are Jinja2's, run in its sandbox; what a column holds is put in as it is and never read as a template.
    A variable that isn't in `columns`, and a column that the template doesn't use, are refused when the step is
    made. Where a `{{ … }}` gives None the row fails without a call, since "None" is no prompt: write
    `{{ column or "" }}` if that is meant.

    Attributes:
        template: the user message.
        columns: the columns that the template reads; one name or a list.
        system_prompt: the system message of every row. Without it, a row's column `system_prompt` is taken where
            it has one.
        use_system_prompt: False sends no system message at all.

    Input columns:
        - dynamic (determined by `columns`, `instruction` by default): what the template reads.
        - system_prompt (`str`, optional): the row's system message.

    References:
        - [Jinja2's template language](https://jinja.palletsprojects.com/templates/)
    """

    template: str = "{{ instruction }}"
    columns: str | list[str] = "instruction"
    system_prompt: str | None = None
    use_system_prompt: bool = True

    @field_validator("template")
    @classmethod
    def _check_syntax(cls, value: str) -> str:
        from jinja2 import TemplateSyntaxError

        try:
            _compile(value)
        except TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno} isn't Jinja2's syntax: {error.message}") from error
        except (SyntaxError, RecursionError, MemoryError) as error:  # what Python says of the code made of it
            raise ValueError("blocks or expressions are nested too deeply in it") from error
        return value

    @model_validator(mode="after")
    def _check_variables(self) -> Self:
        from jinja2.meta import find_undeclared_variables

        read = find_undeclared_variables(_environment().parse(self.template))
        columns = self._template_columns()
        unknown = sorted(read - {*columns, *_environment().globals, _SYSTEM_PROMPT})
        if unknown:
            raise ValueError(
                f"the template reads `{unknown[0]}`, which isn't among its columns "
                f"{', '.join(f'`{each}`' for each in columns)}.{suggest(unknown[0], columns)} Add it to `columns=`, or "
                "correct the template"
            )
        unused = [column for column in columns if column not in read]
        if unused:
            raise ValueError(
                f"`columns` names `{unused[0]}`, which the template {self.template!r} doesn't use. Write "
                f"`{{{{ {unused[0]} }}}}` where it belongs, or take it out of `columns=`"
            )
        return self

    def _template_columns(self) -> list[str]:
        return [self.columns] if isinstance(self.columns, str) else self.columns

    @property
    def inputs(self) -> dict[str, bool]:
        """The template's columns, and `system_prompt` where a row has it."""
        columns = dict.fromkeys(self._template_columns(), True)
        if self.use_system_prompt and self.system_prompt is None:
            columns.setdefault(_SYSTEM_PROMPT, False)
        return columns

    def build_messages(self, row: Row) -> ChatType:
        """Fill the template for a row; the system message comes first."""
        user: ChatItem = {"role": "user", "content": self._render(row)}
        system = self.system_prompt if self.system_prompt is not None else row.get(_SYSTEM_PROMPT)
        if not (self.use_system_prompt and system):
            return [user]
        return [{"role": "system", "content": str(system)}, user]

    def _render(self, row: Row) -> str:
        rendered: str = _compile(self.template).render(row)
        return rendered


def _refuse_none(_context: Any, value: Any) -> Any:
    if value is None:
        raise ValueError(
            'a column that the template writes out is None; write `{{ column or "" }}` if it may be'
        )
    return value


@cache
def _environment() -> Any:
    from jinja2 import StrictUndefined, pass_eval_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Prompts are no HTML, so nothing is escaped. A template may come with a stranger's file, and reading that computes
    # nothing of it: not optimized, and with a `finalize` that needs a context, `{{ "a" * 10**10 }}` is for the run.
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=pass_eval_context(_refuse_none),
        keep_trailing_newline=True,
        optimized=False,
    )


@lru_cache(maxsize=256)
def _compile(template: str) -> Any:
    # Kept here and not in the task, which must stay fit for pickling.
    return _environment().from_string(template)
