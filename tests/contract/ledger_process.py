"""A ledger in a real process that does as it's told, and what tests put into ledgers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

from distilabel_dagster.ledger.calls import FailedAttempt, Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.rates import RateLimits
from distilabel_dagster.ledger.responses import ResponseLedger

ROOT = Path(__file__).resolve().parents[2]
STEP = StepInRun("pipeline_1", "generate_1f", "generate", "gpt", "http://127.0.0.1/v1")
OTHER_STEP = StepInRun("pipeline_1", "judge_2f", "judge", "gpt", "http://127.0.0.1/v1")


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def keys_of(numbers: Iterable[int]) -> list[bytes]:
    return [key_of(number) for number in numbers]


def answer(number: int, text: str = "Hi", **changes: Any) -> StoredResponse:
    values: dict[str, Any] = {
        "key": key_of(number),
        "response": {"text": text},
        "model": STEP.model,
        "endpoint": STEP.endpoint,
        "finish_reason": "stop",
        "input_tokens": 10,
        "output_tokens": 3,
        "cost_usd": 0.25,
        "latency_s": 0.5,
        "attempts": 1,
        "created_at": 1_700_000_000.5,
        "run_id": "run-1",
    }
    return StoredResponse(**{**values, **changes})


def pay(number: int, text: str = "Hi", step: StepInRun = STEP, **changes: Any) -> Paid:
    return Paid(answer(number, text, **changes), step)


def fail(
    number: int, kind: str = "rate_limit", step: StepInRun = STEP, message: str = "slow down"
) -> FailedAttempt:
    return FailedAttempt(key_of(number), step, kind, 429, message, "run-1", 1_700_000_000.0 + number)


class OtherLedger:
    """The ledger of another process, with claims open."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "open"

    def tell(self, command: str, *arguments: Any) -> None:
        stdin = cast("IO[str]", self.process.stdin)
        stdin.write(json.dumps([command, *arguments]) + "\n")
        stdin.flush()

    def answer(self) -> Any:
        line = cast("IO[str]", self.process.stdout).readline()
        assert line, "the other process ended"
        return json.loads(line)

    def do(self, command: str, *arguments: Any) -> Any:
        self.tell(command, *arguments)
        return self.answer()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)  # leaves a zombie

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def _carry_out(ledger: ResponseLedger, command: str, arguments: list[Any]) -> Any:
    if command == "begin":
        begun = ledger.begin({STEP: keys_of(arguments[0])})
        named = {"found": begun.found, "claimed": begun.claimed, "elsewhere": begun.elsewhere}
        return {name: sorted(int.from_bytes(key, "big") for key in keys) for name, keys in named.items()}
    if command == "begin_at":
        time.sleep(max(0.0, arguments[0] - time.time()))
        return [_carry_out(ledger, "begin", [numbers]) for numbers in arguments[1]]
    if command == "store":
        for numbers in arguments[0]:
            ledger.store([pay(number, "other") for number in numbers], [fail(number) for number in numbers])
    elif command == "reserve":
        rates = RateLimits(ledger.engine)
        return [rates.reserve("gpt", 1, 600, arguments[0]) for _ in range(arguments[1])]
    elif command == "release":
        ledger.release(keys_of(arguments[0]))
    else:
        ledger.close()
    return "ok"


def main() -> None:
    with ResponseLedger(sys.argv[1]) as ledger:
        print(json.dumps("open"), flush=True)
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            print(json.dumps(_carry_out(ledger, command, arguments)), flush=True)


if __name__ == "__main__":
    main()
