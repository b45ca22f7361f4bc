"""Against a server that nobody here wrote: `transformers serve`, with a tiny model whose weights are random.

It gets an environment of its own, more than a gigabyte, kept in the temporary directory for the next time.
"""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distilabel_dagster.errors import DistilabelDagsterError
from tests.integration.generation.pipelines import Title, Upper, build_chain, build_one, make_rows, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

_REQUIREMENTS = ("torch==2.13.0", "transformers[serving]==5.24.0")
_INSTALL_S, _START_S = 1200, 120
_MAKE_MODEL = Path(__file__).with_name("make_tiny_model.py")


@pytest.fixture(scope="module")
def environment() -> Path:
    """The directory of the programs of an environment that has the server."""
    place = Path(tempfile.gettempdir()) / "distilabel-dagster-transformers-serve"
    finished = place / "finished.txt"
    if not (finished.is_file() and finished.read_text().split() == list(_REQUIREMENTS)):
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        command = [place / "bin" / "pip", "install", "--quiet", *_REQUIREMENTS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
        if done.returncode != 0:
            pytest.skip(f"`{' '.join(_REQUIREMENTS)}` can't be installed: {done.stderr.strip()[-500:]}")
        finished.write_text(" ".join(_REQUIREMENTS))
    return place / "bin"


@dataclass
class RealServer:
    process: subprocess.Popen[bytes]
    port: int
    model: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def real_server(environment: Path, tmp_path: Path) -> Iterator[RealServer]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    model = str(tmp_path / "model")
    subprocess.run([environment / "python", _MAKE_MODEL, model], env=env, check=True, timeout=_START_S)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        served = RealServer(
            subprocess.Popen(
                [
                    environment / "transformers",
                    *("serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"),
                ],
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            ),
            port,
            model,
            log,
        )
    try:
        deadline = time.monotonic() + _START_S
        while not served.is_healthy():
            assert served.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield served
    finally:
        served.stop()


def test_answers_of_a_real_server_are_paid_once(real_server: RealServer, cache: str) -> None:
    llm = {
        "model": real_server.model,
        "max_concurrency": 2,
        "timeout_s": 60,
        "generation_kwargs": {"max_new_tokens": 8},
    }
    first = run(build_chain(cache, real_server.url, rows=6, llm=llm))
    assert len(first) == 6
    for row in first:
        assert isinstance(row["answer"], str), row["distilabel_metadata"]
        for step in ("ask", "answer"):
            tokens = row["distilabel_metadata"][f"statistics_{step}"]
            assert tokens["input_tokens"] > 0
            assert 0 < tokens["output_tokens"] <= 8
    upper = run(build_one(cache, real_server.url, task=Upper, llm=llm))

    real_server.stop()

    # Nothing but the ledger can answer now.
    assert run(build_chain(cache, real_server.url, rows=make_rows(6)[::-1], llm=llm)) == first[::-1]
    title = run(build_one(cache, real_server.url, task=Title, llm=llm))
    assert [row["generation"] for row in title] == [
        " ".join(word.title() for word in row["distilabel_metadata"]["raw_output_ask"].split())
        for row in upper
    ]
    with pytest.raises(DistilabelDagsterError, match=real_server.url):
        run(build_one(cache, real_server.url, rows=13, llm={**llm, "max_retries": 0}))
