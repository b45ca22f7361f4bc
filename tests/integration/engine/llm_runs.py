"""Runs of pipelines whose models are simulated and whose ledger is a real one."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.events import RunEvent, RunFinished
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.models import LLM, AsyncLLM, ChatType, GenerateOutput
from distilabel_dagster.steps.tasks import Task
from tests.unit.engine.runs import Bench

RUN_TIMEOUT_S = 30.0


@dataclass
class Server:
    """What a simulated model is: answers, failures, and a count of all that it was asked.

    Attributes:
        reply: text and how often the same was asked before -> the answer; may raise.
        delay_s: text -> seconds until the answer.
    """

    reply: Callable[[str, int], Any] = lambda text, nth: f"{text}#{nth}"
    delay_s: Callable[[str], float] = lambda text: 0.0
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    closed: int = 0
    on_ask: Callable[[int], None] = lambda count: None
    _lock: Any = field(default_factory=threading.Lock)

    @property
    def calls(self) -> int:
        return self.asked.total()

    def begin(self, text: str) -> int:
        with self._lock:
            nth = self.asked[text]
            self.asked[text] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            count = self.asked.total()
        self.on_ask(count)
        return nth

    def end(self, text: str, *, is_answered: bool) -> None:
        with self._lock:
            self.in_flight -= 1
            self.answered[text] += is_answered

    def answer(self, text: str, nth: int, num_generations: int) -> GenerateOutput:
        said = self.reply(text, nth)
        if isinstance(said, dict):
            return said  # type: ignore[return-value]  # what a test gives, right or wrong
        texts = [said] if num_generations == 1 else [f"{said}.{index}" for index in range(num_generations)]
        return {
            "generations": texts,
            "statistics": {"input_tokens": [3] * len(texts), "output_tokens": [2] * len(texts)},
        }


SERVERS: dict[str, Server] = {}


class SimLLM(AsyncLLM):
    """A model over a network that is a `Server` of this process."""

    server: str = "main"
    code_version: ClassVar[str] = "1"

    @property
    def model_name(self) -> str:
        return f"sim-{self.server}"

    @property
    def endpoint(self) -> str:
        return f"sim://{self.server}"

    async def agenerate(  # type: ignore[override]  # options by name
        self,
        input: ChatType,  # noqa: A002 (distilabel's name)
        num_generations: int = 1,
        temperature: float = 1.0,
    ) -> GenerateOutput:
        server, text = SERVERS[self.server], text_of(input)
        nth, is_answered = server.begin(text), False
        try:
            await asyncio.sleep(server.delay_s(text))
            output = server.answer(text, nth, num_generations)
            is_answered = True
            return output
        finally:
            server.end(text, is_answered=is_answered)

    async def aclose(self) -> None:
        SERVERS[self.server].closed += 1


class OneByOneLLM(SimLLM):
    """One call per generation."""

    one_call_per_generation: ClassVar[bool] = True


class LocalLLM(LLM):
    """A model that works in this process; a `Server` counts and answers."""

    server: str = "main"
    code_version: ClassVar[str] = "1"

    @property
    def model_name(self) -> str:
        return f"local-{self.server}"

    def generate(
        self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        server = SERVERS[self.server]
        outputs = []
        for messages in inputs:
            text = text_of(messages)
            nth = server.begin(text)
            outputs.append(server.answer(text, nth, num_generations))
            server.end(text, is_answered=True)
        return outputs


def text_of(messages: ChatType) -> str:
    return str(messages[-1]["content"])


def chat(text: str) -> ChatType:
    return [{"role": "user", "content": text}]


class Ask(Task):
    """Asks about the column `column`, as `<prefix><value>`; the answer's column has the step's name."""

    column: str = "n"
    prefix: str = "q"
    modulo: int = 0
    """Rows ask equal questions where they're equal modulo this."""
    turns: int = 0

    @property
    def inputs(self) -> list[str]:
        return [self.column]

    @property
    def outputs(self) -> list[str]:
        return [self.name, "model_name"]

    def format_input(self, input: Any) -> ChatType:  # noqa: A002 (distilabel's name)
        value = input[self.column]
        return chat(f"{self.prefix}{value % self.modulo if self.modulo else value}")

    def format_output(self, output: str | None, input: Any = None) -> dict[str, Any]:  # noqa: A002 (distilabel's name)
        if "bad" in (output or ""):
            raise ValueError(f"can't read {output}")
        return {self.name: output}

    @property
    def follow_up_turns(self) -> int:
        return self.turns

    def follow_up(self, messages: ChatType, output: str, error: str) -> ChatType | None:
        return [*messages, {"role": "assistant", "content": output}, *chat(f"again {output}")]


@dataclass
class LedgerBench(Bench):
    """A bench whose answers are kept in a file; `path` is None for none."""

    path: Path | None = None
    ledger: ResponseLedger | None = None
    make_ledger: Callable[[str], ResponseLedger] = ResponseLedger
    error: BaseException | None = None

    def start(self, *, steps: list[str] | None = None, **options: Any) -> Any:
        pipeline, self.cache = self.open()

        def open_ledger() -> ResponseLedger | None:
            self.ledger = None if self.path is None else self.make_ledger(str(self.path))
            return self.ledger

        stages = [[n for n in stage if n in (steps or stage)] for stage in pipeline.get_load_stages()]
        self.engine = Engine(
            pipeline.dag,
            self.cache,
            [stage for stage in stages if stage],
            RunOptions(**options),
            acquire=lambda _: None,
            open_ledger=open_ledger,
        )
        return self.engine.run()

    def go(self, timeout_s: float = RUN_TIMEOUT_S, **options: Any) -> dict[str, int]:
        """Run to the end; give batches computed. Raises what the run raises, and TimeoutError where it hangs."""
        self.events, self.error = [], None
        computed: dict[str, int] = {}

        def work() -> None:
            try:
                computed.update(self.run(**options))
            except BaseException as error:  # noqa: BLE001  (raised below)
                self.error = error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            raise TimeoutError(f"the run hangs; the last events: {self.events[-5:]}")
        if self.error is not None:
            raise self.error
        return computed

    def ask_stop(self) -> None:
        assert self.engine is not None
        self.engine.request_stop("the test says so")

    @property
    def is_finished(self) -> bool:
        return any(isinstance(event, RunFinished) for event in self.events)

    def last(self, kind: type[RunEvent]) -> Any:
        return self.stops(kind)[-1]
