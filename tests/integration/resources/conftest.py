"""Small disks, and runs in processes of their own that fill them."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.errors import CacheError
from tests.integration.resources import definitions, pipelines, run

ROOT = Path(__file__).parents[3]
PATIENCE_S = 240
WAYS = ("python", "command", "dagster")


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system in memory, with an end."""

    path: Path

    def resize(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True, capture_output=True)


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Mount something, with the arguments of the command, for the length of the test; skips it where one may not."""
    made: list[Path] = []

    def do(*arguments: str, on: Path) -> None:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("file systems can't be mounted here")
        if subprocess.run(["mount", *arguments, str(on)], capture_output=True, check=False).returncode:
            pytest.skip("file systems can't be mounted here")
        made.append(on)

    yield do
    for path in reversed(made):
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def make_disk(tmp_path: Path, mount: Callable[..., None]) -> Callable[..., Disk]:
    """Make a file system in memory, with options such as `size=1m`."""

    def make(options: str, name: str = "disk") -> Disk:
        path = tmp_path / name
        path.mkdir()
        mount("-t", "tmpfs", "-o", options, "tmpfs", on=path)
        return Disk(path)

    return make


@pytest.fixture
def bind(mount: Callable[..., None]) -> Callable[[str, Path], None]:
    """Show a file in the place of another."""
    return lambda source, target: mount("--bind", source, on=target)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """What a user reads last, in one line."""
        return " ".join(self.err.strip().splitlines()[-1].split())


@dataclass
class Runs:
    """Runs of the pipeline in one cache, by any way, and what its steps were given."""

    cache_dir: Path
    home: Path
    prefix: list[str] = field(default_factory=list)

    @property
    def side_dir(self) -> Path:
        return self.home / "side"

    def start(self, way: str, **env: str) -> "subprocess.Popen[str]":
        commands = {
            "python": ["-m", run.__name__],
            "command": [
                *("-m", "distilabel_dagster.cli.main", "pipeline", "run", "--config", str(self._config())),
                *("--trusted-module", pipelines.__name__),
            ],
            "dagster": [
                *("-m", "dagster", "job", "execute", "-m", definitions.__name__, "-j", "resources_job"),
            ],
        }
        dagster_home = self.home / "dagster_home"
        dagster_home.mkdir(exist_ok=True)
        self.side_dir.mkdir(exist_ok=True)
        settings = {
            "PYTHONPATH": str(ROOT),
            "DISTILABEL_CACHE_DIR": str(self.cache_dir),
            "SIDE_DIR": str(self.side_dir),
            "DAGSTER_HOME": str(dagster_home),
            "COLUMNS": "4000",
        }
        return subprocess.Popen(
            [*self.prefix, sys.executable, *commands[way]],
            cwd=self.home,
            env={name: value for name, value in {**os.environ, **settings, **env}.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _config(self) -> Path:
        path = self.home / "pipeline.yaml"
        if not path.exists():
            pipelines.build(str(self.cache_dir)).save(path)
        return path

    def go(self, way: str, **env: str) -> Ended:
        return self.finish(self.start(way, **env))

    def finish(self, process: "subprocess.Popen[str]") -> Ended:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ended(process.returncode, out, err)

    def wait_for_parts(self, process: "subprocess.Popen[str]", step: str, count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while len(list(self.cache_dir.glob(f"steps_data/{step}_*/?????.parquet"))) < count:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    def resume(self) -> None:
        """Run to the end in this process."""
        self.side_dir.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SIDE_DIR", str(self.side_dir))
            pipelines.build(str(self.cache_dir)).run()

    def fail(self) -> str:
        """Run in this process, into an error of the cache; give what it says."""
        with pytest.raises(CacheError) as caught:
            self.resume()
        return str(caught.value)

    def committed(self) -> dict[str, list[dict[str, Any]]]:
        """What is committed of each step, read anew."""
        cache = pipelines.build(str(self.cache_dir)).open_cache()
        for store in cache.stores.values():
            store.open()
        return {name: store.read_all().to_pylist() for name, store in cache.stores.items()}

    def computed(self, step: str) -> Counter[int]:
        """How often a step was given each row, in all runs."""
        file = self.side_dir / f"{step}.txt"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the Distiset."""
        data_url = pipelines.build(str(self.cache_dir)).open_cache().data_url
        rows: list[dict[str, Any]] = create_distiset(data_url)["turn"]["train"].to_list()
        return rows


@pytest.fixture
def make_runs(tmp_path: Path) -> Callable[..., Runs]:
    def make(cache_dir: Path) -> Runs:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        return Runs(cache_dir, home)

    return make


def expected_rows() -> list[dict[str, Any]]:
    """What an undisturbed run gives."""
    made = pipelines.Large(name="large")
    turned = pipelines.Turn(name="turn")
    rows = [{"id": number} for number in range(pipelines.ROWS)]
    return turned.run_process(made.run_process(rows))
