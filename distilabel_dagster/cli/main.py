"""The command `distilabel-dagster`, and how it ends: exit codes, and errors as one paragraph."""

import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click

from distilabel_dagster.cli.options import is_debug
from distilabel_dagster.cli.signals import StoppedBySignal
from distilabel_dagster.errors import CostLimitError, DistilabelDagsterError

_COMMAND: Final = "distilabel-dagster"
_AT_COST_LIMIT: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own, and give its exit code.

    0: done. 1: an error, told in one paragraph (`--debug` shows where it comes from). 2: the command line itself is
    wrong. 3: calls have cost what `--max-cost-usd` allows; what was answered is kept. 130 and 143: stopped by Ctrl+C or SIGTERM.
    """
    state: dict[str, bool] = {}
    try:
        from distilabel_dagster.cli.commands import commands  # takes a second, in which Ctrl+C may come

        code = commands.main(
            None if arguments is None else list(arguments), _COMMAND, standalone_mode=False, obj=state
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except StoppedBySignal as stopped:
        return stopped.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001  (where errors become messages)
        _tell(error, is_debug=is_debug(state))
        return _AT_COST_LIMIT if isinstance(find_own_error(error), CostLimitError) else 1
    return code if isinstance(code, int) else 0


def _tell(error: Exception, *, is_debug: bool) -> None:
    from rich.console import Console

    from distilabel_dagster.base.error_texts import tell_error, writable

    if is_debug:
        traceback.print_exception(error, file=sys.stderr)
    ours = find_own_error(error)
    message = writable(str(ours)) if ours is not None else tell_error(error)
    console = Console(file=sys.stderr, highlight=False)
    console.print("Error: ", style="bold red", end="")
    console.print(message, markup=False, soft_wrap=True)
    if ours is None and not is_debug:
        console.print("With --debug it's shown where this comes from.", soft_wrap=True)


def find_own_error(error: BaseException) -> DistilabelDagsterError | None:
    """Give the error of this package behind an error of Dagster's, if there is one."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        if isinstance(each, DistilabelDagsterError):
            return each
        seen.add(id(each))
        waiting += [each.__context__, each.__cause__, getattr(each, "user_exception", None)]
    return None


if __name__ == "__main__":
    sys.exit(main())
