"""Steps that worker processes import."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from distilabel_dagster.steps import Step


class Slow(Step):
    """Takes the longer the earlier the row, and notes which process did it."""

    directory: str

    @property
    def outputs(self) -> list[str]:
        return ["pid"]

    def unload(self) -> None:
        (Path(self.directory) / f"unloaded-{os.getpid()}").touch()

    def process(self, inputs: Any) -> Any:
        time.sleep(0.1 if inputs[0]["n"] == 0 else 0.01)
        (Path(self.directory) / f"row-{inputs[0]['n']}").touch()
        yield [{**row, "pid": os.getpid()} for row in inputs]


class Killed(Step):
    """Its process is killed, as by the system when memory is short, until the file `survive` is there."""

    directory: str

    @property
    def outputs(self) -> list[str]:
        return ["done"]

    def process(self, inputs: Any) -> Any:
        if inputs[0]["n"] == 6 and not (Path(self.directory) / "survive").exists():
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        yield [{**row, "done": True} for row in inputs]


class Failing(Step):
    """Fails, or ends its process, on one row."""

    how: str

    @property
    def outputs(self) -> list[str]:
        return ["done"]

    def process(self, inputs: Any) -> Any:
        if inputs[0]["n"] == 3:
            if self.how == "exit":
                sys.exit(1)
            raise ValueError("no")
        yield [{**row, "done": True} for row in inputs]


class Hanging(Step):
    """Never returns."""

    def process(self, inputs: Any) -> Any:
        time.sleep(1000)
        yield inputs


class Unsendable(Step):
    """Holds what can't be pickled."""

    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def process(self, inputs: Any) -> Any:
        yield inputs
