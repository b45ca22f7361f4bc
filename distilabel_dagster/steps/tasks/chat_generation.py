"""`ChatGeneration`: a conversation in a column, and the model's next turn."""

from collections.abc import Mapping
from typing import Any, Final, cast

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.batch import Row
from distilabel_dagster.models.llm import ChatItem, ChatType
from distilabel_dagster.steps.tasks.absent_keys import drop_absent
from distilabel_dagster.steps.tasks.task import Task

_SYSTEM_ROLES: Final = ("system", "developer")
_ROLES: Final = (*_SYSTEM_ROLES, "user", "assistant", "tool")
_ANSWERED_ROLES: Final = ("user", "tool")
_FORM: Final = 'expected a list of messages such as {"role": "user", "content": "…"}'


class ChatGeneration(Task):
    """Go on with a conversation: generate the answer to its last message.

    A row whose conversation isn't one fails without a call: messages need a `role` (`system`, `developer`, `user`,
    `assistant` or `tool`) and a `content` (text, or a list of parts such as text and images), and the last one must
    be the user's or a tool's, since otherwise there's nothing to answer. Keys that are None count as absent, as they
    are in rows that went through a table; other keys, such as `tool_calls`, are sent as they are.

    Attributes:
        system_prompt: the system message of every row; it takes the place of one that a conversation begins with.

    Runtime parameters:
        - `num_generations`, `add_raw_output`, `add_raw_input`, and those of the model: see `Task`.

    Input columns:
        - messages (`list[dict[str, Any]]`): the conversation.

    Output columns:
        - generation (`str`): the model's answer.
        - model_name (`str`): the model that was asked.

    Examples:
        >>> from distilabel_dagster.models import OfflineExtractiveLLM
        >>> chat = ChatGeneration(name="chat", llm=OfflineExtractiveLLM(mode="question"))
        >>> messages = [
        ...     {"role": "system", "content": "Ask about what you are told."},
        ...     {"role": "user", "content": "A lambda expression yields a function object."},
        ... ]
        >>> chat.run_process([{"messages": messages}])[0]["generation"]
        'What does a lambda expression yield?'

        A conversation that nobody waits for an answer in fails its row, and no other:

        >>> (row,) = chat.run_process([{"messages": [*messages, {"role": "assistant", "content": "Fine."}]}])
        >>> row["generation"], chat.row_error(row)
        (None, "the prompt can't be made: ValueError: the last message is the `assistant`'s; it must be of `user` or `tool`")
    """

    system_prompt: str | None = None

    @property
    def inputs(self) -> StepColumns:
        """The conversation."""
        return ["messages"]

    @property
    def outputs(self) -> StepColumns:
        """The answer, and which model gave it."""
        return ["generation", "model_name"]

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 (distilabel's name)
        """Check the conversation and put the system message first.

        Raises:
            TypeError: it isn't a list of messages.
            ValueError: it isn't a conversation that can be answered.
        """
        messages = _check_conversation(input["messages"])
        if self.system_prompt is None:
            return messages
        system: ChatItem = {"role": "system", "content": self.system_prompt}
        return [system, *(messages[1:] if messages[0]["role"] in _SYSTEM_ROLES else messages)]

    def format_output(self, output: str | None, input: Row | None = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        """Give the answer as it is."""
        return {"generation": output}


def _check_conversation(value: Any) -> ChatType:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise TypeError(f"`messages` is a {type(value).__name__}; {_FORM}")
    if not value:
        raise ValueError(f"`messages` is empty; {_FORM}")
    messages = [_check_message(message, number) for number, message in enumerate(value, start=1)]
    last = messages[-1]["role"]
    if last not in _ANSWERED_ROLES:
        raise ValueError(f"the last message is the `{last}`'s; it must be of `user` or `tool`")
    return messages


def _check_message(value: Any, number: int) -> ChatItem:
    if not isinstance(value, Mapping):
        raise TypeError(f"message {number} is a {type(value).__name__}; {_FORM}")
    message = drop_absent(value)
    role = message.get("role")
    if role not in _ROLES:
        roles = ", ".join(f"`{each}`" for each in _ROLES)
        raise ValueError(f"message {number} has the role {role!r}; expected one of {roles}")
    if "content" not in message and role == "assistant" and message.get("tool_calls"):
        message["content"] = None
        return cast(ChatItem, message)
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [_check_part(part, number, place) for place, part in enumerate(content, start=1)]
    if not isinstance(content, str | list) or not content:
        raise ValueError(
            f"message {number}, the `{role}`'s, has the content {content!r}; expected text or a list of parts"
        )
    return cast(ChatItem, message)


def _check_part(value: Any, number: int, place: int) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise TypeError(
            f'part {place} of message {number} is {value!r:.80}; expected a dict such as {{"type": "text", "text": "…"}}'
        )
    return dict(value)
