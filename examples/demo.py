"""What `make demo` runs: the main job by Dagster's own command, then a look at what it made."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from distilabel_dagster.base.environment import CACHE_DIR_VARIABLE
from distilabel_dagster.cli.terminal import draw_tree
from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.pipeline import Pipeline

ROOT: Final = Path(__file__).resolve().parent.parent
JOB: Final = "python_docs_qa_job"
STOPPED: Final = 130
SHOWN: Final = re.compile(
    r" - (?:Start pipeline|Load pipeline|Step `[^`]+`: (?!loaded)|Progress:|Stop|Finished: |Config `)"
)
LOG_LINE: Final = re.compile(r"^\S+ \S+ \S+ - dagster - (?:INFO|WARNING) - .*? - (?=[A-Z][a-z])")
NOTHING_COMPUTED: Final = re.compile(r"Finished: nothing to compute, all (\d+) batches")


def main() -> int:
    console = Console(highlight=False, soft_wrap=True)
    arguments = f"job execute -m definitions -j {JOB}"
    console.print(Text(f"$ dagster {arguments}", "bold"))
    code, output = run([sys.executable, "-m", "dagster", *arguments.split()], console)
    if code == STOPPED:
        console.print(Text("Stopped. `make demo` goes on from here.", "bold"))
        return code
    if code:
        sys.stderr.write(output)
        console.print(Text(f"The job failed (exit code {code}); above is all that it said.", "bold red"))
        return code if code > 0 else 128 - code
    sys.path.insert(0, str(ROOT))  # a script has its own folder there
    from examples.python_docs_qa import build_pipeline

    pipeline = build_pipeline()
    show_result(pipeline, console)
    reused = NOTHING_COMPUTED.search(output)
    if reused:
        console.print(
            Text(f"\nComputed nothing: all {reused.group(1)} batches were in the cache.", "bold green")
        )
    show_next(pipeline, console, is_first=reused is None)
    return 0


def run(command: list[str], console: Console) -> tuple[int, str]:
    """Run the job from the project's root, show how it comes on, and give its exit code and all that it said."""
    said: list[str] = []
    is_stopped = False

    def follow(lines: Iterable[str]) -> None:
        for line in lines:
            said.append(line)
            if SHOWN.search(line):
                console.print(Text("  " + LOG_LINE.sub("", re.sub(r"\x1b\[[0-9;]*m", "", line)).rstrip()))

    with subprocess.Popen(  # noqa: S603  (our own command)
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            follow(process.stdout or ())
        except KeyboardInterrupt:  # the job got it from the terminal as well, and ends cleanly
            is_stopped = True
            follow(process.stdout or ())
    return STOPPED if is_stopped else process.returncode, "".join(said)


def show_result(pipeline: Pipeline, console: Console) -> None:
    """Print the Distiset, three rows from all over it, and the files behind it."""
    cache = pipeline.open_cache()
    distiset = create_distiset(cache.data_url)
    console.print(Text(f"\n{distiset!r}"))
    rows = distiset["default"]["train"]
    for index in (0, rows.num_rows // 2, rows.num_rows - 1):
        row = rows[index]
        console.print(Text(f"\nRow {index}: topic {row['topic']}, by {row['model_name']}", "bold"))
        console.print(Text(f"  Q: {row['instruction']}\n  A: {row['response']}"))
    own = cache.fs.list_files(cache.signature)
    paths = [file.path.removeprefix(f"{cache.signature}/") for file in own]
    console.print(Text("\nIn the cache:", "bold"))
    for line in draw_tree(cache.fs.full_path(cache.signature), paths):
        console.print(Text(line))


def show_next(pipeline: Pipeline, console: Console, *, is_first: bool) -> None:
    """Say what to do next."""
    folder = Path(sys.executable).parent
    binaries = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    steps = [
        ("make demo", "again: it computes nothing") if is_first else ("make test", "run the tests"),
        ("make dev", "the same assets in Dagster's UI, on http://127.0.0.1:3000"),
        (f"{binaries}/distilabel-dagster cache show {pipeline.signature[:12]}", "how far each step is"),
        ("README.md", f"a pipeline of your own; {CACHE_DIR_VARIABLE} says where the cache is"),
    ]
    width = max(len(command) for command, _ in steps)
    console.print(Text("\nNext:", "bold"))
    for command, told in steps:
        console.print(Text(f"  {command:<{width}}  {told}"))


if __name__ == "__main__":
    sys.exit(main())
