"""The readers under Atheris, a minute each; `pip install 'distilabel-dagster[fuzz]'` where it has a wheel."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SECONDS = 60


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("reader", ["yaml", "json", "footer", "part", "foreign_part", "schema", "card"])
def test_no_input_found_in_a_minute_breaks_a_reader(reader: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("Atheris isn't installed: `pip install 'distilabel-dagster[fuzz]'`, where it has a wheel")
    command = (
        *(sys.executable, "-m", "tests.fuzz.atheris_readers", reader, str(tmp_path / "corpus")),
        *(
            f"-max_total_time={_SECONDS}",
            "-timeout=120",
            "-rss_limit_mb=4096",
            f"-artifact_prefix={tmp_path}/",
        ),
    )
    done = subprocess.run(
        command,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "Done " in done.stdout, done.stdout[-4000:]
    assert len(list((tmp_path / "corpus").iterdir())) > 1
