import io

import pytest
from rich.console import Console

from distilabel_dagster.cli.terminal import LogConsole, draw_tree, format_size, make_console, print_table


def test_tree_is_drawn_as_the_command_tree_draws_it() -> None:
    paths = [
        "pipeline.yaml",
        "data/ask/00001.parquet",
        "data/ask/00002.parquet",
        "batch_manager_steps/ask.json",
        "batch_manager.json",
    ]
    assert draw_tree("/cache/73ca", paths) == [
        "/cache/73ca",
        "├── batch_manager.json",
        "├── batch_manager_steps",
        "│   └── ask.json",
        "├── data",
        "│   └── ask",
        "│       ├── 00001.parquet",
        "│       └── 00002.parquet",
        "└── pipeline.yaml",
    ]


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (45_040, "45.0 kB"),
        (450_400, "450 kB"),
        (3e15, "3000.0 TB"),
    ],
)
def test_sizes_have_the_unit_that_fits(size: int, told: str) -> None:
    assert format_size(size) == told


def test_table_without_a_terminal_is_plain_columns_that_are_never_folded() -> None:
    file = io.StringIO()
    long = "x" * 300
    print_table(make_console(file), ("name", "rows"), [("a", "1"), (f"[b] {long}", "20")], numbers=(1,))
    lines = file.getvalue().splitlines()
    assert [line.split() for line in lines] == [["name", "rows"], ["a", "1"], ["[b]", long, "20"]]
    assert lines[1].endswith(" 1")


def test_table_on_a_terminal_stays_within_it() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    print_table(console, ("name", "description"), [("a", "word " * 40)])
    assert isinstance(console.file, io.StringIO)
    assert max(map(len, console.file.getvalue().splitlines())) <= 60


def test_log_falls_silent_when_nobody_reads_it() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = LogConsole(file=Gone())
    console.print("a line")
    assert console.quiet
