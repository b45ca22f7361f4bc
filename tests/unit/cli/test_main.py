import pytest

from distilabel_dagster.cli.main import find_own_error, main
from distilabel_dagster.errors import CacheError, DistilabelDagsterError, StepProcessError


def test_own_error_is_found_behind_others() -> None:
    ours = StepProcessError("Step `ask`: broke", step="ask")
    outer = RuntimeError("of the framework")
    outer.__cause__ = ours
    assert find_own_error(outer) is ours


def test_own_error_is_found_where_dagster_keeps_it() -> None:
    ours = CacheError("full", path="x")
    outer = RuntimeError("of the framework")
    outer.user_exception = ours  # type: ignore[attr-defined]  # as Dagster's errors have it
    assert find_own_error(outer) is ours


def test_errors_in_a_circle_come_to_an_end() -> None:
    first, second = RuntimeError(), ValueError()
    first.__cause__, second.__context__ = second, first
    assert find_own_error(first) is None


def test_wrong_usage_is_told_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "run"]) == 2
    assert "--config" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["pipeline", "run", "-h"], ["cache", "show", "-h"]]
)
def test_help_and_version_are_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip()


def test_error_is_one_paragraph_and_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["pipeline", "info", "--config", "/nowhere/pipeline.yaml"]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert told.startswith("Error: /nowhere/pipeline.yaml can't be read")
    assert len(told.splitlines()) == 1
    assert main([*command, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


class WithoutTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (WithoutTextError(), "Error: <WithoutTextError without a text>"),
        (ValueError("half \ud83d"), "Error: ValueError: half \\ud83d"),
        (DistilabelDagsterError("half \ud83d"), "Error: half \\ud83d"),
    ],
)
def test_errors_whose_text_cannot_be_had_or_shown_are_told(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("distilabel_dagster.cli.commands.commands.main", fail)
    assert main(["cache", "list"]) == 1
    assert told in capsys.readouterr().err
