"""The three kinds of steps that ask a language model: Task, GlobalTask, GeneratorTask."""

from distilabel_dagster.steps.step import GeneratorStep, GlobalStep
from distilabel_dagster.steps.tasks.conversation import ModelStep, RowTask


class Task(RowTask):
    """A step that asks a language model about each row; override `inputs`, `outputs` and the two formats.

    Each row gives `num_generations` rows, or one with lists if `group_generations`. What a row had in
    `distilabel_metadata` is kept and added to. Where something fails for a row (its prompt can't be made, the call
    fails, the answer can't be read), the task's outputs are None, the raw answer is kept, and the reason stands
    under `error_<step>` in the row's `distilabel_metadata`; the other rows aren't touched.

    A `process` of one's own asks by `self.llm.generate_outputs(messages, **self.llm.get_generation_kwargs())`: what goes
    past that isn't in the ledger, and is paid for each time.

    Attributes:
        llm: the model that is asked; tasks may share one.
        group_generations: one row per input with a list per output column, instead of a row per generation.
        add_raw_output: keep the model's answer as `raw_output_<step>` in `distilabel_metadata`.
        add_raw_input: keep the messages as `raw_input_<step>` in `distilabel_metadata`.
        num_generations: how many answers are asked for per row.
        use_default_structured_output: hold the model to the task's own schema, where it has one.

    Runtime parameters:
        - `num_generations`, `add_raw_output`, `add_raw_input`: see above.
        - `llm`: those of the model.

    Output columns:
        - distilabel_metadata (`dict`, a list of them if `group_generations`): raw input and output, token counts as
          `statistics_<step>`, and `error_<step>` where the row failed.
        - model_name (`str`): the model that was asked; declare it in `outputs`.
        - llm_<step>_<key>: for each further list that the model gave.

    References:
        - [distilabel](https://github.com/argilla-io/distilabel)

    Examples:
        >>> from distilabel_dagster.models import LLM
        >>> class Parrot(LLM):
        ...     @property
        ...     def model_name(self):
        ...         return "parrot"
        ...     def generate(self, inputs, num_generations=1):
        ...         return [{"generations": [messages[-1]["content"]] * num_generations} for messages in inputs]
        >>> class Repeat(Task):
        ...     @property
        ...     def inputs(self):
        ...         return ["text"]
        ...     @property
        ...     def outputs(self):
        ...         return ["repeated", "model_name"]
        ...     def format_input(self, input):
        ...         return [{"role": "user", "content": input["text"]}]
        ...     def format_output(self, output, input=None):
        ...         return {"repeated": output}
        >>> repeat = Repeat(name="repeat", llm=Parrot(), add_raw_input=False)
        >>> repeat.run_process([{"text": "hey"}])
        [{'text': 'hey', 'repeated': 'hey', 'model_name': 'parrot', 'distilabel_metadata': {'raw_output_repeat': 'hey'}}]
    """


class GlobalTask(RowTask, GlobalStep):
    """A task that gets all rows at once; with `process` overridden it may ask about them together.

    See `Task` for its attributes, and for what becomes of a row that fails. A `process` of one's own calls
    `self.llm.generate_outputs(messages, **self.llm.get_generation_kwargs())`; an exception in it fails the run.
    """


class GeneratorTask(ModelStep, GeneratorStep):
    """A generator step that makes its rows with a language model; override `outputs` and `process`.

    `process(offset)` calls `self.llm.generate_outputs(messages, **self.llm.get_generation_kwargs())` and yields
    `(rows, last_batch)`. See `Task` for its attributes.

    Examples:
        >>> from distilabel_dagster.models import LLM
        >>> class Counting(LLM):
        ...     @property
        ...     def model_name(self):
        ...         return "counting"
        ...     def generate(self, inputs, num_generations=1):
        ...         return [{"generations": [messages[-1]["content"] + "!"]} for messages in inputs]
        >>> class Topics(GeneratorTask):
        ...     @property
        ...     def outputs(self):
        ...         return ["topic"]
        ...     def process(self, offset=0):
        ...         topics = ["birds", "trees"]
        ...         for index in range(offset, len(topics)):
        ...             messages = [{"role": "user", "content": topics[index]}]
        ...             (answer,) = self.llm.generate_outputs([messages])
        ...             yield [{"topic": answer["generations"][0]}], index == len(topics) - 1
        >>> list(Topics(name="topics", llm=Counting()).process(offset=1))
        [([{'topic': 'trees!'}], True)]
    """
